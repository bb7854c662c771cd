"""Embedding a source: decoding in parallel with the encoder, in shards that survive a kill."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.encoders.image import Encoder
from retrieval.errors import ImageError
from retrieval.images.gallery import BASE_SCHEMA, ID_LENGTH, THUMBNAIL_SIDE
from retrieval.images.open import open_image, thumbnail_jpeg
from retrieval.images.sources import RawImage, Source

BATCH = 4  # images that go through the network together: more at a time is slower on a CPU (memory is mapped anew)
SHARD = 128 * BATCH  # images: what a kill can cost; whole batches, so that going on makes the same batches
_VECTOR = "lookalike:vector"  # a column of the shards; a source may well have a column called `vector` of its own
_MOST_READ = 8 * SHARD  # rows of a source between two shards, however few of them are new
_PATIENCE = 15  # seconds of work that a kill can cost, where images are slow
_AHEAD = 24  # images that may be decoded before they are needed: bounds the memory

Progress = Callable[[int, int | None], None]
"""Called with the number of images done, and how many there are, if that is known."""


@dataclass
class Shard:
    """A piece of a build: rows, their vectors, and how far the source had been read when it was written."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)


class Shards:
    """The shards of one build in a work folder: each file is written under another name first, then renamed."""

    def __init__(self, folder: Path, key: str, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = pa.unify_schemas([BASE_SCHEMA, schema])
        stamp = folder / "key"
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != key:
            shutil.rmtree(folder, ignore_errors=True)  # another source, encoder or option: nothing here is of use
            folder.mkdir(parents=True)
            _write(stamp, lambda path: path.write_text(key, encoding="utf-8"))

    def files(self) -> list[Path]:
        """The finished shards, in order."""
        return sorted(self.folder.glob("*.parquet"))

    def write(self, shard: Shard, consumed: int, dim: int) -> None:
        """Add a shard; `consumed` is how many rows of the source have been read up to its end."""
        vectors = np.concatenate([np.empty((0, dim), np.float32), *shard.vectors])
        table = pa.Table.from_pylist(shard.rows, schema=self.schema)
        table = table.append_column(_VECTOR, pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim))
        facts = {"consumed": consumed, "skipped": shard.skipped, "duplicates": shard.duplicates}
        table = table.replace_schema_metadata({"lookalike": json.dumps(facts)})
        path = self.folder / f"{len(self.files()):06d}.parquet"
        _write(path, lambda unfinished: pq.write_table(table, unfinished, compression="NONE"))

    def facts(self) -> list[dict[str, Any]]:
        """Of each shard: `consumed`, `skipped` and `duplicates`."""
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

    def vectors(self, dim: int) -> npt.NDArray[np.float32]:
        """All the vectors, (N, D) float32, in the order of the rows."""
        count = sum(pq.read_metadata(path).num_rows for path in self.files())
        vectors, start = np.empty((count, dim), np.float32), 0
        for path in self.files():
            column = pq.read_table(path, columns=[_VECTOR])[_VECTOR].combine_chunks()
            vectors[start : start + len(column)] = column.flatten().to_numpy().reshape(-1, dim)
            start += len(column)
        return vectors

    def clear(self) -> None:
        """Remove the work folder."""
        shutil.rmtree(self.folder)


def embed_source(
    source: Source,
    encoder: Encoder,
    shards: Shards,
    *,
    known: dict[str, str] | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Embed the images of a source that are not in the shards yet; `known` are SHA-256s to treat as duplicates.

    A picture that cannot be read is skipped with its reason, one whose content came before is a duplicate.
    """
    consumed = max((facts["consumed"] for facts in shards.facts()), default=0)
    total = source.total if limit is None else min(limit, source.total or limit)
    seen = {**(known or {}), **shards.hashes()}
    shard, tensors, start, written = Shard(), [], consumed, time.monotonic()
    for raw, result in _prepared(islice(source.rows(), consumed, limit), encoder, seen):
        consumed += 1
        if isinstance(result, ImageError):
            shard.skipped.append((raw.source, str(result)))
        elif result.sha256 in seen:
            shard.duplicates.append((raw.source, seen[result.sha256]))
        else:
            seen[result.sha256] = raw.source
            shard.rows.append(_row(raw, result))
            tensors.append(result.tensor)
        full = len(shard.rows) == SHARD or consumed % _MOST_READ == 0
        if len(tensors) == BATCH or full:
            shard.vectors.append(encoder.embed_tensors(tensors))
            tensors = []
        # Only between batches: what is in a batch must not hang on how fast this machine is.
        if full or (not tensors and time.monotonic() - written > _PATIENCE):
            shards.write(shard, consumed, encoder.dim)
            shard, start, written = Shard(), consumed, time.monotonic()
        if progress:
            progress(consumed, total)
    if consumed > start:
        shard.vectors.append(encoder.embed_tensors(tensors))
        shards.write(shard, consumed, encoder.dim)


@dataclass(frozen=True)
class _Prepared:
    sha256: str
    thumbnail: bytes
    tensor: Any  # what Encoder.preprocess gives


def _prepare(raw: RawImage, encoder: Encoder, seen: Container[str]) -> _Prepared | ImageError:
    try:
        data = raw.read()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in seen:
            return _Prepared(sha256, b"", None)  # a duplicate: there is nothing to decode
        image = open_image(data)
    except ImageError as error:
        return error
    return _Prepared(sha256, thumbnail_jpeg(image, THUMBNAIL_SIDE), encoder.preprocess(image))


def _prepared(
    rows: Iterable[RawImage], encoder: Encoder, seen: Container[str]
) -> Iterator[tuple[RawImage, _Prepared | ImageError]]:
    """Read, decode and preprocess on a pool of threads, a little ahead of the encoder, in the source's order."""
    waiting: deque[tuple[RawImage, Future[_Prepared | ImageError]]] = deque()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for raw in rows:
                waiting.append((raw, pool.submit(_prepare, raw, encoder, seen)))
                if len(waiting) > _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _row(raw: RawImage, prepared: _Prepared) -> dict[str, Any]:
    return {
        **raw.attributes,
        "id": prepared.sha256[:ID_LENGTH],
        "thumbnail": prepared.thumbnail,
        "label": raw.label,
        "source": raw.source,
        "sha256": prepared.sha256,
    }


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    write(unfinished)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.rename(path)
