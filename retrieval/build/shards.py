"""Shards: the embeddings a build has computed so far, in a work folder that survives an interruption.

The same command resumes after the last shard. If the source has changed, it is read from the start, but embeddings and
thumbnails of images with the same content are reused from the earlier shards.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.arrays import Vectors
from retrieval.build.large.seen import FileRows, Hashes, Seen
from retrieval.console import say
from retrieval.errors import ArtifactError
from retrieval.files.stacked import stacked
from retrieval.files.storing import discard, storing, whole
from retrieval.images.gallery import BASE_SCHEMA, THUMBNAIL_SIDE

VECTOR = "lookalike:vector"  # prefixed, because a source may have its own `vector` column
ROW = "lookalike:row"  # the number of the row in the source, or in the part of it that is read
FETCHED = "fetched"
QUANTIZED = "int8-"  # begins the name of a network in int8, which is named after its encoder


@dataclass
class Shard:
    """A piece of a build: rows with their (D,) vectors in the column VECTOR and their numbers in ROW, and the reading
    position in the source."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    """Number of the row, source and reason."""
    duplicates: list[tuple[int, str, str, str]] = field(default_factory=list)
    """Number of the row, source, source of the first image with this content, and their SHA-256."""
    consumed: int = 0
    """Number of source rows read by the end of this shard."""
    position: Any = None
    """Where to resume the source (see `RawImage.position`); None if rows have to be skipped by count."""


class Shards:
    """The shards of one build in a work folder; each file is written under a temporary name, then renamed."""

    def __init__(self, folder: Path, key: str, encoder: str, schema: pa.Schema) -> None:
        """`key` identifies the build and its source, `encoder` is a fingerprint. Discarded images are reported."""
        self.folder = folder
        self.schema = pa.unify_schemas([BASE_SCHEMA, schema])
        found, wanted = _read_stamp(folder / "key"), {"key": key, "encoder": f"{encoder} {THUMBNAIL_SIDE}"}
        if found.get("encoder") != wanted["encoder"]:
            if count := self._count(folder.rglob("*.parquet")):
                say(f"discarding {count:,} images embedded by an interrupted build: it used a different encoder")
            for path in folder.glob("*"):
                if path != self.fetched and not path.name.startswith(QUANTIZED):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            folder.mkdir(parents=True, exist_ok=True)
        elif found["key"] != key:
            self.set_aside("the source has changed")
        if found != wanted:
            with whole(folder / "key") as path:
                path.write_text(json.dumps(wanted), encoding="utf-8")
        self.kept = Kept(folder / "kept")
        self._hashes = Hashes()
        self._rows: FileRows | None = None  # of the shards, if it was asked what they have
        self._next: int | None = None  # the number of the next shard; None: it has to be looked for

    @property
    def fetched(self) -> Path:
        """The folder for pictures that were fetched and are not in a shard yet."""
        return self.folder / FETCHED

    def begun(self, limit: int | None) -> tuple[int, Any]:
        """The number of source rows read so far, and the position to resume from.

        If more than `limit` rows were read, the build starts over and reuses the embeddings by image content.
        """
        files = self.files()
        last: dict[str, Any] = facts_of(files[-1]) if files else {"consumed": 0, "position": None}
        if limit is None or last["consumed"] <= limit:
            return last["consumed"], last["position"]
        self.set_aside("the limit is lower than before")
        self.kept = Kept(self.folder / "kept")
        return 0, None

    def set_aside(self, why: str) -> None:
        """Keep the shards only as a cache keyed by image content, because they no longer match the source's order."""
        kept, self._next = self.folder / "kept", None
        kept.mkdir(exist_ok=True)
        count = self._count(self.files())
        before = 1 + max((int(path.stem) for path in kept.glob("*.parquet")), default=-1)
        for path in reversed(self.files()):  # last first: an interruption leaves a valid prefix
            path.rename(kept / f"{before + int(path.stem):06d}.parquet")
        if count:
            say(f"{why}: reading from the start; the embeddings of {count:,} images are reused")

    def files(self) -> list[Path]:
        """The paths of the finished shards, in order."""
        return sorted(self.folder.glob("*.parquet"))

    def write(self, shard: Shard, dim: int) -> None:
        """Write a shard to disk; `dim` is D."""
        vectors = np.concatenate([np.empty((0, dim), np.float32), *(row[VECTOR][None] for row in shard.rows)])
        table = pa.Table.from_pylist(shard.rows, schema=self.schema)
        table = table.append_column(VECTOR, pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim))
        table = table.append_column(ROW, pa.array([row[ROW] for row in shard.rows], pa.int64()))
        table = table.replace_schema_metadata({"lookalike": json.dumps(_facts(shard))})
        number = len(self.files()) if self._next is None else self._next
        path = self.folder / f"{number:06d}.parquet"
        with storing(path, ArtifactError, needed=table.nbytes), whole(path) as unfinished:
            pq.write_table(table, unfinished, compression="NONE")
        self._next = number + 1
        if self._rows:
            self._take(path, [row["sha256"] for row in shard.rows])

    def facts(self) -> Iterator[dict[str, Any]]:
        """`consumed`, `position`, `skipped`, `duplicates` and `copies` of each shard; see `facts_of`."""
        return map(facts_of, self.files())

    def seen(self, known: Seen | None) -> Seen:
        """The sources of all images in the shards, also of those written from now on, beside what is `known`."""
        seen = known or Seen()
        self._hashes, self._rows = Hashes(), FileRows(["sha256", "source"])
        for path in self.files():
            self._take(path, pq.read_table(path, columns=["sha256"])["sha256"].to_pylist())
        rows = self._rows

        def read(row: int) -> tuple[str, str]:
            values = rows.get(row)
            return values["sha256"].as_py(), values["source"].as_py()

        seen.include(self._hashes, read)
        return seen

    def forget(self) -> None:
        """Free what `seen` takes; nothing is added any more."""
        self._hashes, self._rows = Hashes(), None

    def _take(self, path: Path, hashes: list[str]) -> None:
        assert self._rows is not None
        self._rows.add(path, len(hashes))
        self._hashes.add(hashes)  # last: who finds a row there, reads it

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of each shard, without the vectors."""
        for path in self.files():
            yield pq.read_table(path, columns=self.schema.names)

    def vectors(self, dim: int) -> Vectors:
        """All vectors, (N, D) float32, in row order; many are in a file of the work folder."""
        return stacked(self.folder, self.count, dim, self.parts(dim))

    def parts(self, dim: int) -> Iterator[Vectors]:
        """The vectors of each shard, float32."""
        return (vectors_in(path, dim) for path in self.files())

    @property
    def count(self) -> int:
        """The number of images in the shards."""
        return self._count(self.files())

    def clear_empty(self) -> None:
        """Remove the work folder if it holds nothing that another attempt can use."""
        if not any(path.name != "key" for path in self.folder.iterdir()):
            shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove the work folder."""
        discard(self.folder)

    @staticmethod
    def _count(files: Iterable[Path]) -> int:
        return sum(pq.read_metadata(path).num_rows for path in files)


