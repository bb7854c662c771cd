"""The values of one column of a gallery, each distinct value once, and the rows that a condition selects.

Values are compared with `=` as the column prints them, so a filter from a command line or a JSON file means the same as
one from Python: `true` matches True in a boolean column, `1` matches 1.0 in a column of floats.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.arrays import Ids
from retrieval.errors import QueryError
from retrieval.images.filters import Condition, no_value, printed, shown
from retrieval.images.scalars import A_DAY, as_moment, as_number
from retrieval.images.stored.encoded import Codes, Encoded

Mask = npt.NDArray[np.bool_]
_AT_ONCE = 2**20  # rows
_MOST_MEMBERS = 32  # a row, on average; columns with longer lists hold numbers such as coordinates, and are no filters
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Values:
    """A column, encoded: N rows, M members (of its lists; otherwise M = N), and D distinct values."""

    def __init__(self, name: str, encoded: Encoded) -> None:
        self.name, self._rows, self.codes, self._owners = name, encoded.rows, encoded.codes, encoded.owners
        self.is_list = encoded.owners is not None
        self.kind: pa.DataType = encoded.distinct.type
        self._distinct = encoded.distinct
        self.texts: list[str] = encoded.distinct.cast(pa.string()).to_pylist()
        self.code_of = {text: code for code, text in enumerate(self.texts)}

    @property
    def members(self) -> int:
        """M, without the repeated and missing members of lists."""
        return len(self.codes)

    @property
    def has_few_members(self) -> bool:
        """Whether its lists are short enough to filter by; a column without lists has one member a row."""
        return self.members <= _MOST_MEMBERS * self._rows

    @property
    def missing(self) -> Mask:
        """(N,): whether the row has no value; a list without members is none."""
        return self.codes < 0 if self._owners is None else self._without_members

    @cached_property
    def _without_members(self) -> Mask:
        missing = np.ones(self._rows, bool)
        missing[self._owners] = False
        return missing

    def counts(self, rows: Mask | None = None) -> npt.NDArray[np.int64]:
        """(D,): the number of rows that have each value, of those in the mask (N,); None: of all rows."""
        return self.counted(rows)[:-1]

    def counted(self, rows: Mask | None) -> npt.NDArray[np.int64]:
        """(D + 1,): `counts`, and the number of rows without a value."""
        return self._all_counts if rows is None else self._counted(rows)

    @cached_property
    def _all_counts(self) -> npt.NDArray[np.int64]:
        return self._counted(None)

    def _counted(self, rows: Mask | None) -> npt.NDArray[np.int64]:
        counts = np.zeros(len(self.texts) + 1, np.int64)  # first, that of the code -1
        for at in range(0, len(self.codes), _AT_ONCE):
            codes = self.codes[at : at + _AT_ONCE]
            if rows is not None:
                within = slice(at, at + _AT_ONCE)
                codes = codes[rows[within] if self._owners is None else rows[self._owners[within]]]
            counts += np.bincount(codes.astype(np.int64) + 1, minlength=len(counts))
        if self._owners is not None:
            counts[0] = (self.missing if rows is None else rows & self.missing).sum()
        return np.roll(counts, -1)

    @property
    def has_groups(self) -> bool:
        """Whether it has several values, at least one of them in several rows; lists are no such values."""
        return not self.is_list and 1 < len(self.texts) < self._rows - self.counted(None)[-1]

    def common(self) -> npt.NDArray[np.int64]:
        """(D,): the codes of the values, most common first, then in alphabetical order."""
        counts = self.counts().tolist()
        return np.array(sorted(range(len(counts)), key=lambda code: (-counts[code], self.texts[code])), np.int64)

    def codes_of(self, rows: Ids) -> Ids:
        """Equal numbers for rows with equal values, -1 for one without a value; not for a column of lists."""
        return self.codes[rows].astype(np.int64)

    def as_text(self, value: Any) -> str:
        """A value as this column prints it; a value that cannot be cast is printed unchanged."""
        return printed(value, self.kind)

    def select(self, condition: Condition) -> Mask:
        """(N,): the rows that pass a condition; in a column of lists, those where any member does.

        Raises QueryError for a value that the column does not have (`=`, `!=`), or cannot compare (the others).
        """
        accepted, missing = self.accepted(condition)
        found = self.having(accepted)
        if missing:
            found = found | self.missing
        return ~found if condition.operator == "!=" else found

    def accepted(self, condition: Condition) -> tuple[Mask, bool]:
        """(D,): the values that a condition names, and whether it names rows without one; `!=` takes all other rows.

        Raises QueryError like `select`.
        """
        if condition.operator in _COMPARE:
            return self._compared(condition.operator, condition.values[0]), False
        accepted = np.zeros(len(self.texts), bool)
        for value in condition.values:
            if value is not None:
                accepted |= self._equal(value)
        return accepted, None in condition.values

    def owned(self, rows: Ids) -> tuple[Ids, Codes]:
        """The values of these rows: of each that there is, the place among them and the code; lists have several."""
        if self._owners is None:
            codes = self.codes[rows]
            return np.flatnonzero(codes >= 0), codes[codes >= 0]
        first, end = (np.searchsorted(self._owners, rows, side) for side in ("left", "right"))
        counts = end - first
        members = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        return np.repeat(np.arange(len(rows)), counts), self.codes[members]

    def having(self, accepted: Mask) -> Mask:
        """(N,): the rows with a value of those accepted (D,)."""
        table = np.append(accepted, False)  # code -1, no value, is never accepted
        chosen = np.flatnonzero(accepted)
        only = self.codes.dtype.type(chosen[0]) if len(chosen) == 1 else None
        found = np.zeros(self._rows, bool)
        for at in range(0, len(self.codes), _AT_ONCE):
            codes = self.codes[at : at + _AT_ONCE]
            hits = table[codes] if only is None else codes == only
            if self._owners is None:
                found[at : at + _AT_ONCE] = hits
            else:
                found[self._owners[at : at + _AT_ONCE][hits]] = True
        return found

    def _equal(self, value: Any) -> Mask:
        """(D,): which values are equal to this one; raises QueryError if none is."""
        accepted = self.equal(value)
        if not accepted.any():
            raise no_value(self.name, self.as_text(value), self.code_of)
        return accepted

    def equal(self, value: Any) -> Mask:
        """(D,): which values are equal to this one: in print, as a number, or, for a date, on that day."""
        text = self.as_text(value)
        accepted = np.zeros(len(self.texts), bool)
        if text in self.code_of and not (pa.types.is_date(self.kind) or pa.types.is_timestamp(self.kind)):
            accepted[self.code_of[text]] = True
        elif _is_number(self.kind) and (number := as_number(value)) is not None:
            accepted = self._numbers(operator.eq, number)
        elif self._moments is not None and (moment := as_moment(value)) is not None:
            accepted = self._dates(operator.eq, *moment)
        return accepted

    def _compared(self, sign: str, value: Any) -> Mask:
        """(D,): which values are less than, or greater than, this one."""
        compare = _COMPARE[sign]
        if not self.texts:
            return np.zeros(0, bool)
        if pa.types.is_boolean(self.kind):
            raise QueryError(f"{self.name!r} is true or false, so {self.name}{sign} has no meaning; use = or !=.")
        if _is_number(self.kind):
            number = None if isinstance(value, bool) else as_number(value)
            if number is None:
                raise self._misfit(sign, value, "numbers", f"examples: {', '.join(self.texts[:3])}.")
            return self._numbers(compare, number)
        if self._moments is not None:
            moment = as_moment(value)
            if moment is None:
                raise self._misfit(sign, value, "dates", f"write it like {self.texts[0]}.")
            return self._dates(compare, *moment)
        return self._alphabetical(compare, sign, value)

    def _alphabetical(self, compare: Callable[[Any, Any], Any], sign: str, value: Any) -> Mask:
        """Compare text by code points. A number is refused: as text, 100 would be less than 50."""
        if not isinstance(value, str) or as_number(value) is not None:
            no_number = next((text for text in self.texts if as_number(text) is None), self.texts[0])
            raise self._misfit(sign, value, f"text, such as {shown(no_number)!r}", "give text, or use = or !=.")
        return np.array([compare(text, value) for text in self.texts], bool)

    def _numbers(self, compare: Callable[[Any, Any], Any], number: float) -> Mask:
        """Compare numbers exactly, as Python does; NumPy would round integers to the 53 bits of a float."""
        distinct = self._distinct.to_numpy(zero_copy_only=False)
        if distinct.dtype.kind == "f" and isinstance(number, int) and abs(number) > 2**53:
            return np.array([compare(each, number) for each in distinct.tolist()], bool)
        if distinct.dtype.kind in "iu" and isinstance(number, float) and math.isfinite(number):
            if number.is_integer():
                number = int(number)
            elif compare is operator.eq:
                return np.zeros(len(distinct), bool)
            else:  # x < 3.5 is x <= 3, and x > 3.5 is x > 3
                number, compare = math.floor(number), operator.le if compare(0, 1) else operator.gt
        return np.asarray(compare(distinct, number), bool)

    def _dates(self, compare: Callable[[Any, Any], Any], moment: int, is_day: bool) -> Mask:
        """Compare moments, or, with a day, the days of the moments."""
        moments = cast(npt.NDArray[np.int64], self._moments)
        return np.asarray(compare(moments // A_DAY, moment // A_DAY) if is_day else compare(moments, moment), bool)

    @cached_property
    def _moments(self) -> npt.NDArray[np.int64] | None:
        """(D,): microseconds since 1970 of each value, in a column of dates, or of text that is all ISO dates."""
        if not self.texts or not (pa.types.is_temporal(self.kind) or pa.types.is_string(self.kind)):
            return None
        moments = []
        for text in self.texts:
            moment = as_moment(text)
            if moment is None:
                return None
            moments.append(moment[0])
        return np.array(moments, np.int64)

    def _misfit(self, sign: str, value: Any, holds: str, mend: str) -> QueryError:
        return QueryError(f"{self.name} holds {holds}, so {self.name}{sign}{shown(value)} cannot be compared; {mend}")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
