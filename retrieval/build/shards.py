"""Shards: what a build has embedded so far, in a work folder that survives a kill.

The same command goes on after the last shard. A build of a source that has changed meanwhile reads it from the
start, but takes the vector and the thumbnail of an image with the same content from the shards of the earlier one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.arrays import Vectors
from retrieval.console import say
from retrieval.images.gallery import BASE_SCHEMA, THUMBNAIL_SIDE

VECTOR = "lookalike:vector"  # a column of the shards; a source may well have a column called `vector` of its own
_OPEN = 4  # kept shards whose thumbnails are in memory at a time


@dataclass
class Shard:
    """A piece of a build: rows with their vectors (D,) in the column VECTOR, and how far the source had been read."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    consumed: int = 0
    """How many rows of the source have been read up to its end."""
    position: Any = None
    """Where the source goes on, as `RawImage.position` has it; None where that can only be counted off."""


class Shards:
    """The shards of one build in a work folder: each file is written under another name first, then renamed."""

    def __init__(self, folder: Path, key: str, encoder: str, schema: pa.Schema) -> None:
        """`key` says what is built, and of which source; `encoder` is a fingerprint. What is lost is said."""
        self.folder = folder
        self.schema = pa.unify_schemas([BASE_SCHEMA, schema])
        found, wanted = _read_stamp(folder / "key"), {"key": key, "encoder": f"{encoder} {THUMBNAIL_SIDE}"}
        if found.get("encoder") != wanted["encoder"]:
            if count := self._count(folder.rglob("*.parquet")):
                say(f"{count:,} images that an interrupted build had embedded are lost: its encoder was another one")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        elif found["key"] != key:
            self.set_aside("the source is not what it was")
        if found != wanted:
            write_whole(folder / "key", lambda path: path.write_text(json.dumps(wanted), encoding="utf-8"))
        self.kept = Kept(folder / "kept")

    def begun(self, limit: int | None) -> tuple[int, Any]:
        """How many rows of the source have been read, and the position after them.

        Where they are more than `limit`, it is begun anew, and the images in the shards are kept by their content.
        """
        last = (self.facts() or [{"consumed": 0, "position": None}])[-1]
        if limit is None or last["consumed"] <= limit:
            return last["consumed"], last["position"]
        self.set_aside("the limit is lower now")
        self.kept = Kept(self.folder / "kept")
        return 0, None

    def set_aside(self, why: str) -> None:
        """Keep the images of the shards by their content alone, since their order is no longer that of the source."""
        kept = self.folder / "kept"
        kept.mkdir(exist_ok=True)
        count = self._count(self.files())
        before = 1 + max((int(path.stem) for path in kept.glob("*.parquet")), default=-1)
        for path in reversed(self.files()):  # a kill on the way leaves the first ones, which are whole as they are
            path.rename(kept / f"{before + int(path.stem):06d}.parquet")
        if count:
            say(f"{why}: it is read from the start; {count:,} images embedded before a break are not embedded again")

    def files(self) -> list[Path]:
        """The finished shards, in order."""
        return sorted(self.folder.glob("*.parquet"))

    def write(self, shard: Shard, dim: int) -> None:
        """Add a shard."""
        vectors = np.concatenate([np.empty((0, dim), np.float32), *(row[VECTOR][None] for row in shard.rows)])
        table = pa.Table.from_pylist(shard.rows, schema=self.schema)
        table = table.append_column(VECTOR, pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim))
        named = ("consumed", "position", "skipped", "duplicates")
        table = table.replace_schema_metadata({"lookalike": json.dumps({name: getattr(shard, name) for name in named})})
        path = self.folder / f"{len(self.files()):06d}.parquet"
        write_whole(path, lambda unfinished: pq.write_table(table, unfinished, compression="NONE"))

    def facts(self) -> list[dict[str, Any]]:
        """Of each shard: `consumed`, `position`, `skipped` and `duplicates`."""
        return [json.loads(pq.read_schema(path).metadata[b"lookalike"]) for path in self.files()]

    def hashes(self) -> dict[str, str]:
        """SHA-256 -> source of every image that is in a shard."""
        known: dict[str, str] = {}
        for path in self.files():
            table = pq.read_table(path, columns=["sha256", "source"])
            known.update(zip(table["sha256"].to_pylist(), table["source"].to_pylist(), strict=True))
        return known

    def tables(self) -> Iterator[pa.Table]:
        """The rows, shard by shard, without the vectors."""
        for path in self.files():
            yield pq.read_table(path, columns=self.schema.names)

    def vectors(self, dim: int) -> Vectors:
        """All the vectors, (N, D) float32, in the order of the rows."""
        vectors, start = np.empty((self._count(self.files()), dim), np.float32), 0
        for path in self.files():
            column = pq.read_table(path, columns=[VECTOR])[VECTOR].combine_chunks()
            vectors[start : start + len(column)] = column.flatten().to_numpy().reshape(-1, dim)
            start += len(column)
        return vectors

    def clear(self) -> None:
        """Remove the work folder."""
        shutil.rmtree(self.folder)

    @staticmethod
    def _count(files: Iterable[Path]) -> int:
        return sum(pq.read_metadata(path).num_rows for path in files)


class Kept:
    """Images of an earlier build by the same encoder, by the SHA-256 of their content."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[Path, int]] = {}
        for path in sorted(folder.glob("*.parquet")):
            hashes = pq.read_table(path, columns=["sha256"])["sha256"].to_pylist()
            self._places.update({sha256: (path, row) for row, sha256 in enumerate(hashes)})
        self._read = lru_cache(_OPEN)(lambda path: pq.read_table(path, columns=["thumbnail", VECTOR]))

    def get(self, sha256: str) -> tuple[bytes, Vectors] | None:
        """The thumbnail and the (D,) vector of an image; None where it was not there. For several threads."""
        if sha256 not in self._places:
            return None
        path, row = self._places[sha256]
        table = self._read(path)
        return table["thumbnail"][row].as_py(), table[VECTOR][row].values.to_numpy()


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    write(unfinished)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.rename(path)


def _read_stamp(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # there is none, or it is of an earlier version
        return {}
