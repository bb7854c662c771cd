"""A column of a large gallery with very many distinct values, such as file names: its rows are looked at in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.arrays import Ids
from retrieval.images.filters import ORDERED, Condition, no_value, printed
from retrieval.images.stored.columns import is_list
from retrieval.images.stored.encoded import encode
from retrieval.images.stored.rows import Rows
from retrieval.images.values import Mask, Values

_LISTED = 5_000  # values that an error compares with what was asked for


class Wide:
    """A column whose values are not encoded: there are too many of them to be chosen from a list."""

    has_few_members = False

    def __init__(self, name: str, column: pa.ChunkedArray, *, repeats: bool) -> None:
        """`repeats`: whether it has a value in several rows."""
        self.name, self._column = name, column
        self.is_list = is_list(column.type)
        self.has_groups = repeats and not self.is_list
        self.kind: pa.DataType = column.type.value_type if self.is_list else column.type
        self._taken = Rows(pa.table({name: column}))

    def as_text(self, value: Any) -> str:
        """A value as this column prints it; a value that cannot be cast is printed unchanged."""
        return printed(value, self.kind)

    def select(self, condition: Condition) -> Mask:
        """(N,): the rows that pass a condition; see `Values.select`."""
        if condition.operator in ORDERED:
            return np.concatenate([part.select(condition) for part in self._parts()])
        found = np.zeros(len(self._column), bool)
        for value in condition.values:
            found |= self._missing() if value is None else self._equal(value)
        return ~found if condition.operator == "!=" else found

    def codes_of(self, rows: Ids) -> Ids:
        """Equal numbers for rows with equal values, -1 for one without a value; not for a column of lists."""
        codes = [-1 if text is None else _number(text) for text in self.texts_of(rows)]
        return np.array(codes, np.int64).reshape(np.shape(rows))

    def texts_of(self, rows: Ids) -> list[str | None]:
        """The values of these rows as they are printed, None for one without a value; not for a column of lists."""
        taken = self._taken.take(np.asarray(rows, np.int64).ravel())[self.name]
        return cast("list[str | None]", taken.cast(pa.string()).to_pylist())

    def _parts(self) -> Iterator[Values]:
        return (Values(self.name, encode(pa.chunked_array([chunk]))) for chunk in self._column.chunks)

    def _missing(self) -> Mask:
        return np.concatenate([part.missing for part in self._parts()])

    def _equal(self, value: Any) -> Mask:
        """(N,): the rows with this value; raises QueryError if there is none."""
        if pa.types.is_string(self._column.type) and isinstance(value, str):
            with_text = self._with_text(value)
            if with_text.any():
                return with_text
        found = np.concatenate([part.having(part.equal(value)) for part in self._parts()])
        if not found.any():
            known = islice((text for part in self._parts() for text in part.texts), _LISTED)
            raise no_value(self.name, self.as_text(value), known)
        return found

    def _with_text(self, text: str) -> Mask:
        try:
            wanted = pa.scalar(text, self._column.type)
        except UnicodeError:  # text that Arrow cannot represent
            return np.zeros(len(self._column), bool)
        same = [pc.equal(chunk, wanted).fill_null(False) for chunk in self._column.chunks]
        return np.concatenate([each.to_numpy(zero_copy_only=False) for each in same])


class Hashed:
    """Numbers for the values of a wide column, made for the rows that are asked for."""

    def __init__(self, column: Wide) -> None:
        self._column = column

    def __getitem__(self, rows: Ids) -> Ids:
        return self._column.codes_of(rows)


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
