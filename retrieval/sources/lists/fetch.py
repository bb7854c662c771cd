"""Fetching the pictures that a list names by address: limits of size and time, and a few retries."""

from __future__ import annotations

import email.utils
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property

import httpcore
import httpx

from retrieval.errors import ImageError, first_line, short
from retrieval.images.door.files import MAX_BYTES
from retrieval.sources.lists.network import RefusedError, Transport, transfer
from retrieval.version import VERSION

LONGEST = 60.0  # seconds of one transfer, with its redirects
_SILENCE = 20.0  # seconds without a byte
ATTEMPTS = 4
BACKOFF = 0.5  # seconds before the first retry, doubled for each further one
MOST_WAIT = 30.0  # seconds before a retry that a server may ask for
_REDIRECTS = 5
_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))


_INVALID: tuple[type[Exception], ...] = (
    *(httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError),
    *(httpcore.UnsupportedProtocol, httpcore.LocalProtocolError, UnicodeError),
)


class AwayError(ImageError):
    """A picture cannot be fetched now, but perhaps later."""


class _TryAgainError(Exception):
    """A failure that may pass; `wait` is the seconds that the server asks for, if it does."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Fetcher:
    """Fetches addresses; thread-safe."""

    def __init__(self, allow_private: bool = False) -> None:
        """With `allow_private`, addresses in private networks are fetched too."""
        self._allow_private = allow_private

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {"User-Agent": f"lookalike/{VERSION}", "Accept": "image/*,*/*;q=0.5"}
        timeout = httpx.Timeout(_SILENCE, connect=10.0, pool=None)
        transport = Transport(self._allow_private)
        return httpx.Client(
            transport=transport, headers=headers, timeout=timeout, follow_redirects=True, max_redirects=_REDIRECTS
        )

    def __call__(self, address: str, stop: threading.Event | None = None) -> bytes:
        """The bytes behind an http(s) address; `stop` ends it early.

        Raises ImageError, with the reason in words, if it cannot be fetched or is larger than `MAX_BYTES`; AwayError
        if that may pass.
        """
        stop = stop or threading.Event()
        for attempt in range(ATTEMPTS):
            try:
                return self._once(address, stop)
            except _TryAgainError as error:
                wait = BACKOFF * 2**attempt * random.uniform(1, 1.5) if error.wait is None else error.wait
                last = attempt == ATTEMPTS - 1
                if last or wait > MOST_WAIT or stop.wait(wait):
                    tries = f", {attempt + 1} times" if attempt else ""
                    later = f"; it asks to wait {wait:.0f} seconds" if wait > MOST_WAIT else ""
                    raise AwayError(f"{error}{tries}{later}") from error
        raise AssertionError("every attempt returns or raises")

    def _once(self, address: str, stop: threading.Event) -> bytes:
        with _in_words(stop), self._client.stream("GET", address) as response:
            if response.status_code in _AGAIN:
                raise _TryAgainError(_refusal(response), _asked_wait(response))
            if response.status_code != httpx.codes.OK:
                raise ImageError(_refusal(response))
            if int(response.headers.get("Content-Length") or 0) > MAX_BYTES:
                raise _too_large()
            parts, size = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > MAX_BYTES:
                    raise _too_large()
            return b"".join(parts)


@contextmanager
def _in_words(stop: threading.Event) -> Iterator[None]:
    """Limit the time of one transfer, and turn its failures into ImageError or _TryAgainError."""
    transfer.end, transfer.stop = time.monotonic() + LONGEST, stop
    try:
        yield
    except RefusedError as error:
        raise AwayError(  # not gone: sync keeps its image until it is fetched with the option
            f"{error} is in a private or reserved network; to fetch from there, add --allow-private"
        ) from error
    except (httpcore.TimeoutException, httpx.TimeoutException) as error:
        if time.monotonic() >= transfer.end:
            raise AwayError(f"the transfer took longer than {LONGEST:g} seconds") from error
        raise _TryAgainError("the server does not answer in time") from error
    except httpx.TooManyRedirects as error:
        raise ImageError(f"it is redirected more than {_REDIRECTS} times") from error
    except _INVALID as error:
        raise ImageError(f"the address, or where it is redirected, is not valid: {_told(error)}") from error
    except httpx.DecodingError as error:
        raise ImageError(f"the answer is damaged: {_told(error)}") from error
    except httpcore.ConnectError as error:
        # The context, because httpcore takes the cause away. Neither passes within seconds.
        if isinstance(error.__context__, socket.gaierror | ssl.SSLCertVerificationError):
            raise AwayError(f"the server cannot be reached: {_told(error)}") from error
        raise _TryAgainError(f"the server cannot be reached: {_told(error)}") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.TransportError) as error:
        raise _TryAgainError(f"the transfer broke off: {_told(error)}") from error


def _told(error: Exception) -> str:
    return short(first_line(error), 150)


def _refusal(response: httpx.Response) -> str:
    return f"the server answers {response.status_code} {response.reason_phrase}".rstrip()


def _too_large() -> ImageError:
    return ImageError(f"the answer is too large; at most {MAX_BYTES // 2**20} MiB are accepted")


def _asked_wait(response: httpx.Response) -> float | None:
    """The seconds that the header Retry-After asks for: a number, or a date; None without one."""
    stated = response.headers.get("Retry-After", "").strip()
    if stated.isdecimal():
        return float(stated)
    try:
        date = email.utils.parsedate_to_datetime(stated)
    except ValueError:
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date.tzinfo else None
