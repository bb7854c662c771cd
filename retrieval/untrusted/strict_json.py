"""JSON from strangers: bounded in size, parts and depth, without repeated keys or numbers that JSON does not have."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from retrieval.errors import short

MOST_BYTES = 32 * 2**20
_MOST_PARTS = 1_000_000  # values: each takes 50 to 200 bytes in memory
_DEEPEST = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(content: bytes | str, *, most: int = MOST_BYTES, nan: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text of at most `most` bytes and a million values.

    `nan` gives the value of NaN and the infinities, which are refused without it. Raises ValueError, with the first
    problem, for what is not JSON in UTF-8, repeats a key in an object, or is nested deeper than 64 levels.
    """
    if len(content) > most:
        raise ValueError(f"it has {len(content):,} bytes, more than {most:,}")
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    if (parts := sum(map(text.count, ",[{"))) > _MOST_PARTS:
        raise ValueError(f"it has {parts:,} values, more than {_MOST_PARTS:,}")
    constant = nan or _refused

    def number(digits: str) -> Any:
        return value if math.isfinite(value := float(digits)) else constant(digits)

    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=constant, parse_float=number)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from error
    _check_depth(value)
    if _SURROGATE.search(text):  # half a pair is no text: it cannot be printed or sent
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has the key {short(repr(twice), 60)} twice in one object")
    return made


def _refused(number: str) -> Any:
    raise ValueError(f"it holds {short(number, 30)}, which is not a finite number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST + 1):
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        if not inner:
            return
        level = [part for parts in inner for part in parts]
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
