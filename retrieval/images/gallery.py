"""Gallery: the searchable images, one parquet row each; row i is vector i of the index.

Opening a gallery reads names, labels and attributes into memory. Thumbnails stay on disk; their row groups are read on
demand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import QueryError, SourceError, short
from retrieval.forking import Cache, Lock
from retrieval.words import did_you_mean

ID_LENGTH = 16  # hex digits of the content's SHA-256; 10 million images collide with a probability of 3 in 10**6
THUMBNAIL_SIDE = 256  # largest number of pixels on the longer side
ROWS_A_GROUP = 32  # rows of a parquet row group: about 200 kB of thumbnails, read in 0.1 ms
_GROUPS_CACHED = 32
MAX_VALUES = 500  # most distinct values of a column that a list offers as a filter
_LONGEST_SHOWN = 100  # characters of the user's input quoted in a message

BASE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("thumbnail", pa.binary()),
        ("label", pa.string()),
        ("source", pa.string()),
        ("sha256", pa.string()),
    ]
)
RESERVED = frozenset([*BASE_SCHEMA.names, "path"])
"""Names that an attribute cannot have: the gallery's own, and `path`, because gradio_client takes any object with a
`path` for a server file and fails when it cannot fetch it."""

Where = Mapping[str, Any]
"""A filter: column -> the accepted value, or a list of accepted values. Conditions on several columns are combined with
*and*.

None as a filter, and an empty mapping, accept every row. None as a value means a missing value: `{"label": None}`
accepts the rows without a label, `{"label": ["shirt", None]}` those and the shirts. An empty list accepts no row.
"""


@dataclass(frozen=True)
class Row:
    """One image of the gallery, without its thumbnail."""

    id: str
    label: str | None
    source: str
    sha256: str
    attributes: dict[str, Any] = field(default_factory=dict)


class Gallery:
    """The rows of `gallery.parquet`, read-only and thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, memory_map=True)
        names = [name for name in self._file.schema_arrow.names if name != "thumbnail"]
        self.table: pa.Table = self._file.read(columns=names)
        group_sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._group_starts = np.cumsum([0, *group_sizes])
        self._groups = Cache[int, pa.ChunkedArray](_GROUPS_CACHED)
        self._lock = Lock()  # a ParquetFile is not thread-safe

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
            raise QueryError(f"the gallery has no image with the id {_shown(image_id)!r}; it has {len(self)} images.")
        return row

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[Row]:
        """The rows with these numbers, in the given order."""
        return [_row(values) for values in self.table.take(pa.array(rows, pa.int64())).to_pylist()]

    def thumbnail(self, row: int) -> bytes:
        """The JPEG bytes of a row, as stored."""
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        with self._lock:
            column = self._groups.get(group)
            if column is None:
                column = self._file.read_row_group(group, columns=["thumbnail"])["thumbnail"]
                self._groups.put(group, column)
        return cast(bytes, column[row - int(self._group_starts[group])].as_py())

    def counts(self, column: str) -> dict[str, int]:
        """Number of rows for each value of a column, most common first; missing values are not counted."""
        code_of, codes = self._coded(column)
        values = list(code_of)
        counts = Counter({values[code]: int(n) for code, n in enumerate(np.bincount(codes[codes >= 0])) if n})
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def filters(self) -> list[str]:
        """The columns useful as filters: 2 to MAX_VALUES distinct values, but not a different one in every row."""
        sizes = {column: len(self._coded(column)[0]) for column in ["label", *self.attributes]}
        return [column for column, size in sizes.items() if 1 < size <= MAX_VALUES and size < len(self)]

    def facets(self, where: Where | None) -> dict[str, dict[str | None, int]]:
        """For each column in `filters`: value -> number of rows with that value that pass the filter on other columns.

        So the count next to a value is the number of results after choosing it. Values are in display order, with None
        (no value) last; values with a count of 0 are omitted. Raises QueryError like `rows_where`.
        """
        found = {}
        for column in self.filters:
            rows = self.rows_where({name: wanted for name, wanted in (where or {}).items() if name != column})
            code_of, codes = self._coded(column)
            left = codes if rows is None else codes[rows]
            counts = np.bincount(left[left >= 0], minlength=len(code_of))
            of_value: dict[str | None, int] = {v: int(counts[code_of[v]]) for v in sorted(code_of, key=_place)}
            of_value[None] = int((left < 0).sum())
            found[column] = {value: count for value, count in of_value.items() if count}
        return found

    def rows_where(self, where: Where | None) -> npt.NDArray[np.int64] | None:
        """The rows that pass a filter, ascending, int64; None if there is no filter (see `Where`).

        Values are compared as text, so a filter from a command line or a JSON file means the same: `true` matches True
        in a boolean column, `1` matches 1.0 in a float column.
        Raises QueryError for an unknown column or value, and suggests the nearest ones.
        """
        if where is not None and not isinstance(where, Mapping):
            raise QueryError(f'a filter must be a mapping such as {{"label": "shirt"}}, not {_shown(repr(where))}.')
        if not where:
            return None
        mask = np.ones(len(self), bool)
        for column, wanted in where.items():
            code_of, codes = self._coded(column)
            accepted = []
            for text in self.as_texts(column, wanted):
                if text is None:
                    accepted.append(-1)
                    continue
                if text not in code_of:
                    raise QueryError(f"no image has {column}={_shown(text)}; {did_you_mean(text, code_of)}")
                accepted.append(code_of[text])
            mask &= np.isin(codes, accepted)
        return np.flatnonzero(mask)

    def as_texts(self, column: str, wanted: Any) -> list[str | None]:
        """A value, or each value of a list, as the column prints it: `true` for True, `1` for 1.0 in a float column."""
        wanted = wanted.tolist() if isinstance(wanted, np.ndarray) else wanted
        values = wanted if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
        kind = self.table.schema.field(column).type
        return [None if value is None else _as_text(value, kind) for value in values]

    def _coded(self, column: str) -> tuple[dict[str, int], npt.NDArray[np.int32]]:
        """Encode a column: the code of each distinct value (as text), and the code of each row (-1: no value)."""
        if column not in self._codes:
            known = ["label", *self.attributes, "id", "source"]
            if column not in known:
                raise QueryError(f"the gallery has no column {_shown(column)!r}; {did_you_mean(column, known)}")
            coded = self.table[column].combine_chunks().cast(pa.string()).dictionary_encode()
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            self._codes[column] = ({value: code for code, value in enumerate(coded.dictionary.to_pylist())}, codes)
        return self._codes[column]

    @cached_property
    def _codes(self) -> dict[str, tuple[dict[str, int], npt.NDArray[np.int32]]]:
        return {}


