"""Fetching ahead: the next addresses of a source are fetched in parallel while earlier images are embedded."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, get_ident

from retrieval.errors import ImageError
from retrieval.sources.base import RawImage
from retrieval.sources.lists.fetch import AwayError

_AT_ONCE = 16  # transfers
_AHEAD = 48  # rows
_MOST_BYTES = 128 * 2**20  # fetched and waiting for their turn
_MOST_KEPT = 2 * 2**30  # bytes of a store


class Fetched:
    """Pictures that were fetched and are not embedded yet, as files in a folder: an interruption does not lose them.

    A picture is not kept if the folder would become too large, or the disk is full: it is fetched again then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._size = sum(path.stat().st_size for path in folder.glob("*"))

    def get(self, address: str) -> bytes | None:
        """The picture behind an address; None if it is not here."""
        try:
            return self._path(address).read_bytes() or None  # empty: power failed while it was written
        except OSError:
            return None

    def put(self, address: str, data: bytes) -> None:
        """Keep a picture, in the place of an earlier one of the same address."""
        path = self._path(address)
        if self._size + len(data) > _MOST_KEPT:
            return
        unfinished = path.with_suffix(f".{get_ident()}.unfinished")  # two rows may have the same address
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(data)
            unfinished.replace(path)
            self._size += len(data)
        except OSError:
            with suppress(OSError):  # what is left of it would fill the disk further
                unfinished.unlink()

    def drop(self, addresses: Iterable[str]) -> None:
        """Delete pictures that are needed no more."""
        for address in addresses:
            path = self._path(address)
            with suppress(OSError):
                self._size -= path.stat().st_size
                path.unlink()

    def _path(self, address: str) -> Path:
        return self._folder / hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()


def ahead(rows: Iterable[RawImage], kept: Fetched | None = None) -> Generator[RawImage]:
    """The rows in their order, with the pictures of addresses fetched; other rows pass unchanged.

    What is in `kept` is not fetched, and what is fetched is put there. Close the iterator to end all transfers.
    """
    waiting: deque[tuple[RawImage, Future[RawImage] | None]] = deque()
    stop = Event()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for raw in rows:
                waiting.append((raw, pool.submit(_fetched, raw, kept, stop) if raw.fetch else None))
                while waiting and (waiting[0][1] is None or len(waiting) > _AHEAD or _bytes(waiting) > _MOST_BYTES):
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _fetched(raw: RawImage, kept: Fetched | None, stop: Event) -> RawImage:
    address, fetch = raw.path, raw.fetch
    assert address is not None and fetch is not None
    data = kept.get(address) if kept else None
    if data is None:
        try:
            data = fetch(address, stop)
        except ImageError as error:
            return replace(raw, problem=str(error), path=None, is_away=isinstance(error, AwayError))
        if kept:
            kept.put(address, data)
    return replace(raw, data=data)


def _result(pair: tuple[RawImage, Future[RawImage] | None]) -> RawImage:
    raw, future = pair
    return raw if future is None else future.result()


def _bytes(waiting: Iterable[tuple[RawImage, Future[RawImage] | None]]) -> int:
    done = (future.result() for _, future in waiting if future is not None and future.done())
    return sum(len(raw.data or b"") for raw in done)
