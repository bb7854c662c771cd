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
import pyarrow.compute as pc

from retrieval.errors import QueryError
from retrieval.images.filters import Condition, shown
from retrieval.images.scalars import A_DAY, as_moment, as_number
from retrieval.words import did_you_mean

Mask = npt.NDArray[np.bool_]
_MOST_MEMBERS = 32  # a row, on average; columns with longer lists hold numbers such as coordinates, and are no filters
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Values:
    """A column, encoded: N rows, M members (of its lists; otherwise M = N), and D distinct values."""

    def __init__(self, name: str, column: pa.ChunkedArray) -> None:
        self.name, self._rows = name, len(column)
        whole = column.combine_chunks()
        self.is_list = is_list(whole.type)
        flat = pc.list_flatten(whole) if self.is_list else whole
        self.kind: pa.DataType = flat.type
        if pa.types.is_floating(self.kind):
            flat = pc.add(flat, pa.scalar(0, self.kind))  # -0.0 becomes 0.0: they are equal
        coded = flat.dictionary_encode()
        self._distinct = coded.dictionary
        self.texts: list[str] = coded.dictionary.cast(pa.string()).to_pylist()
        self.code_of = {text: code for code, text in enumerate(self.texts)}
        self.codes: npt.NDArray[np.int32] = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        self._owners: npt.NDArray[np.int64] | None = None  # the row of each member
        if self.is_list:
            self._keep_members(pc.list_parent_indices(whole).to_numpy(zero_copy_only=False).astype(np.int64))

    def _keep_members(self, owners: npt.NDArray[np.int64]) -> None:
        """Keep each member of a row once, and no missing ones."""
        there = self.codes >= 0
        pairs = np.unique(owners[there] * max(len(self.texts), 1) + self.codes[there])
        self._owners, codes = np.divmod(pairs, max(len(self.texts), 1))
        self.codes = codes.astype(np.int32)

    @property
    def members(self) -> int:
        """M, without the repeated and missing members of lists."""
        return len(self.codes)

    @property
    def has_few_members(self) -> bool:
        """Whether its lists are short enough to filter by; a column without lists has one member a row."""
        return self.members <= _MOST_MEMBERS * self._rows

    @cached_property
    def missing(self) -> Mask:
        """(N,): whether the row has no value; a list without members is none."""
        if self._owners is None:
            return self.codes < 0
        missing = np.ones(self._rows, bool)
        missing[self._owners] = False
        return missing

    def counts(self, rows: Mask | None = None) -> npt.NDArray[np.int64]:
        """(D,): the number of rows that have each value, of those in the mask (N,); None: of all rows."""
        codes = self.codes if rows is None else self.codes[rows if self._owners is None else rows[self._owners]]
        return np.bincount(codes[codes >= 0], minlength=len(self.texts)).astype(np.int64)

    def as_text(self, value: Any) -> str:
        """A value as this column prints it; a value that cannot be cast is printed unchanged."""
        try:
            return str(pa.scalar(value).cast(self.kind).cast(pa.string()).as_py())
        except (pa.ArrowException, OverflowError, UnicodeError):  # a number or text that Arrow cannot represent
            return str(value)

    def select(self, condition: Condition) -> Mask:
        """(N,): the rows that pass a condition; in a column of lists, those where any member does.

        Raises QueryError for a value that the column does not have (`=`, `!=`), or cannot compare (the others).
        """
        accepted, missing = self.accepted(condition)
        found = self._having(accepted)
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

    def owned(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """The values of these rows: of each that there is, the place among them and the code; lists have several."""
        if self._owners is None:
            codes = self.codes[rows]
            return np.flatnonzero(codes >= 0), codes[codes >= 0]
        first, end = (np.searchsorted(self._owners, rows, side) for side in ("left", "right"))
        counts = end - first
        members = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        return np.repeat(np.arange(len(rows)), counts), self.codes[members]

    def _having(self, accepted: Mask) -> Mask:
        """(N,): the rows with a value of those accepted (D,)."""
        hits: Mask = np.append(accepted, False)[self.codes]  # code -1, no value, is never accepted
        if self._owners is None:
            return hits
        found = np.zeros(self._rows, bool)
        found[self._owners[hits]] = True
        return found

    def _equal(self, value: Any) -> Mask:
        """(D,): which values are equal to this one: in print, as a number, or, for a date, on that day."""
        text = self.as_text(value)
        accepted = np.zeros(len(self.texts), bool)
        if text in self.code_of and not (pa.types.is_date(self.kind) or pa.types.is_timestamp(self.kind)):
            accepted[self.code_of[text]] = True
        elif _is_number(self.kind) and (number := as_number(value)) is not None:
            accepted = self._numbers(operator.eq, number)
        elif self._moments is not None and (moment := as_moment(value)) is not None:
            accepted = self._dates(operator.eq, *moment)
        if not accepted.any():
            end = did_you_mean(text, self.code_of)
            raise QueryError(f"no image has {self.name}={shown(text)}; {end}")
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


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
