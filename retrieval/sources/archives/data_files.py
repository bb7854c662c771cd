"""The parquet and Arrow files of a dataset on this disk, looked at before the first row is read.

`datasets` takes the columns of the first file for those of all, and finds a damaged file only when it gets there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import SourceError, first_line, short
from retrieval.images.door.formats import is_pointer
from retrieval.sources.archives.reasons import reason
from retrieval.sources.columns import holds_map
from retrieval.sources.features import library
from retrieval.words import counted

# Every failure is raised as well; on standard error it would stand there twice.
logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)

_BATCH = 100  # rows read at a time where the first row group has none; by default, it is as many as that has
_READABLE = (".parquet", ".arrow")


def settle_files(name: str, builder: Any) -> None:
    """Give a builder of `datasets` the columns of all its files, and drop files without rows.

    Raises SourceError for a damaged file, for two files with different types in a column, and if there are no rows.
    """
    files = {split: list(files) for split, files in (builder.config.data_files or {}).items()}
    paths = [Path(file) for split in files.values() for file in split]
    if not paths or any("://" in str(path) or path.suffix not in _READABLE for path in paths):
        return
    found = {str(path): _opened(name, path) for path in paths}
    kept = {split: [file for file in files if found[file][1] != 0] for split, files in files.items()}
    if not any(kept.values()):
        what = "it is a parquet file" if len(paths) == 1 else f"it is {counted(len(paths), 'parquet file')}"
        columns = short(", ".join(found[str(paths[0])][0].names), 200) or "none"
        raise SourceError(
            f"{name} has no rows: {what} with nothing but columns ({columns}). Write it again with rows, or name "
            "another source."
        )
    from datasets.data_files import DataFilesList

    for split, left in kept.items():
        before = builder.config.data_files.pop(split)
        if left:
            builder.config.data_files[split] = DataFilesList(left, before.origin_metadata)
    if any(found[file][1] and _starts_empty(file) for split in kept.values() for file in split):
        builder.config.batch_size = _BATCH
    schemas = {Path(file).name: found[file][0] for split in kept.values() for file in split}
    if builder.info.features is None and not any(
        holds_map(kind) for schema in schemas.values() for kind in schema.types
    ):
        builder.info.features = library().Features(_joined(name, schemas))


def _starts_empty(file: str) -> bool:
    return file.endswith(".parquet") and pq.read_metadata(file).row_group(0).num_rows == 0


def _opened(name: str, path: Path) -> tuple[pa.Schema, int | None]:
    """The schema and the number of rows, if the file states it; raises SourceError if it is damaged."""
    try:
        if path.suffix == ".parquet":
            footer = pq.read_metadata(path)
            return footer.schema.to_arrow_schema(), footer.num_rows
        with path.open("rb") as file:
            try:
                return pa.ipc.open_stream(file).schema, None
            except (OSError, pa.ArrowInvalid):
                return pa.ipc.open_file(file).schema, None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise SourceError(f"{name} cannot be read: {reason(error)}.") from error
        with path.open("rb") as file:
            if is_pointer(file.read(64)):
                raise SourceError(
                    f"{name} cannot be read: {path.name} is a pointer of Git LFS, not the file itself: run `git "
                    "lfs pull` in its folder."
                ) from error
        raise SourceError(
            f"{name} cannot be read: {path.name} is no {path.suffix[1:]} file, or it is damaged or cut short "
            f"({first_line(error)}): copy or write it again."
        ) from error


def _joined(name: str, schemas: Mapping[str, pa.Schema]) -> dict[str, Any]:
    """Column -> feature over all files. Numbers of different width become the wider, and a column may be missing."""
    joined: dict[str, Any] = {}
    first: dict[str, str] = {}
    for file, schema in schemas.items():
        for column, feature in library().Features.from_arrow_schema(schema).items():
            both = _wider(joined[column], feature) if column in joined else feature
            if both is None:
                raise SourceError(
                    f"{name} cannot be read: the column {column!r} is {_type(joined[column])} in {first[column]} and "
                    f"{_type(feature)} in {file}. Write it with one type in all files, or build from each on its own."
                )
            joined[column] = both
            first.setdefault(column, file)
    return joined


def _wider(one: Any, other: Any) -> Any:
    """A feature for the values of both, or None."""
    from datasets.features.features import generate_from_arrow_type

    if one == other:
        return one
    types = [library().Features({"x": feature}).arrow_schema.field("x").type for feature in (one, other)]
    if types[0] == types[1]:  # one file lacks the note that this is an image, or its classes
        plain = generate_from_arrow_type(types[0])
        return other if one == plain else one if other == plain else None
    try:
        schemas = [pa.schema([("x", kind)]) for kind in types]
        kind = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowTypeError:
        return None
    return next((f for f, own in zip((one, other), types, strict=True) if own == kind), generate_from_arrow_type(kind))


def _type(feature: Any) -> str:
    return str(library().Features({"x": feature}).arrow_schema.field("x").type)
