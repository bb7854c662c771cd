"""Gallery: the searchable images, one parquet row each; row i is vector i of the index.

Opening a gallery reads names, labels and attributes into memory, or, if it is large, maps them from the disk.
Thumbnails stay on disk, and are read when needed.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.errors import QueryError
from retrieval.forking import Cache
from retrieval.images.filters import Filter, parse, shown, values_of
from retrieval.images.filters import Where as Where
from retrieval.images.filters import parse_where as parse_where
from retrieval.images.scalars import in_order
from retrieval.images.stored.columns import BASE_SCHEMA as BASE_SCHEMA
from retrieval.images.stored.columns import ORIGINAL as ORIGINAL
from retrieval.images.stored.columns import RESERVED as RESERVED
from retrieval.images.stored.columns import conform as conform
from retrieval.images.stored.columns import joined as joined
from retrieval.images.stored.encoded import encode
from retrieval.images.stored.files import read_tables as read_tables
from retrieval.images.stored.files import write_gallery as write_gallery
from retrieval.images.stored.opened import opened
from retrieval.images.stored.rows import Rows, Texts, hash_of_ids
from retrieval.images.values import Values
from retrieval.images.wide import Hashed, Wide
from retrieval.untrusted.columns import check_values
from retrieval.words import did_you_mean

ID_LENGTH = 16  # hex digits of the content's SHA-256; 10 million images collide with a probability of 3 in 10**6
THUMBNAIL_SIDE = 256  # largest number of pixels on the longer side
_FILTERS_CACHED = 4
_ROWS_CACHED = 500_000  # most rows of a filter that are kept
MAX_VALUES = 500  # most distinct values of a column that a list offers as a filter


@dataclass(frozen=True)
class Row:
    """One image of the gallery, without its thumbnail."""

    id: str
    label: str | None
    source: str
    sha256: str
    attributes: dict[str, Any] = field(default_factory=dict)


class Gallery:
    """The rows of `gallery.parquet`, or of its shards, read-only and thread-safe."""

    def __init__(self, files: Path | Sequence[Path], key: str | None = None) -> None:
        """`files` are in row order; `key` is a hash of them, which they were compared with.

        Raises IntegrityError for files that are not a gallery, and LookalikeError if there is no place for the columns
        of a large one (see `retrieval.images.stored.opened`).
        """
        self.files = [files] if isinstance(files, Path) else list(files)
        self._opened = opened(self.files, key)
        self.schema, self.table = self._opened.schema, self._opened.table
        self._rows = Rows(self.table)
        self._is_large = self._opened.ids is not None
        self._encoded: dict[str, Values | Wide] = {}
        self._filtered = Cache[str, npt.NDArray[np.int64]](_FILTERS_CACHED)

    def __len__(self) -> int:
        return cast(int, self.table.num_rows)

    @property
    def attributes(self) -> list[str]:
        """The columns that came with the images, except the label."""
        return [name for name in self.table.column_names if name not in RESERVED]

    @cached_property
    def ids(self) -> Sequence[str]:
        """The ids, in row order."""
        column = self.table["id"]
        return cast("Sequence[str]", Texts(column) if self._is_large else column.to_pylist())

    @cached_property
    def labels(self) -> Sequence[str | None]:
        """The labels, in row order; None for a row without a label."""
        column = self.table["label"]
        return Texts(column) if self._is_large else cast("list[str | None]", column.to_pylist())

    @property
    def has_labels(self) -> bool:
        """Whether any row has a label, not an empty one."""
        values = self.column("label")
        return isinstance(values, Wide) or any(values.texts)

    @cached_property
    def ids_sha256(self) -> str:
        """SHA-256 of the ids in row order, as stored in the manifest."""
        return self._opened.ids_sha256 or hash_of_ids(self.table["id"])

    def check(self, name: str) -> None:
        """Raise IntegrityError, about the file `name`, for values that cannot be used; a large gallery was checked."""
        if not self._is_large:
            check_values(name, self.table)

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def row_of(self, image_id: str) -> int:
        """The row number of an id; raises QueryError if the gallery does not contain it."""
        ids = self._opened.ids
        row = self._row_of_id.get(image_id) if ids is None else ids.row_of(image_id)
        if row is None:
            raise QueryError(f"the gallery has no image with the id {shown(image_id)!r}; it has {len(self)} images.")
        return row

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[Row]:
        """The rows with these numbers, in the given order."""
        return [_row(values) for values in self.taken(rows).to_pylist()]

    def taken(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> pa.Table:
        """The rows with these numbers, in the given order, as a table of all columns but the thumbnail."""
        return self._rows.take(np.asarray(rows, np.int64))

    def thumbnail(self, row: int) -> bytes:
        """The JPEG bytes of a row, as stored; raises IntegrityError if the file has changed since it was opened."""
        starts = self._opened.starts
        if not 0 <= row < len(self):
            raise IndexError(f"the gallery has no row {row}")
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return self._opened.thumbnails[part].get(row - int(starts[part]))

    def counts(self, column: str) -> dict[str, int]:
        """Number of rows for each value of a column, most common first; missing values are not counted."""
        values = self.column(column)
        if isinstance(values, Wide):
            raise QueryError(f"{column!r} has too many values to be counted.")
        counts = values.counts()
        return {values.texts[code]: int(counts[code]) for code in values.common() if counts[code]}

    @property
    def filters(self) -> list[str]:
        """The columns useful as filters: 2 to MAX_VALUES distinct values, but not a different one in every row."""
        return [column for column in ["label", *self.attributes] if self._is_useful(column)]

    def _is_useful(self, column: str) -> bool:
        values = self.column(column)
        if isinstance(values, Wide):
            return False
        few = 1 < len(values.texts) <= MAX_VALUES and len(values.texts) < len(self)
        return few and values.has_few_members

    def facets(self, where: Where | None) -> dict[str, dict[str | None, int]]:
        """For each column in `filters`: value -> number of rows with that value that pass the filter on other columns.

        So the count next to a value is the number of results after choosing it. Values are in display order, with None
        (no value) last; values with a count of 0 are omitted. In a column of lists, each member is a value. Raises
        QueryError like `rows_where`.
        """
        passed = [(each.column, self.column(each.column).select(each)) for each in parse(where).conditions]
        every = _all_of([mask for _, mask in passed])
        found = {}
        for column in self.filters:
            own = any(other == column for other, _ in passed)
            rows = _all_of([mask for other, mask in passed if other != column]) if own else every
            values = cast(Values, self.column(column))
            *counts, missing = values.counted(rows).tolist()
            of_value: dict[str | None, int] = {text: counts[values.code_of[text]] for text in in_order(values.texts)}
            of_value[None] = missing
            found[column] = {value: count for value, count in of_value.items() if count}
        return found

    def rows_where(self, where: Where | None) -> npt.NDArray[np.int64] | None:
        """The rows that pass a filter, ascending, int64; None if there is no filter (see `retrieval.images.filters`).

        Values are compared as text, so a filter from a command line or a JSON file means the same: `true` matches True
        in a boolean column, `1` matches 1.0 in a float column. `<` and its kind compare numbers, dates or text.
        Raises QueryError for an unknown column, value or operator, and suggests the nearest ones.
        """
        wanted = parse(where)
        if not wanted:
            return None
        known = repr(wanted) if self._is_large and _is_plain(wanted) else ""
        if known and (cached := self._filtered.get(known)) is not None:
            return cached
        mask = _all_of([self.column(each.column).select(each) for each in wanted.conditions])
        rows = np.flatnonzero(cast(npt.NDArray[np.bool_], mask))
        if known and len(rows) <= _ROWS_CACHED:
            rows.flags.writeable = False
            self._filtered.put(known, rows)
        return rows

    def as_texts(self, column: str, wanted: Any) -> list[str | None]:
        """A value, or each value of a list, as the column prints it: `true` for True, `1` for 1.0 in a float column."""
        values = self.column(column)
        return [None if value is None else values.as_text(value) for value in values_of(wanted)]

    def groups(self, column: str) -> npt.NDArray[Any] | Hashed:
        """(N,): equal numbers for rows with equal values of a column, -1 without a value; raises QueryError."""
        values = self.column(column)
        if values.is_list:
            raise QueryError(f"{column!r} holds lists, so rows cannot be grouped by it; choose another column.")
        return Hashed(values) if isinstance(values, Wide) else values.codes

    def column(self, column: str) -> Values | Wide:
        """The encoded column; raises QueryError for an unknown one."""
        if column not in self._encoded:
            known = ["label", *self.attributes, "id", "source"]
            if column not in known:
                raise QueryError(f"the gallery has no column {shown(column)!r}; {did_you_mean(column, known)}")
            self._encoded[column] = self._encode(column)
        return self._encoded[column]

    def _encode(self, column: str) -> Values | Wide:
        if not self._is_large:
            return Values(column, encode(self.table[column]))
        if encoded := self._opened.encoded.get(column):
            return Values(column, encoded)
        return Wide(column, self.table[column], repeats=self._opened.repeats.get(column, False))


def _all_of(masks: Sequence[npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_] | None:
    """The rows that pass all of them; None without any."""
    return reduce(operator.and_, masks) if masks else None


def _is_plain(wanted: Filter) -> bool:
    """Whether filters that are written alike are the same."""
    values = [value for each in wanted.conditions for value in each.values]
    return all(isinstance(value, str | int | float | None) for value in values)


def spread_rows(count: int, wanted: int) -> list[int]:
    """Up to `wanted` row numbers, evenly spaced over `count` rows."""
    return [int(row) for row in np.linspace(0, count - 1, min(wanted, count))]


def _row(values: dict[str, Any]) -> Row:
    attributes = {name: value for name, value in values.items() if name not in RESERVED}
    return Row(values["id"], values["label"], values["source"], values["sha256"], attributes)
