"""Embedding a source: decoding runs in parallel with the encoder, and shards survive an interruption."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from retrieval.arrays import Vectors
from retrieval.build.large.seen import Seen
from retrieval.build.shards import ROW, VECTOR, Kept, Shard, Shards
from retrieval.console import Progress, say
from retrieval.encoders.base import resize_of
from retrieval.encoders.engines.device import build_batch
from retrieval.encoders.image import Encoder
from retrieval.errors import EmbeddingError, ImageError
from retrieval.files.system import cores
from retrieval.images.door.checks import remark
from retrieval.images.door.views import View, within
from retrieval.images.gallery import ID_LENGTH, THUMBNAIL_SIDE
from retrieval.images.open import open_views, thumbnail_jpeg
from retrieval.sources.base import RawImage, Source
from retrieval.sources.lists.ahead import Fetched, ahead

SHARD = 512  # images lost by an interruption, at most; a multiple of all batches, so a resumed build batches alike
_MOST_READ = 8 * SHARD  # source rows read between two shards, at most, even if few of them are new
_PATIENCE = 15  # seconds of work lost by an interruption, at most, if images are slow
_AHEAD = 24  # images decoded in advance, to bound memory; on a GPU, two batches


def embed_source(
    source: Source,
    encoder: Encoder,
    shards: Shards,
    *,
    known: Seen | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Embed the images of a source that are not in the shards yet.

    `known` are the names of images to treat as duplicates, by their SHA-256. An image that cannot be read, or whose
    embedding is close to zero, is skipped with its reason. An image with the same content as an earlier one is a
    duplicate.
    """
    consumed, position = shards.begun(limit)
    total = source.total if limit is None else min(limit, source.total or limit)
    work = _Work(encoder, shards, shards.seen(known), consumed)
    rows = source.rows(position) if position else islice(source.rows(), consumed, None)
    rows = islice(rows, None if limit is None else limit - consumed)
    with closing(ahead(rows, work.fetched)) as fetched:
        for raw, result in _prepared(fetched, encoder, work.seen, shards.kept, work.ahead):
            work.take(raw, result)
            if progress:
                progress(work.shard.consumed, total)
    work.end()


