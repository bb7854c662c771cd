"""Rows of a table in many pieces: which ones, and their texts, without a Python object for each of ten million rows."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import cast, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class Rows:
    """Takes rows of a table. Arrow's own `take` copies whole columns if they are in several pieces."""

    def __init__(self, table: pa.Table) -> None:
        self._batches = table.to_batches()
        self._starts = np.cumsum([0, *map(len, self._batches)])
        self._empty = table.schema.empty_table()

    def take(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        """The rows with these numbers, in this order; raises IndexError for one that is not there."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < self._starts[-1]:
            raise IndexError(f"there are {self._starts[-1]:,} rows, asked for {rows.min():,} to {rows.max():,}")
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        ends = np.searchsorted(ascending, self._starts)
        pieces = [
            self._batches[piece].take(pa.array(ascending[ends[piece] : ends[piece + 1]] - self._starts[piece]))
            for piece in np.flatnonzero(np.diff(ends)).tolist()
        ]
        if not pieces:
            return self._empty
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.Table.from_batches(pieces).combine_chunks().take(pa.array(back))


class LazyTexts(Sequence[str | None]):
    """A sequence of texts, None where there is none; each one is made when it is asked for."""

    @abstractmethod
    def text(self, row: int) -> str | None:
        """The text of a row; a negative number counts from the end."""

    @overload
    def __getitem__(self, at: int) -> str | None: ...
    @overload
    def __getitem__(self, at: slice) -> list[str | None]: ...
    def __getitem__(self, at: int | slice) -> str | list[str | None] | None:
        if isinstance(at, slice):
            return [self.text(row) for row in range(*at.indices(len(self)))]
        return self.text(int(at))


class Texts(LazyTexts):
    """A column of texts as a sequence."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def text(self, row: int) -> str | None:
        """See `LazyTexts`."""
        return cast("str | None", self._column[row].as_py())

    def __iter__(self) -> Iterator[str | None]:
        for chunk in self._column.chunks:
            yield from chunk.to_pylist()


class Ids:
    """Finds the row of an id by the order of the ids."""

    def __init__(self, column: pa.ChunkedArray, order: npt.NDArray[np.integer]) -> None:
        """`order` (N,) are the rows sorted by their ids, as `pyarrow.compute.sort_indices` sorts them."""
        self._texts, self._order = Texts(column), order

    def row_of(self, image_id: str) -> int | None:
        """The row of an id; None if no row has it."""
        low, high = 0, len(self._order)
        while low < high:
            middle = (low + high) // 2
            if cast(str, self._texts[int(self._order[middle])]) < image_id:
                low = middle + 1
            else:
                high = middle
        row = int(self._order[low]) if low < len(self._order) else -1
        return row if row >= 0 and self._texts[row] == image_id else None


class IdsHash:
    """SHA-256 of a gallery's ids in row order, with line ends between them, as stored in the manifest."""

    def __init__(self) -> None:
        self._hash, self._first = hashlib.sha256(), True

    def add(self, column: pa.ChunkedArray) -> None:
        """The next ids."""
        for chunk in column.chunks:
            if len(chunk):
                joined = "\n".join(chunk.to_pylist())
                self._hash.update((joined if self._first else f"\n{joined}").encode())
                self._first = False

    @cached_property
    def digest(self) -> str:
        """The hash, in hexadecimal digits."""
        return self._hash.hexdigest()


def hash_of_ids(column: pa.ChunkedArray) -> str:
    """`IdsHash` of a whole column."""
    ids = IdsHash()
    ids.add(column)
    return ids.digest
