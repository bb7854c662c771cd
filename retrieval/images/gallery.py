"""Gallery: the images that can be found, one parquet row each; row i is vector i of the index.

Names, labels and attributes are read into memory when the gallery is opened; thumbnails stay on disk and are read
row group by row group, when they are asked for.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
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
from retrieval.forking import Lock
from retrieval.words import did_you_mean

ID_LENGTH = 16  # hex digits of the content's SHA-256 that make an id: a clash among 10 million has odds of 3 in 10**6
THUMBNAIL_SIDE = 256  # pixels of the longer side, at most
ROWS_A_GROUP = 32  # of a parquet row group: some 200 kB of thumbnails, read in a tenth of a millisecond
_GROUPS_CACHED = 32
MAX_VALUES = 500  # of a column to choose from in a list
_LONGEST_SHOWN = 100  # characters of what was asked for, in a message

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
"""Names that an attribute cannot have: the gallery's own, and `path`, since gradio_client takes an object with a `path`
for a file of the server's, and fails when it cannot fetch it."""

Where = Mapping[str, Any]
"""A filter: column -> the value, or a list of the values, that a row may have. Columns are joined by *and*.

None in the place of a filter, and a filter without columns, let every row through. In the place of a value, None stands
for having none: `{"label": None}` are the rows without a label, `{"label": ["shirt", None]}` these and the shirts. An
empty list names no value that a row may have, and lets no row through.
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
    """The rows of `gallery.parquet`, read-only; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, memory_map=True)
        names = [name for name in self._file.schema_arrow.names if name != "thumbnail"]
        self.table: pa.Table = self._file.read(columns=names)
        group_sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._group_starts = np.cumsum([0, *group_sizes])
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = Lock()  # a ParquetFile is not for several threads at once

    def __len__(self) -> int:
        return cast(int, self.table.num_rows)

    @property
    def attributes(self) -> list[str]:
        """The columns that came with the images, the label not among them."""
        return [name for name in self.table.column_names if name not in RESERVED]

    @cached_property
    def ids(self) -> list[str]:
        """The ids, in row order."""
        return cast(list[str], self.table["id"].to_pylist())

    @cached_property
    def labels(self) -> list[str | None]:
        """The labels, in row order; None where a row has none."""
        return cast("list[str | None]", self.table["label"].to_pylist())

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.ids)}

    def row_of(self, image_id: str) -> int:
        """The row number of an id; raises QueryError where the gallery has no such id."""
        row = self._row_of_id.get(image_id)
        if row is None:
            raise QueryError(f"the gallery has no image with the id {_shown(image_id)!r}; it has {len(self)} others.")
        return row

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[Row]:
        """The rows of those numbers, in that order."""
        return [_row(values) for values in self.table.take(pa.array(rows, pa.int64())).to_pylist()]

    def thumbnail(self, row: int) -> bytes:
        """The JPEG of a row, as it was stored."""
        group = int(np.searchsorted(self._group_starts, row, side="right")) - 1
        with self._lock:
            column = self._groups.pop(group, None)
            if column is None:
                column = self._file.read_row_group(group, columns=["thumbnail"])["thumbnail"]
                while len(self._groups) >= _GROUPS_CACHED:
                    self._groups.popitem(last=False)
            self._groups[group] = column
        return cast(bytes, column[row - int(self._group_starts[group])].as_py())

    def counts(self, column: str) -> dict[str, int]:
        """How many rows have each value of a column, the most common first; rows without one are left out."""
        code_of, codes = self._coded(column)
        values = list(code_of)
        counts = Counter({values[code]: int(n) for code, n in enumerate(np.bincount(codes[codes >= 0])) if n})
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def filters(self) -> list[str]:
        """The columns worth filtering by: several values, no more than MAX_VALUES, and not another one in every row."""
        sizes = {column: len(self._coded(column)[0]) for column in ["label", *self.attributes]}
        return [column for column, size in sizes.items() if 1 < size <= MAX_VALUES and size < len(self)]

    def facets(self, where: Where | None) -> dict[str, dict[str | None, int]]:
        """For each of `filters`, value -> the rows that have it and that the filter on all other columns lets through.

        So what stands beside a value is how many there will be when it is chosen. In the order of the values, None, for
        the rows without one, last; those that no row is left for are left out. Raises QueryError as `rows_where` does.
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
        """The rows that a filter lets through, ascending; None where there is no filter (see `Where`).

        Values are compared as text, so that a filter from a command line or a JSON file means the same: `true` and
        True, `1.0` and 1 in a column of such.
        Raises QueryError for a column or a value that the gallery does not have, and names the nearest.
        """
        if where is not None and not isinstance(where, Mapping):
            raise QueryError(f'a filter is a mapping, {{"label": "shirt"}} for one, not {_shown(repr(where))}.')
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
        """A value, or a list of values, as the column shows them: `true` for True, `1` for 1.0 in a column of such."""
        wanted = wanted.tolist() if isinstance(wanted, np.ndarray) else wanted
        values = wanted if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
        kind = self.table.schema.field(column).type
        return [None if value is None else _as_text(value, kind) for value in values]

    def _coded(self, column: str) -> tuple[dict[str, int], npt.NDArray[np.int32]]:
        """The number of each distinct value of a column, in text, and that of the value in each row (-1: none)."""
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
    """So many rows, or all there are, spread over `count`."""
    return [int(row) for row in np.linspace(0, count - 1, min(wanted, count))]


def write_gallery(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables one after the other as one gallery file; memory holds one of them at a time."""
    # Thumbnails are compressed already; the rest is text that repeats.
    compression = {name: "NONE" if name == "thumbnail" else "ZSTD" for name in schema.names}
    options = {"compression": compression, "use_dictionary": _repeating(schema), "write_statistics": False}
    with pq.ParquetWriter(path, schema, **options) as writer:
        for table in tables:
            writer.write_table(conform(table, schema), row_group_size=ROWS_A_GROUP)