def vectors_in(path: Path, dim: int) -> Vectors:
    """The (N, D) float32 vectors of a shard."""
    column = pq.read_table(path, columns=[VECTOR])[VECTOR].combine_chunks()
    vectors: Vectors = column.flatten().to_numpy().reshape(-1, dim)
    return vectors


def facts_of(path: Path) -> dict[str, Any]:
    """What a shard says beside its rows.

    `consumed` and `position` are those of `Shard`. `skipped` are pairs of source and reason, `duplicates` pairs of a
    source and that of the same image, in the order of the source. `copies` has the row and SHA-256 of each duplicate.
    """
    return dict(json.loads(pq.read_schema(path).metadata[b"lookalike"]))


def _facts(shard: Shard) -> dict[str, Any]:
    # An image is refused only once its batch is full: in the order of the rows, the report does not depend on batches.
    skipped, duplicates = sorted(shard.skipped), sorted(shard.duplicates)
    return {
        "consumed": shard.consumed,
        "position": shard.position,
        "skipped": [(source, reason) for _, source, reason in skipped],
        "duplicates": [(source, same) for _, source, same, _ in duplicates],
        "copies": [(number, sha256) for number, _, _, sha256 in duplicates],
    }


class Kept:
    """Embeddings and thumbnails from an earlier build with the same encoder, keyed by the images' SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._hashes, self._rows = Hashes(), FileRows(["sha256", "thumbnail", VECTOR])
        for path in sorted(folder.glob("*.parquet")):
            hashes = pq.read_table(path, columns=["sha256"])["sha256"].to_pylist()
            self._rows.add(path, len(hashes))
            self._hashes.add(hashes)

    def get(self, sha256: str) -> tuple[bytes, Vectors] | None:
        """The thumbnail and the (D,) vector of an image, or None if it is unknown. Thread-safe."""
        for row in self._hashes.rows(sha256):
            values = self._rows.get(row)
            if values["sha256"].as_py() == sha256:
                return values["thumbnail"].as_py(), values[VECTOR].values.to_numpy()
        return None


def clear_finished(folder: Path, prefix: str) -> None:
    """Remove a work folder if its build has a key that begins with `prefix`; that of any other build is kept.

    Without a key, no build can continue it: one was killed while it removed the folder.
    """
    key = _read_stamp(folder / "key").get("key")
    if key is None or key.startswith(prefix):
        discard(folder)


def _read_stamp(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # missing, or written by an earlier version
        return {}
