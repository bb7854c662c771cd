"""Gallery: the searchable images, one parquet row each; row i is vector i of the index.

Opening a gallery reads names, labels and attributes into memory. Thumbnails stay on disk, read a row group at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import QueryError, SourceError
from retrieval.forking import Cache, Lock
from retrieval.images.filters import Where as Where
from retrieval.images.filters import parse, shown, values_of
from retrieval.images.filters import parse_where as parse_where
from retrieval.images.scalars import in_order
from retrieval.images.tables import regrouped
from retrieval.images.values import Values, is_list
from retrieval.untrusted.columns import check_schema
from retrieval.untrusted.parquet import CheckedParquet
from retrieval.words import did_you_mean

ID_LENGTH = 16  # hex digits of the content's SHA-256; 10 million images collide with a probability of 3 in 10**6
THUMBNAIL_SIDE = 256  # largest number of pixels on the longer side
ROWS_A_GROUP = 32  # rows of a parquet row group: about 200 kB of thumbnails, read in 0.1 ms
_GROUPS_CACHED = 32
MAX_VALUES = 500  # most distinct values of a column that a list offers as a filter

_TEXT = pa.string()
BASE_SCHEMA = pa.schema(
    [("id", _TEXT), ("thumbnail", pa.binary()), ("label", _TEXT), ("source", _TEXT), ("sha256", _TEXT)]
)
ORIGINAL = "lookalike:original"  # optional: where the original lies, a path below the source's folder or an address
RESERVED = frozenset([*BASE_SCHEMA.names, "path", ORIGINAL])
"""Names that an attribute cannot have: the gallery's own, and `path`, because gradio_client takes any object with a
`path` for a server file and fails when it cannot fetch it."""


@dataclass(frozen=True)
class Row:
    """One image of the gallery, without its thumbnail."""

    id: str
    label: str | None
    source: str
    sha256: str
    attributes: dict[str, Any] = field(default_factory=dict)


class Gallery:
    """The rows of `gallery.parquet`, read-only and thread-safe. Raises IntegrityError for one that is not a gallery."""

    def __init__(self, path: Path) -> None:
        self._file = CheckedParquet(path)
        check_schema(path.name, self._file.schema, BASE_SCHEMA, {ORIGINAL: pa.string()})
        self.table: pa.Table = self._file.read([name for name in self._file.schema.names if name != "thumbnail"])
        self._group_starts = np.cumsum([0, *self._file.group_sizes])
        self._groups = Cache[int, pa.ChunkedArray](_GROUPS_CACHED)
        self._lock = Lock()  # the file is not thread-safe

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
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        with self._lock:
            column = self._groups.get(group)
            if column is None:
                column = self._file.read_group(group, "thumbnail")
                self._groups.put(group, column)
        return cast(bytes, column[row - int(self._group_starts[group])].as_py())

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


def spread_rows(count: int, wanted: int) -> list[int]:
    """Up to `wanted` row numbers, evenly spaced over `count` rows."""
    return [int(row) for row in np.linspace(0, count - 1, min(wanted, count))]


def write_gallery(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables in order into one gallery file, one at a time; the same rows give the same bytes in any tables."""
    # Thumbnails are already compressed; the rest is repetitive text.
    compression = {name: "NONE" if name == "thumbnail" else "ZSTD" for name in map(_path, schema)}
    options = {"compression": compression, "use_dictionary": _repeating(schema), "write_statistics": False}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for table in regrouped((conform(table, schema) for table in tables), ROWS_A_GROUP):
            writer.write_table(table, row_group_size=ROWS_A_GROUP)


def read_tables(path: Path, rows: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
    """The rows with these numbers (ascending) from a gallery file, at most 1,024 per table."""
    start = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
        here = rows[(rows >= start) & (rows < start + len(batch))] - start
        yield pa.Table.from_batches([batch]).take(pa.array(here))
        start += len(batch)


def joined(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """The union of two schemas; raises SourceError if a column has a different type in each."""
    types = {item.name: item.type for item in old}
    for item in new:
        if types.setdefault(item.name, item.type) != item.type:
            raise SourceError(
                f"the column {item.name!r} has type {types[item.name]} in the gallery but {item.type} in the source; "
                "build the artifact again, or rename the column."
            )
    return pa.schema(list(types.items()))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of the schema: missing ones filled with nulls, the others cast."""
    columns = [
        table[item.name].cast(item.type) if item.name in table.column_names else pa.nulls(len(table), item.type)
        for item in schema
    ]
    return pa.table(columns, schema=schema)


def _repeating(schema: pa.Schema) -> list[str]:
    return [_path(item) for item in schema if item.name not in {"id", "thumbnail", "source", "sha256"}]


def _path(item: pa.Field) -> str:
    """The name that parquet gives the values of a column."""
    return f"{item.name}.list.element" if is_list(item.type) else str(item.name)


def _row(values: dict[str, Any]) -> Row:
    attributes = {name: value for name, value in values.items() if name not in RESERVED}
    return Row(values["id"], values["label"], values["source"], values["sha256"], attributes)
