"""Parquet files that `datasets` cannot read, in words: without rows, or with different columns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets.table import CastError

from retrieval.errors import SourceError, short
from retrieval.words import counted

_BATCH = 100  # rows read at a time if a file has none; by default, it is as many as the first row group has

# It prints seven lines about an error that is raised as well.
logging.getLogger("datasets.packaged_modules.parquet.parquet").setLevel(logging.CRITICAL)


def check_files(name: str, builder: Any) -> None:
    """Check the local parquet files of a builder of `datasets`, and let it pass over those without rows.

    Raises SourceError if no file has rows, or if the columns of two files differ.
    """
    found = list(_footers(builder))
    if not found:
        return
    first, columns = found[0][0], set(found[0][1].schema.to_arrow_schema().names)
    for path, footer in found:
        others = set(footer.schema.to_arrow_schema().names)
        if others != columns:
            raise SourceError(
                f"{name} has parquet files with different columns: {first.name} has {_listed(columns - others)} and "
                f"{path.name} has {_listed(others - columns)} that the other has not. Write them with the same "
                "columns, or build from one file and `add` the other."
            )
    if not any(footer.num_rows for _, footer in found):
        files = "it is a parquet file" if len(found) == 1 else f"it is {counted(len(found), 'parquet file')}"
        raise SourceError(
            f"{name} has no rows: {files} with nothing but columns ({_listed(columns)}). Write it again with rows, or "
            "name another source."
        )
    groups = [footer.row_group(0).num_rows if footer.num_row_groups else 0 for _, footer in found]
    if not all(groups):
        builder.config.batch_size = _BATCH


def told(name: str, error: SourceError) -> SourceError:
    """An error while reading, in our words if it is about the columns of a file."""
    cause = error.__cause__
    if not isinstance(cause, CastError):
        return error
    return SourceError(
        f"{name} has parquet files with different columns: one has {_listed(cause.table_column_names)}, the first has "
        f"{_listed(cause.requested_column_names)}. They can only be read with the same columns in all files."
    )


def _footers(builder: Any) -> Iterator[tuple[Path, pq.FileMetaData]]:
    for files in (builder.config.data_files or {}).values():
        for file in files:
            path = Path(file)
            if path.suffix == ".parquet" and path.is_file():
                try:
                    yield path, pq.read_metadata(path)
                except (pa.ArrowException, OSError):  # reading it will say why
                    return


def _listed(columns: Any) -> str:
    return short(", ".join(sorted(map(str, columns))), 200) or "none"
