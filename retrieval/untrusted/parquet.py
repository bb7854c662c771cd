"""Parquet files from strangers: what they declare is compared with their size before anything is read.

A few bytes can stand for gigabytes: a page that unpacks to a thousand times its size, or one long text of a dictionary
that every row repeats. So the pages of each column chunk are added up first (`retrieval.untrusted.pages`). The file is
read with `pread` and not mapped: a mapped file that is cut short while it is served kills the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import IntegrityError, first_line, short
from retrieval.files import system
from retrieval.untrusted.pages import Declared, declared

# What may be unpacked: a floor for small files, and beyond it a multiple of the file. Galleries need less than 3 times
# their size, as thumbnails are most of it and are not compressed.
LEAST_UNPACKED = 64 * 2**20
TIMES_FILE = 8
MOST_COLUMNS = 1_000
_LONGEST_TEXT = 16 * 2**20  # bytes of one text in the footer, such as a name
_STEP = 32 * 2**20  # bytes that the rows read at once may need, where rows repeat long texts
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "LZ4", "LZ4_RAW")
_FIXED = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE")


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
        self.group_sizes = [self._meta.row_group(group).num_rows for group in range(self._meta.num_row_groups)]
        if min(self.group_sizes, default=0) < 0 or sum(self.group_sizes) != self._meta.num_rows:
            raise self._wrong(f"{self._meta.num_rows:,} rows in all, but groups of {short(str(self.group_sizes), 60)}")

    @property
    def schema(self) -> pa.Schema:
        """The columns with their Arrow types, without the metadata of pandas or other writers."""
        return self._file.schema_arrow.remove_metadata()

    def read(self, columns: Sequence[str]) -> pa.Table:
        """These columns, of all rows."""
        groups = [group for group, rows in enumerate(self.group_sizes) if rows]  # empty ones need not have pages
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
            raise self._changed(error) from error
        if len(values) != self.group_sizes[group] or values.null_count:
            raise self._wrong(f"{self.group_sizes[group]:,} rows of which not all have a {column}")
        return values

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
        for number in range(self._meta.num_columns):
            chunk = row_group.column(number)
            name = chunk.path_in_schema.partition(".")[0]
            if name in columns:
                yield name, "." in chunk.path_in_schema, self._declared(chunk, group)

    def _declared(self, chunk: Any, group: int) -> Declared:
        what = f"the column {short(repr(chunk.path_in_schema), 60)} of row group {group}"
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
            raise self._changed(error) from error
        except ValueError as error:
            raise self._changed(ValueError(f"{what} holds {first_line(error)}")) from error
        rows = self.group_sizes[group]
        if found.values != chunk.num_values or ("." not in chunk.path_in_schema and found.values != rows):
            raise self._wrong(
                f"{chunk.num_values:,} values, in its pages {found.values:,}, for {rows:,} rows, in {what}"
            )
        if max(found.plain, found.dictionary) > self.most:
            raise self._wrong(f"{max(found.plain, found.dictionary):,} bytes in {what}")
        if chunk.physical_type in _FIXED:
            found.dictionary = min(found.dictionary, 16)  # the size of a value, not of all
        return found

    def _changed(self, error: Exception) -> IntegrityError:
        return IntegrityError(
            f"{self.name} cannot be read ({short(first_line(error), 120)}): it was changed or cut short after it was "
            "opened, or is damaged; open the artifact again."
        )

    def _wrong(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self.name} has {self._size:,} bytes but declares {what}: it would need more memory than a gallery of "
            "this size, or is damaged; build the artifact again."
        )
