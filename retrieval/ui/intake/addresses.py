"""Pictures by address: fetched before a search waits for its turn, and held, unnamed, until it is searched with."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any, BinaryIO

import anyio

from retrieval.errors import ImageError, QueryError
from retrieval.files.storing import error_number
from retrieval.sources.lists.fetch import AwayError, Fetcher
from retrieval.ui import strings
from retrieval.ui.api.arguments import FETCHED, is_file
from retrieval.ui.intake.refusing import RefusedError
from retrieval.words import is_address

_SECONDS = 10.0  # for a picture in all, with waiting for others
_AT_ONCE = 4
_HELD = 16  # fetched pictures that no search has taken yet
_IN_MEMORY = 2**22  # bytes of each of them that need no disk
_KEPT = 120.0  # seconds
_LONGEST = 2048  # characters


@dataclass(frozen=True)
class _Held:
    content: BinaryIO | None
    error: str
    until: float


class Addresses:
    """Fetches pictures from public https addresses; with `allow_private`, from any http(s) address."""

    def __init__(self, allow_private: bool = False) -> None:
        self._fetch = Fetcher(allow_private, only_https=not allow_private, longest=_SECONDS, attempts=1)
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting = 0
        self._free: anyio.CapacityLimiter | None = None

    async def fetch(self, address: str) -> BinaryIO:
        """What is at an address, as a temporary file without a name.

        Raises RefusedError, with a sentence, if it is not a public address, is not answered in time, or is too large.
        """
        if len(address) > _LONGEST:
            raise RefusedError(422, f"the address of a picture must have at most {_LONGEST:,} characters.")
        if self._waiting + self._forget() >= _HELD:
            raise RefusedError(503, strings.FETCH_BUSY)
        # An anyio limiter belongs to an event loop, which does not exist yet when the app is made.
        self._free = self._free or anyio.CapacityLimiter(_AT_ONCE)
        stop = threading.Event()
        self._waiting += 1
        try:
            with anyio.fail_after(_SECONDS):
                return await anyio.to_thread.run_sync(
                    self._fetched, address, stop, limiter=self._free, abandon_on_cancel=True
                )
        except TimeoutError as error:
            raise RefusedError(422, strings.FETCH_SLOW) from error
        finally:
            stop.set()
            self._waiting -= 1

    def hold(self, content: BinaryIO | None, error: str = "") -> dict[str, str]:
        """Keep what was fetched, or why it was not; returns the value that stands for it."""
        token = token_urlsafe(16)
        with self._lock:
            self._held[token] = _Held(content, error, time.monotonic() + _KEPT)
        return {FETCHED: token}

    def take(self, value: dict[str, Any]) -> bytes:
        """The picture that a value stands for, once; raises QueryError if there is none."""
        with self._lock:
            held = self._held.pop(value[FETCHED], None)
        if held is None:
            raise QueryError(strings.FETCH_GONE)
        if held.content is None:
            raise QueryError(held.error)
        with held.content as content:
            content.seek(0)
            return content.read()

    def _fetched(self, address: str, stop: threading.Event) -> BinaryIO:
        # Most pictures need no disk, which may be full. It is closed by `take`.
        content: Any = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        try:
            self._fetch.save(address, content, stop)
        except BaseException as error:
            content.close()
            # Whether a name exists in a private network is nobody's business, so these are all the same.
            if isinstance(error, AwayError):
                raise RefusedError(422, strings.FETCH_FAILED) from error
            if isinstance(error, ImageError):
                raise RefusedError(422, f"the picture cannot be fetched: {error}.") from error
            if isinstance(error, Exception) and error_number(error) is not None:
                raise RefusedError(507, strings.DISK_FULL, {"Retry-After": "60"}) from error
            raise
        return content  # type: ignore[no-any-return]

    def _forget(self) -> int:
        """Drop what no search has come for in time; returns how many pictures are still held."""
        with self._lock:
            for token in [token for token, held in self._held.items() if held.until < time.monotonic()]:
                if content := self._held.pop(token).content:
                    content.close()
            return sum(held.content is not None for held in self._held.values())


def address_of(value: Any) -> str | None:
    """The address in a file object, as Gradio's clients make it from a URL; None if it has none."""
    return value["path"] if is_file(value) and is_address(value["path"]) else None


def holds_address(value: Any) -> bool:
    """Whether any file object inside a value has an address: Gradio would fetch it."""
    if address_of(value):
        return True
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(holds_address, parts))
