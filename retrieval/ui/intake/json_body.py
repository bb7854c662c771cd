"""Reading the JSON of a request within limits of size, depth and number of values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from starlette.types import Receive

from retrieval.errors import short
from retrieval.ui.intake.refusing import RefusedError

MOST = 2**20
"""Bytes of JSON."""
MOST_OF_LOGIN = 2**14
"""Bytes of the form with which a visitor logs in."""
_DEEPEST = 32
_MOST_VALUES = 20_000
_MOST_DIGITS = 1000

TOO_LARGE = f"the request is too large: at most {MOST // 2**20} MiB of JSON is accepted. Upload pictures as files."


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], most: int = MOST, sentence: str = TOO_LARGE
) -> bytes:
    """The whole body; raises RefusedError as soon as it is known to have more than `most` bytes, which is before it is
    read if the client states its size, and ConnectionError if the client hangs up."""
    check_stated(headers, most, sentence)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError
        body += message.get("body", b"")
        if len(body) > most:
            raise RefusedError(413, sentence)
        if not message.get("more_body", False):
            return bytes(body)


def check_stated(headers: dict[bytes, bytes], most: int, sentence: str) -> None:
    """Raise RefusedError if the stated length of the body is over `most` bytes, or not a number."""
    stated = headers.get(b"content-length", b"0")
    if not stated.isdigit():
        raise RefusedError(400, "the header Content-Length must be a number.")
    if len(stated) > 18 or int(stated) > most:
        raise RefusedError(413, sentence)


def parse(body: bytes) -> Any:
    """The value of a JSON text; raises RefusedError, with a sentence, for anything else.

    NaN and infinities are read, as Python writes them; who gets them refuses them by the name of the argument.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the body must be UTF-8; byte {error.start} is not.") from error
    except RecursionError as error:
        raise RefusedError(400, _too_deep()) from error
    except json.JSONDecodeError as error:
        raise RefusedError(
            400, f"the body must be JSON: {error.msg.removesuffix(' at')} at line {error.lineno}."
        ) from error
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(pairs) > _MOST_VALUES:
        raise RefusedError(413, _too_many())
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise RefusedError(400, f"the JSON has the key {short(twice, 60)!r} twice in one object.")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise RefusedError(400, f"the JSON has a number of {len(digits):,} digits; at most {_MOST_DIGITS:,} are read.")
    return int(digits)


def _check(value: Any) -> None:
    """Raise RefusedError if the value is too deep or has too many parts."""
    level: list[Any] = [value]
    count = 0
    for _ in range(_DEEPEST):
        count += len(level)
        if count > _MOST_VALUES:
            raise RefusedError(413, _too_many())
        level = [part for each in level for part in _parts(each)]
        if not level:
            return
    raise RefusedError(400, _too_deep())


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _too_deep() -> str:
    return f"the JSON is nested too deeply; at most {_DEEPEST} levels are read."


def _too_many() -> str:
    return f"the JSON has too many values; at most {_MOST_VALUES:,} are read."
