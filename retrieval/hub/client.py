"""Calls to the Hub: its client's errors in plain words, and retries where they may help.

Tokens come from HF_TOKEN or the login, through the client, and are never read here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import TypeVar

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import parse_ratelimit_headers

from retrieval.errors import AwayError, HubError
from retrieval.hub_errors import hub_error

_TRIES = 3  # consecutive attempts without progress
_PROGRESS = 1 << 20  # bytes that count as progress
_PATIENCE = 60.0  # longest wait in seconds that the Hub may request; beyond it, the call fails
_SECOND = 1.0  # length of a second of waiting; shorter in tests
_OF_THE_HUB = (HfHubHTTPError, OfflineModeIsEnabled)  # subclasses of OSError

HUB = re.sub(r"//[^/@]*@", "//", constants.ENDPOINT)  # for messages, without credentials in the URL
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class CutOffError(httpx2.ReadError):
    """An incomplete file; the message says how much of it arrived."""


def tell(what: str, call: Callable[[], _T]) -> _T:
    """The result of `call`, with the client's errors as HubError; the client itself retries where that is safe."""
    try:
        return call()
    except LocalTokenNotFoundError as error:
        raise HubError(f"writing {what} needs a login: run `hf auth login`, or set HF_TOKEN.") from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise HubError(f"HF_ENDPOINT is not the address of a Hub: {HUB!r}.") from error
    except (httpx2.LocalProtocolError, UnicodeEncodeError):  # their own message contains the token
        wrong = f"the token for {what} contains characters that no token has"
        raise HubError(f"{wrong}: fix HF_TOKEN, or run `hf auth login`.") from None
    except (httpx2.HTTPError, *_OF_THE_HUB) as error:
        if isinstance(error, CutOffError):
            raise AwayError(f"the download of {what} was cut off ({error}): try again.") from error
        raise hub_error(error, what, HUB, _wait(error)) from error
    except ValueError as error:  # invalid card or name
        raise HubError(f"{what} is not valid for the Hub: {' '.join(str(error).split())}") from error


def ask(
    what: str,
    call: Callable[[], _T],
    *,
    impatient: bool = False,
    tries: int = _TRIES,
    when_told: bool = False,
    so_far: Callable[[], int] = lambda: 0,
    stopped: Event | None = None,
) -> _T:
    """Repeat `call` until it succeeds, or `tries` attempts in a row make no progress; waits as the Hub requests.

    `impatient`: do not retry if nobody answers. `when_told`: retry only if the Hub says when. `so_far`: bytes received,
    the measure of progress. `stopped`: ends the waiting when set. Raises HubError.
    """
    left, most, stopped = tries, 0, stopped or Event()
    while True:
        try:
            return tell(what, call)
        except AwayError as error:
            left, most = (tries - 1, so_far()) if so_far() >= most + _PROGRESS else (left - 1, most)
            unreachable = isinstance(error.__cause__, (httpx2.TransportError, OfflineModeIsEnabled))
            given_up = left <= 0 or error.wait > _PATIENCE or isinstance(error.__cause__, OfflineModeIsEnabled)
            if given_up or (impatient and unreachable) or (when_told and not error.wait):
                raise
            pause = error.wait or float(tries - left)
            _log.warning("%s Trying again in %.0f s.", error, pause)
            if stopped.wait(pause * _SECOND):
                raise


def _wait(error: Exception) -> float:
    """The seconds that the Hub requests to wait (Retry-After, or RateLimit of the draft standard); 0 for none."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    after = headers.get("Retry-After", "")
    if after.isdigit():
        return float(after)
    with suppress(ValueError):  # it may be a date
        return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else 0.0
