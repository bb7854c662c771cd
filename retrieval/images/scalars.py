"""Numbers and dates in the forms that people and files write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

A_DAY = 86_400_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE = re.compile(r"\s*[+-]?\d{1,400}\s*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].+)?", re.DOTALL)


def as_number(value: Any) -> int | float | None:
    """A number, or text that is one, as a number; None for anything else, and for NaN."""
    try:
        if isinstance(value, str):
            if "_" in value:  # Python reads 1_000 as a number
                return None
            number: int | float = int(value) if _WHOLE.fullmatch(value) else float(value)
        elif isinstance(value, int | float):
            number = value
        else:
            return None
    except ValueError:
        return None
    return None if number != number else number


def as_written(number: np.floating[Any]) -> float:
    """A narrow float as the number that it is written as: 0.1 for a float32, not 0.10000000149011612."""
    return float(str(number))


def as_moment(value: Any) -> tuple[int, bool] | None:
    """Microseconds since 1970, and whether it is a whole day; None for what is no date. Without a zone, it is UTC."""
    try:
        if isinstance(value, np.datetime64):
            value = str(value)
        if isinstance(value, str):
            found = _DATE.fullmatch(value.strip())
            if found is None:
                return None
            value = datetime.fromisoformat(found[0]) if found[1] else date.fromisoformat(found[0])
        if isinstance(value, datetime):
            zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
            return (zoned - _EPOCH) // timedelta(microseconds=1), False
        if isinstance(value, date):
            return (value - _EPOCH.date()).days * A_DAY, True
    except (ValueError, OverflowError):
        return None
    return None


def in_order(texts: Iterable[str]) -> list[str]:
    """Values for display: numbers by size, then text in alphabetical order."""

    def place(value: str) -> tuple[float, str]:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        return (math.inf, value) if math.isnan(number) else (number, value)

    return sorted(texts, key=place)
