"""Fetching pictures that a list or a visitor names by address: limits of size and time, and a few retries."""

from __future__ import annotations

import email.utils
import io
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import BinaryIO

import httpcore
import httpx

from retrieval.errors import ImageError, first_line, short
from retrieval.images.door.files import MAX_BYTES
from retrieval.installed import VERSION
from retrieval.sources.lists.network import RefusedError, Transport, transfer
from retrieval.sources.lists.unpacking import NAMES, unpacked

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

    def __init__(
        self,
        allow_private: bool = False,
        *,
        only_https: bool = False,
        longest: float | None = None,
        attempts: int | None = None,
    ) -> None:
        """With `allow_private`, addresses in private networks are fetched too.

        With `only_https`, no others are, nor redirects to others. A transfer takes at most `longest` seconds (default:
        `LONGEST`) with its redirects, and is tried `attempts` times (default: `ATTEMPTS`).
        """
        self._allow_private, self._only_https = allow_private, only_https
        self._longest, self._attempts = longest, attempts

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {"User-Agent": f"lookalike/{VERSION}", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": NAMES}
        timeout = httpx.Timeout(_SILENCE, connect=10.0, pool=None)
        transport = Transport(self._allow_private, self._only_https)
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        return httpx.Client(transport=transport, headers=headers, timeout=timeout, cookies=no_cookies)

    def __call__(self, address: str, stop: threading.Event | None = None) -> bytes:
        """The bytes behind an http(s) address; `stop` ends it early.

        Raises ImageError, with the reason in words, if it cannot be fetched or is larger than `MAX_BYTES`; AwayError
        if that may pass.
        """
        content = io.BytesIO()
        self.save(address, content, stop)
        return content.getvalue()

    def save(self, address: str, file: BinaryIO, stop: threading.Event | None = None) -> None:
        """Write the bytes behind an http(s) address into a file as they come; raises like `__call__`."""
        stop, attempts = stop or threading.Event(), self._attempts or ATTEMPTS
        for attempt in range(attempts):
            try:
                file.seek(0)
                file.truncate()
                return self._once(address, file, stop)
            except _TryAgainError as error:
                wait = BACKOFF * 2**attempt * random.uniform(1, 1.5) if error.wait is None else error.wait
                last = attempt == attempts - 1
                if last or wait > MOST_WAIT or stop.wait(wait):
                    tries = f", {attempt + 1} times" if attempt else ""
                    later = f"; it asks to wait {wait:.0f} seconds" if wait > MOST_WAIT else ""
                    raise AwayError(f"{error}{tries}{later}") from error
        raise AssertionError("every attempt returns or raises")

    def _once(self, address: str, file: BinaryIO, stop: threading.Event) -> None:
        longest = self._longest or LONGEST
        with _in_words(stop, longest), self._answer(address) as response:
            if response.status_code in _AGAIN:
                raise _TryAgainError(_refusal(response), _asked_wait(response))
            if response.status_code != httpx.codes.OK:
                raise ImageError(_refusal(response))
            stated = response.headers.get("Content-Length", "")
            if stated.isdecimal() and (len(stated) > 18 or int(stated) > MAX_BYTES):
                raise _too_large()
            size = 0
            for part in unpacked(response):
                size += len(part)
                if size > MAX_BYTES:
                    raise _too_large()
                file.write(part)

    @contextmanager
    def _answer(self, address: str) -> Iterator[httpx.Response]:
        """The last answer after redirects. Followed here, as httpx would read the whole body of each of them first."""
        request = self._client.build_request("GET", address)
        for _ in range(_REDIRECTS + 1):
            response = self._client.send(request, stream=True)
            try:
                if response.next_request is None:
                    yield response
                    return
                request = response.next_request
            finally:
                response.close()
        raise httpx.TooManyRedirects("too many redirects")


@contextmanager
def _in_words(stop: threading.Event, longest: float) -> Iterator[None]:
    """Limit the time of one transfer, and turn its failures into ImageError or _TryAgainError."""
    transfer.end, transfer.stop = time.monotonic() + longest, stop
    try:
        yield
    except RefusedError as error:
        raise AwayError(  # not gone: sync keeps its image until it is fetched with the option
            f"{error} is in a private or reserved network; to fetch from there, add --allow-private"
        ) from error
    except (httpcore.TimeoutException, httpx.TimeoutException) as error:
        if time.monotonic() >= transfer.end:
            raise AwayError(f"the transfer took longer than {longest:g} seconds") from error
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