def spread_rows(count: int, wanted: int) -> list[int]:
    """Up to `wanted` row numbers, evenly spaced over `count` rows."""
    return [int(row) for row in np.linspace(0, count - 1, min(wanted, count))]


def write_gallery(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables in order into one gallery file; only one of them is in memory at a time."""
    # Thumbnails are already compressed; the rest is repetitive text.
    compression = {name: "NONE" if name == "thumbnail" else "ZSTD" for name in schema.names}
    options = {"compression": compression, "use_dictionary": _repeating(schema), "write_statistics": False}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for table in tables:
            writer.write_table(conform(table, schema), row_group_size=ROWS_A_GROUP)


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
                f"the column {item.name!r} has type {types[item.name]} in the gallery but {item.type} in the source."
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
    return [name for name in schema.names if name not in {"id", "thumbnail", "source", "sha256"}]


def _row(values: dict[str, Any]) -> Row:
    attributes = {name: value for name, value in values.items() if name not in RESERVED}
    return Row(values["id"], values["label"], values["source"], values["sha256"], attributes)


def _as_text(value: Any, kind: pa.DataType) -> str:
    """A value as a column of this type prints it; a value that cannot be cast is printed unchanged."""
    try:
        return str(pa.scalar(value).cast(kind).cast(pa.string()).as_py())
    except (pa.ArrowException, OverflowError, UnicodeError):  # a number or text that Arrow cannot represent
        return str(value)


def _place(value: str) -> tuple[float, str]:
    """Sort key for display: numbers by size, then text in alphabetical order."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    return (math.inf, value) if math.isnan(number) else (number, value)


def parse_where(conditions: Iterable[str]) -> Where:
    """Parse `COLUMN=VALUE` arguments into a filter; several values of one column are combined with *or*.

    `COLUMN=` means a missing value. Raises QueryError for anything else.
    """
    where: dict[str, list[str | None]] = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals:
            raise QueryError(f"a filter must have the form COLUMN=VALUE, not {condition!r}.")
        where.setdefault(column, []).append(value or None)
    return where


def _shown(value: Any) -> str:
    """A requested value for a message, shortened; text that is not valid UTF-8 could not be sent to a client."""
    return short(str(value).encode("utf-8", "replace").decode(), _LONGEST_SHOWN)
