"""Gallery: the searchable images, one parquet row each; row i is vector i of the index.

Opening a gallery reads names, labels and attributes into memory. Thumbnails stay on disk, and are read when needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.errors import IntegrityError, QueryError
from retrieval.images.filters import Where as Where
from retrieval.images.filters import parse, shown, values_of
from retrieval.images.filters import parse_where as parse_where
from retrieval.images.scalars import in_order
from retrieval.images.stored.columns import BASE_SCHEMA as BASE_SCHEMA
from retrieval.images.stored.columns import ORIGINAL as ORIGINAL
from retrieval.images.stored.columns import RESERVED as RESERVED
from retrieval.images.stored.columns import THUMBNAIL, schema_of_file
from retrieval.images.stored.columns import conform as conform
from retrieval.images.stored.columns import joined as joined
from retrieval.images.stored.files import read_tables as read_tables
from retrieval.images.stored.files import write_gallery as write_gallery
from retrieval.images.stored.thumbnails import Thumbnails
from retrieval.images.values import Values
from retrieval.untrusted.columns import check_schema
from retrieval.untrusted.parquet import CheckedParquet
from retrieval.words import did_you_mean

ID_LENGTH = 16  # hex digits of the content's SHA-256; 10 million images collide with a probability of 3 in 10**6
THUMBNAIL_SIDE = 256  # largest number of pixels on the longer side
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

    def __init__(self, files: Path | Sequence[Path]) -> None:
        """`files` are in row order. Raises IntegrityError for one that is not a gallery, or not of the same one."""
        self.files = [files] if isinstance(files, Path) else list(files)
        parts = [CheckedParquet(path) for path in self.files]
        self.schema = schema_of(parts)
        names = [name for name in self.schema.names if name != THUMBNAIL]
        self.table: pa.Table = pa.concat_tables([part.read(names) for part in parts])
        self._thumbnails = [Thumbnails(part) for part in parts]
        self._starts = np.cumsum([0, *(sum(part.group_sizes) for part in parts)])

    def __len__(self) -> int:
        return cast(int, self.table.num_rows)

    @property
    def attributes(self) -> list[str]:
        """The columns that came with the images, except the label."""
        return [name for name in self.table.column_names if name not in RESERVED]

    @cached_property
    def ids(self) -> list[str]:
        """The ids, in row order."""
        return cast(list[str], self.table["id"].to_pylist())

    @cached_property
    def labels(self) -> list[str | None]:
        """The labels, in row order; None for a row without a label."""
        return cast("list[str | None]", self.table["label"].to_pylist())

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def row_of(self, image_id: str) -> int:
        """The row number of an id; raises QueryError if the gallery does not contain it."""
        row = self._row_of_id.get(image_id)
        if row is None:
            raise QueryError(f"the gallery has no image with the id {shown(image_id)!r}; it has {len(self)} images.")
        return row

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[Row]:
        """The rows with these numbers, in the given order."""
        return [_row(values) for values in self.table.take(pa.array(rows, pa.int64())).to_pylist()]

    def thumbnail(self, row: int) -> bytes:
        """The JPEG bytes of a row, as stored; raises IntegrityError if the file has changed since it was opened."""
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._thumbnails[part].get(row - int(self._starts[part]))

    def counts(self, column: str) -> dict[str, int]:
        """Number of rows for each value of a column, most common first; missing values are not counted."""
        values = self.column(column)
        counts = dict(zip(values.texts, values.counts().tolist(), strict=True))
        return dict(sorted(((value, n) for value, n in counts.items() if n), key=lambda item: (-item[1], item[0])))

    @property
    def filters(self) -> list[str]:
        """The columns useful as filters: 2 to MAX_VALUES distinct values, but not a different one in every row."""
        return [column for column in ["label", *self.attributes] if self._is_useful(column)]

    def _is_useful(self, column: str) -> bool:
        values = self.column(column)
        few = 1 < len(values.texts) <= MAX_VALUES and len(values.texts) < len(self)
        return few and values.has_few_members

    def facets(self, where: Where | None) -> dict[str, dict[str | None, int]]:
        """For each column in `filters`: value -> number of rows with that value that pass the filter on other columns.

        So the count next to a value is the number of results after choosing it. Values are in display order, with None
        (no value) last; values with a count of 0 are omitted. In a column of lists, each member is a value. Raises
        QueryError like `rows_where`.
        """
        passed = [(each.column, self.column(each.column).select(each)) for each in parse(where).conditions]
        found = {}
        for column in self.filters:
            rows = np.ones(len(self), bool)
            for other, mask in passed:
                rows &= mask | (other == column)
            values = self.column(column)
            counts = values.counts(rows).tolist()
            of_value: dict[str | None, int] = {text: counts[values.code_of[text]] for text in in_order(values.texts)}
            of_value[None] = int((rows & values.missing).sum())
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
        mask = np.ones(len(self), bool)
        for each in wanted.conditions:
            mask &= self.column(each.column).select(each)
        return np.flatnonzero(mask)

    def as_texts(self, column: str, wanted: Any) -> list[str | None]:
        """A value, or each value of a list, as the column prints it: `true` for True, `1` for 1.0 in a float column."""
        values = self.column(column)
        return [None if value is None else values.as_text(value) for value in values_of(wanted)]

    def groups(self, column: str) -> npt.NDArray[np.int64]:
        """(N,): equal numbers for rows with equal values of a column, -1 without a value; raises QueryError."""
        values = self.column(column)
        if values.is_list:
            raise QueryError(f"{column!r} holds lists, so rows cannot be grouped by it; choose another column.")
        return values.codes.astype(np.int64)

    def column(self, column: str) -> Values:
        """The encoded column; raises QueryError for an unknown one."""
        if column not in self._encoded:
            known = ["label", *self.attributes, "id", "source"]
            if column not in known:
                raise QueryError(f"the gallery has no column {shown(column)!r}; {did_you_mean(column, known)}")
            self._encoded[column] = Values(column, self.table[column])
        return self._encoded[column]

    @cached_property
    def _encoded(self) -> dict[str, Values]:
        return {}


def schema_of(parts: Sequence[CheckedParquet]) -> pa.Schema:
    """The columns of a gallery in these files; raises IntegrityError unless they are those of a gallery, in each."""
    schemas = [schema_of_file(part.schema) for part in parts]
    for part, schema in zip(parts, schemas, strict=True):
        check_schema(part.name, schema, BASE_SCHEMA, {ORIGINAL: pa.string()})
        if schema != schemas[0]:
            raise IntegrityError(f"{part.name} has other columns than {parts[0].name}: build the artifact again.")
    return schemas[0]


def spread_rows(count: int, wanted: int) -> list[int]:
    """Up to `wanted` row numbers, evenly spaced over `count` rows."""
    return [int(row) for row in np.linspace(0, count - 1, min(wanted, count))]


def _row(values: dict[str, Any]) -> Row:
    attributes = {name: value for name, value in values.items() if name not in RESERVED}
    return Row(values["id"], values["label"], values["source"], values["sha256"], attributes)