class _Work:
    """The current shard, and its images that wait for the encoder."""

    def __init__(self, encoder: Encoder, shards: Shards, seen: Seen, consumed: int) -> None:
        self._encoder, self._shards = encoder, shards
        self.fetched = Fetched(shards.fetched)
        self.seen = seen
        """The sources of all images in a shard, of the known ones, and of those that could not be embedded."""
        # Pictures are decoded while the network computes, so two batches keep a GPU busy.
        self._batch = build_batch(encoder.engine.device, encoder.data_config["input_size"][1])
        self._on_processor = encoder.engine.device == "cpu"
        self.ahead = _AHEAD if self._on_processor else 2 * self._batch
        self._refused: dict[str, str] = {}  # SHA-256 -> why the image could not be embedded
        self._waiting: list[tuple[dict[str, Any], Any]] = []  # pairs of row and tensor
        self._begin(consumed)

    def _begin(self, consumed: int) -> None:
        self.shard, self._start, self._since = Shard(consumed=consumed), consumed, time.monotonic()
        self._addresses: list[str] = []  # of the images in the shard

    def take(self, raw: RawImage, result: _Prepared | ImageError) -> None:
        """Record the next image of the source as skipped, duplicate or new; embed and write when enough wait."""
        shard, number = self.shard, self.shard.consumed
        shard.consumed, shard.position = shard.consumed + 1, raw.position
        if raw.fetch and raw.path:
            self._addresses.append(raw.path)
        if isinstance(result, ImageError):
            shard.skipped.append((number, raw.source, str(result)))
        elif result.sha256 in self._refused:
            shard.skipped.append((number, raw.source, self._refused[result.sha256]))
        elif (same := self.seen.get(result.sha256)) is not None:
            shard.duplicates.append((number, raw.source, same, result.sha256))
        else:
            if result.remark:
                say(f"{raw.source} {result.remark}")
            self.seen[result.sha256] = raw.source
            shard.rows.append({**_row(raw, result), ROW: number})
            if result.vector is None:
                self._waiting.append((shard.rows[-1], result.tensor))
        much_read = shard.consumed % _MOST_READ == 0
        if len(self._waiting) == self._batch or much_read:
            self._embed()
        # Only between batches, so the batches depend neither on the machine's speed nor on where a build was cut.
        late = time.monotonic() - self._since > _PATIENCE
        if not self._waiting and (len(shard.rows) >= SHARD or much_read or late):
            self._write()

    def end(self) -> None:
        """Embed and write the remaining images."""
        self._embed()
        if self.shard.consumed > self._start:
            self._write()

    def _write(self) -> None:
        self._shards.write(self.shard, self._encoder.dim)
        self.seen.drop(row["sha256"] for row in self.shard.rows)
        self.fetched.drop(self._addresses)
        self._begin(self.shard.consumed)

    def _embed(self) -> None:
        while self._waiting:
            tensors = [tensor for _, tensor in self._waiting]
            if not self._on_processor:
                # Always as many: a GPU may round otherwise in a batch of another size, and how many images share a
                # batch depends on the images before them. On a processor, it makes no difference.
                tensors += [tensors[0]] * (self._batch - len(tensors))
            try:
                vectors = self._encoder.embed_tensors(tensors)[: len(self._waiting)]
            except EmbeddingError as error:
                for at in sorted({at for at in error.rows if at < len(self._waiting)}, reverse=True):
                    self._skip(self._waiting.pop(at)[0], str(error))
                continue
            for (row, _), vector in zip(self._waiting, vectors, strict=True):
                row[VECTOR] = vector
            self._waiting = []

    def _skip(self, row: dict[str, Any], reason: str) -> None:
        """Turn a row and its duplicates into skipped images."""
        shard, sha256 = self.shard, row["sha256"]
        self._refused[sha256] = reason  # it stays in `seen`: copies of it may have been read without decoding
        shard.rows = [other for other in shard.rows if other is not row]
        same = [(number, name) for number, name, _, content in shard.duplicates if content == sha256]
        shard.duplicates = [copy for copy in shard.duplicates if copy[3] != sha256]
        shard.skipped += [(number, name, reason) for number, name in ((row[ROW], row["source"]), *same)]


@dataclass(frozen=True)
class _Prepared:
    sha256: str
    thumbnail: bytes = b""
    tensor: Any = None  # the output of Encoder.preprocess
    vector: Vectors | None = None  # reused from an earlier build
    remark: str | None = None  # what to say of the file


def _prepare(raw: RawImage, encoder: Encoder, seen: Container[str], kept: Kept) -> _Prepared | ImageError:
    try:
        data = raw.read()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in seen:
            return _Prepared(sha256)  # a duplicate needs no decoding
        if before := kept.get(sha256):
            return _Prepared(sha256, before[0], vector=before[1])
        small, image = open_views(data, [View(resize=within(THUMBNAIL_SIDE)), View(resize=resize_of(encoder))])
    except ImageError as error:
        return error
    return _Prepared(sha256, thumbnail_jpeg(small, THUMBNAIL_SIDE), encoder.preprocess(image), remark=remark(data))


def _prepared(
    rows: Iterable[RawImage], encoder: Encoder, seen: Container[str], kept: Kept, most: int
) -> Iterator[tuple[RawImage, _Prepared | ImageError]]:
    """Read, decode and preprocess in a thread pool, at most so many ahead of the encoder, in source order."""
    waiting: deque[tuple[RawImage, Future[_Prepared | ImageError]]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for raw in rows:
                waiting.append((raw, pool.submit(_prepare, raw, encoder, seen, kept)))
                if len(waiting) > most:
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
        VECTOR: prepared.vector,
    }