def read_tables(path: Path, rows: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
    """The rows of those numbers (ascending) of a gallery file, some hundreds at a time."""
    start = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
        here = rows[(rows >= start) & (rows < start + len(batch))] - start
        yield pa.Table.from_batches([batch]).take(pa.array(here))
        start += len(batch)


def joined(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """The columns of both; raises SourceError where one has another type in each."""
    types = {item.name: item.type for item in old}
    for item in new:
        if types.setdefault(item.name, item.type) != item.type:
            raise SourceError(
                f"the column {item.name!r} holds {types[item.name]} in the gallery and {item.type} in the source."
            )
    return pa.schema(list(types.items()))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of the schema: absent ones null, the others cast."""
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
    """A value as a column of that type shows it; a value that is not of the type, as it stands."""
    try:
        return str(pa.scalar(value).cast(kind).cast(pa.string()).as_py())
    except (pa.ArrowException, OverflowError, UnicodeError):  # a number or text that Arrow cannot hold at all
        return str(value)


def _place(value: str) -> tuple[float, str]:
    """Where a value stands in a list: numbers by their size, before words by their letters."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    return (math.inf, value) if math.isnan(number) else (number, value)


def parse_where(conditions: Iterable[str]) -> Where:
    """`COLUMN=VALUE` words of a command line as a filter; several of one column are joined by *or*.

    `COLUMN=` stands for having no value there. Raises QueryError for anything else.
    """
    where: dict[str, list[str | None]] = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not equals:
            raise QueryError(f"a filter is COLUMN=VALUE, {condition!r} is not.")
        where.setdefault(column, []).append(value or None)
    return where


def _shown(value: Any) -> str:
    """A value that was asked for, in a message; what is no text in UTF-8 could be sent to nobody."""
    return short(str(value).encode("utf-8", "replace").decode(), _LONGEST_SHOWN)
