"""Writing the files of a gallery, and reading their rows.

A gallery is one file, `gallery.parquet`. A large one is several shards, named as on the Hub:
`gallery-00000-of-00008.parquet`. A row group has 1,024 rows, and in it the thumbnails lie in pages of some dozens, so
that one of them is read without its row group (see `retrieval.images.stored.thumbnails`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.images.stored.columns import THUMBNAIL, conform, from_file, in_files, leaf_of, to_file
from retrieval.images.stored.names import shard_name, unfinished_name
from retrieval.images.stored.tables import regrouped

SHARD_BYTES = 500_000_000  # from which on a shard is full; the Hub's own convention
ROWS_A_GROUP = 1024  # with 32, what a file says of its row groups took a second and a gigabyte at 10 million rows
_PAGE_BYTES = 128 * 1024  # from which on a page is full; it is read in 0.1 ms
_ROWS_AT_ONCE = 16  # after so many rows of a page, its size is looked at


def write_gallery(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> list[Path]:
    """Write tables in order, one at a time, into the file `path`, or into shards beside it; returns the files.

    The same rows give the same bytes, however they are cut into tables.
    """
    shards: list[Path] = []
    groups = regrouped((conform(table, schema) for table in tables), ROWS_A_GROUP)
    pieces = (table.slice(at, ROWS_A_GROUP) for table in groups for at in range(0, len(table), ROWS_A_GROUP))
    piece = next(pieces, schema.empty_table())
    while piece is not None:
        shards.append(path.with_name(unfinished_name(path.name, len(shards))))
        piece = _write_shard(shards[-1], piece, pieces, schema)
    count = len(shards)
    names = [path.name if count == 1 else shard_name(path.stem, number, count) for number in range(count)]
    return [shard.rename(path.with_name(name)) for shard, name in zip(shards, names, strict=True)]


def _write_shard(path: Path, piece: pa.Table, pieces: Iterator[pa.Table], schema: pa.Schema) -> pa.Table | None:
    """Write row groups until the shard is full; returns the first one that has no place in it, None at the end."""
    stored = in_files(schema)
    # Thumbnails are already compressed; the rest is repetitive text.
    leaves = {leaf_of(item): "NONE" if item.name == THUMBNAIL else "ZSTD" for item in stored}
    options = {"compression": leaves, "use_dictionary": _repeating(stored), "write_statistics": False}
    pages = {"data_page_size": _PAGE_BYTES, "write_batch_size": _ROWS_AT_ONCE}
    with path.open("wb") as file, pq.ParquetWriter(file, stored, **options, **pages) as writer:
        following: pa.Table | None = piece
        while following is not None:
            if len(following):
                writer.write_table(to_file(following), row_group_size=ROWS_A_GROUP)
            following = next(pieces, None)
            if file.tell() >= SHARD_BYTES:
                break
    return following


def read_tables(paths: Path | Sequence[Path], rows: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
    """The rows with these numbers (ascending) from the files of a gallery, at most 1,024 per table."""
    start = 0
    for path in [paths] if isinstance(paths, Path) else paths:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=ROWS_A_GROUP):
            first, last = np.searchsorted(rows, [start, start + len(batch)])
            taken = pa.Table.from_batches([batch]).take(pa.array(rows[first:last] - start))
            yield from_file(taken)
            start += len(batch)


def _repeating(schema: pa.Schema) -> list[str]:
    return [leaf_of(item) for item in schema if item.name not in {"id", THUMBNAIL, "source", "sha256"}]
