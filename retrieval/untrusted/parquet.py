"""Parquet files from strangers: what they declare is compared with their size before anything is read.

A few bytes can stand for gigabytes: a page that unpacks to a thousand times its size, or one long text of a dictionary
that every row repeats. So the pages of each column chunk are added up first (`retrieval.untrusted.pages`). The file is
read with `pread` and not mapped: a mapped file that is cut short while it is served kills the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import IntegrityError, first_line, short
from retrieval.files import system
from retrieval.untrusted.pages import Declared, declared, plain_values

# What may be unpacked: a floor for small files, and beyond it a multiple of the file. Galleries need less than 3 times
# their size, as thumbnails are most of it and are not compressed.
LEAST_UNPACKED = 64 * 2**20
TIMES_FILE = 8
MOST_COLUMNS = 1_000
_LONGEST_TEXT = 16 * 2**20  # bytes of one text in the footer, such as a name
_STEP = 32 * 2**20  # bytes that the rows read at once may need, where rows repeat long texts
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "LZ4", "LZ4_RAW")
_FIXED = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE")


@dataclass(frozen=True)
class PlainPages:
    """Where P pages lie in a file, with values of one column that are neither compressed nor in a dictionary."""

    places: npt.NDArray[np.int64]
    """(P,): the byte at which a page begins, with its header."""
    sizes: npt.NDArray[np.int64]
    """(P,): its bytes, with its header."""
    first: npt.NDArray[np.int64]
    """(P,): the number of its first value."""
    values: int
    """The number of all values."""
    levels: bool
    """Whether the column could have missing values; these have none."""


@dataclass(frozen=True)
class _Leaf:
    """A column of parquet; one of Arrow can have several."""

    column: str
    path: str
    repeats: bool
    levels: bool


class CheckedParquet:
    """A parquet file whose column chunks are checked before they are read; raises IntegrityError for one that lies.

    Not thread-safe, as `pyarrow.parquet.ParquetFile` is not.
    """

    def __init__(self, path: Path) -> None:
        """Read the footer; what `pyarrow` raises for a file that is not parquet is not changed."""
        self.name = path.name
        # Where an open file could not be replaced, an artifact could never be changed while it is open.
        self._source = pa.OSFile(str(path)) if system.MOVES_OPEN_FILES else pa.BufferReader(path.read_bytes())
        self._size = int(self._source.size())
        self.most = LEAST_UNPACKED + TIMES_FILE * self._size
        """The most bytes that the columns may need in memory."""
        # Extension types would run code that another library has registered for their name.
        self._file = pq.ParquetFile(
            self._source, thrift_string_size_limit=_LONGEST_TEXT, arrow_extensions_enabled=False, pre_buffer=False
        )
        self._meta = self._file.metadata
        if len(self.schema.names) > MOST_COLUMNS or self._meta.num_columns > MOST_COLUMNS:
            raise self._wrong(f"{max(len(self.schema.names), self._meta.num_columns):,} columns")
        self._leaves = self._all_leaves()
        self.group_sizes = [self._meta.row_group(group).num_rows for group in range(self._meta.num_row_groups)]
        if min(self.group_sizes, default=0) < 0 or sum(self.group_sizes) != self._meta.num_rows:
            raise self._wrong(f"{self._meta.num_rows:,} rows in all, but groups of {short(str(self.group_sizes), 60)}")

    @property
    def schema(self) -> pa.Schema:
        """The columns with their Arrow types, without the metadata of pandas or other writers."""
        return self._file.schema_arrow.remove_metadata()

    def read(self, columns: Sequence[str], groups: Sequence[int] | None = None) -> pa.Table:
        """These columns, of all rows, or of those of some row groups."""
        wanted = range(len(self.group_sizes)) if groups is None else groups
        groups = [group for group in wanted if self.group_sizes[group]]  # empty ones need not have pages
        chosen = [chunk for group in groups for chunk in self._chunks(group, columns)]
        if sum(found.most for _, _, found in chosen) <= self.most:
            return self._file.read_row_groups(groups, columns=list(columns)).replace_schema_metadata()
        return self._read_in_steps(groups, columns, chosen)

    def read_group(self, group: int, column: str) -> pa.ChunkedArray:
        """One column of one row group, without missing values."""
        needed = sum(found.most for _, _, found in self._chunks(group, [column]))
        if needed > self.most:
            raise self._wrong(f"{needed:,} bytes in the column {column!r} of row group {group}")
        try:
            values = self._file.read_row_group(group, columns=[column])[column]
        except (pa.ArrowException, OSError) as error:
            raise changed(self.name, error) from error
        if len(values) != self.group_sizes[group] or values.null_count:
            raise self._wrong(f"{self.group_sizes[group]:,} rows of which not all have a {column}")
        return values

    def plain_pages(self, group: int, column: str) -> PlainPages | None:
        """Where the pages of one column of a row group lie, of texts or bytes; of a struct, those of its first member.

        None if they have to be read with `read_group`: they are compressed or repeat values from a dictionary.
        """
        number = next(number for number, leaf in enumerate(self._leaves) if leaf.column == column)
        leaf, chunk = self._leaves[number], self._meta.row_group(group).column(number)
        if leaf.repeats or chunk.physical_type != "BYTE_ARRAY" or chunk.compression != "UNCOMPRESSED":
            return None
        found = self._declared(leaf, chunk, group)
        if not (found.is_plain and self.group_sizes[group]):
            return None
        places, sizes, values = np.array(found.pages, np.int64).T
        return PlainPages(places, sizes, np.cumsum(values) - values, found.values, leaf.levels)

    def has_levels(self, column: str) -> bool:
        """Whether a column could have missing values."""
        return next(leaf.levels for leaf in self._leaves if leaf.column == column)

    def plain_page(self, pages: PlainPages, page: int) -> list[bytes]:
        """The values of one of these pages."""
        return read_page(self.name, self._source, pages, page)

    def _read_in_steps(
        self, groups: list[int], columns: Sequence[str], chosen: list[tuple[str, bool, Declared]]
    ) -> pa.Table:
        """The same, so few rows at a time that repeated texts cannot fill the memory before they are counted."""
        if sum(found.plain + found.dictionary for _, _, found in chosen) > self.most:
            raise self._wrong(f"{sum(found.plain + found.dictionary for _, _, found in chosen):,} bytes")
        for column, is_list, found in chosen:
            if found.values * 8 > self.most or (is_list and found.most > self.most):
                raise self._wrong(f"up to {found.most:,} bytes in the column {column!r}")
        longest = max(found.dictionary for _, _, found in chosen) or 1
        step = max(1, _STEP // (longest * len(columns)))
        batches, size = [], 0
        for batch in self._file.iter_batches(batch_size=step, row_groups=groups, columns=list(columns)):
            size += batch.nbytes
            if size > self.most:
                raise self._wrong(f"more than {size:,} bytes")
            batches.append(batch)
        return pa.Table.from_batches(batches).replace_schema_metadata()

    def _chunks(self, group: int, columns: Sequence[str]) -> Iterator[tuple[str, bool, Declared]]:
        """Name, whether it holds lists, and what the pages declare, of the chunks of these columns in a row group."""
        row_group = self._meta.row_group(group)
        for number, leaf in enumerate(self._leaves):
            if leaf.column in columns:
                yield leaf.column, leaf.repeats, self._declared(leaf, row_group.column(number), group)

    def _all_leaves(self) -> list[_Leaf]:
        """The columns that the file really has, in its order: by their place, as any chunk can have any name."""
        schema = self._file.schema
        columns = [item.name for item in self._file.schema_arrow for _ in range(_leaves_in(item.type))]
        leaves = [schema.column(number) for number in range(len(schema))]
        if not len(columns) == len(leaves) == self._meta.num_columns:
            raise self._wrong(f"{self._meta.num_columns:,} columns, but {len(columns):,} in its schema")
        return [
            _Leaf(name, leaf.path, leaf.max_repetition_level > 0, leaf.max_definition_level > 0)
            for name, leaf in zip(columns, leaves, strict=True)
        ]

    def _declared(self, leaf: _Leaf, chunk: Any, group: int) -> Declared:
        what = f"the column {short(repr(leaf.path), 60)} of row group {group}"
        start, size = chunk.data_page_offset, chunk.total_compressed_size
        if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < start:
            start = chunk.dictionary_page_offset
        if not 0 < start <= start + size <= self._size:
            raise self._wrong(f"bytes {start:,} to {start + size:,} for {what}")
        if chunk.compression not in _CODECS:
            raise IntegrityError(f"{self.name}: {what} is compressed with {chunk.compression}: build it again.")
        try:
            found = declared(cast(Any, self._source.read_at), start, size)
        except (pa.ArrowException, OSError) as error:
            raise changed(self.name, error) from error
        except ValueError as error:
            raise changed(self.name, ValueError(f"{what} holds {first_line(error)}")) from error
        rows = self.group_sizes[group]
        if found.values != chunk.num_values or (not leaf.repeats and found.values != rows):
            raise self._wrong(
                f"{chunk.num_values:,} values, in its pages {found.values:,}, for {rows:,} rows, in {what}"
            )
        if max(found.plain, found.dictionary) > self.most:
            raise self._wrong(f"{max(found.plain, found.dictionary):,} bytes in {what}")
        if chunk.physical_type in _FIXED:
            found.dictionary = min(found.dictionary, 16)  # the size of a value, not of all
        return found

    def _wrong(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self.name} has {self._size:,} bytes but declares {what}: it would need more memory than a gallery of "
            "this size, or is damaged; build the artifact again."
        )


def read_page(name: str, source: Any, pages: PlainPages, page: int) -> list[bytes]:
    """The values of a page of the open file `source`; raises IntegrityError if the file has changed."""
    try:
        content = source.read_at(int(pages.sizes[page]), int(pages.places[page]))
        end = pages.first[page + 1] if page + 1 < len(pages.first) else pages.values
        return plain_values(content, int(end - pages.first[page]), levels=pages.levels)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise changed(name, error) from error


def changed(name: str, error: Exception) -> IntegrityError:
    """The error for a file that cannot be read although it was checked when it was opened."""
    return IntegrityError(
        f"{name} cannot be read ({short(first_line(error), 120)}): it was changed or cut short after it was opened, or "
        "is damaged; open the artifact again."
    )


def _leaves_in(kind: pa.DataType) -> int:
    """The number of columns that parquet has for one of this type."""
    if pa.types.is_dictionary(kind) or not pa.types.is_nested(kind):
        return 1
    return sum(_leaves_in(kind.field(number).type) for number in range(kind.num_fields))
