"""Reading a list: a CSV, TSV or JSONL file with one row per picture, as an Arrow table with typed columns.

The file is gone through twice: once for the type of each column, once for the values. So its rows are never all Python
objects at once.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrieval.errors import SourceError, short
from retrieval.images.door.formats import is_pointer
from retrieval.sources.archives.files import as_text
from retrieval.sources.lists import names
from retrieval.sources.matching import Kind, as_type
from retrieval.sources.metadata import clean, csv_rows, decoded, json_rows
from retrieval.words import did_you_mean, is_address

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
LINE = "lookalike:line"  # prefixed, because a list may have its own `line` column
_CHUNK = 10_000  # rows that are Python objects at a time


@dataclass(frozen=True)
class Listed:
    """A list as it was read."""

    table: pa.Table
    """All columns: `image` as text, unchanged, the others with their types, and the line of each row as LINE."""
    image: str
    """The column that names the pictures."""
    notes: tuple[str, ...]


def read_list(path: Path, image_column: str | None) -> Listed:
    """Read a list; raises SourceError if it has no rows, no such column, or is not of its format."""
    name = as_text(path.name)
    text, notes = _text_of(path)
    is_text = path.suffix.lower() in (".csv", ".tsv")
    kinds = {column: Kind(True) for column in csv_rows(name, text)[0]} if is_text else {}
    count = 0
    for _, row in _rows(name, text, is_text):
        count += 1
        for column, cell in row.items():
            if (kind := kinds.get(column)) is None:
                kind = kinds[column] = Kind(is_text)
            kind.see(clean(cell))
    image = _image_column(name, list(kinds), image_column)
    if not count:
        raise SourceError(
            f"{name} has a header ({short(', '.join(kinds), 200)}), but no rows: write one row per picture below it."
        )
    types = {column: pa.string() if column == image else kind.type for column, kind in kinds.items()}
    return Listed(_table(_rows(name, text, is_text), types, image), image, notes)


def values_of(path: Path, column: str) -> list[str]:
    """The values of a column as text, in order of appearance; none if there is no such column. Raises SourceError."""
    rows = _rows(as_text(path.name), _text_of(path)[0], path.suffix.lower() in (".csv", ".tsv"))
    return list(dict.fromkeys(str(value) for _, row in rows if (value := clean(row.get(column))) is not None))


def _text_of(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a list, and notes on how it was read. Raises SourceError."""
    name, data = as_text(path.name), path.read_bytes()
    if is_pointer(data):
        raise SourceError(f"{name} is a pointer of Git LFS, not the list itself: run `git lfs pull` in its folder.")
    text, notes = decoded(name, data)
    if not text.strip():
        raise SourceError(f"{name} is empty: write a header, such as path,label, and one row per picture.")
    return text, notes


def _rows(name: str, text: str, is_text: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    if not is_text:
        return json_rows(name, text)
    columns, rows = csv_rows(name, text)
    return ((line, dict(zip(columns, row, strict=True))) for line, row in rows)


def _image_column(name: str, columns: list[str], asked: str | None) -> str:
    """The column that names the pictures. Raises SourceError."""
    listed = short(", ".join(columns), 200)
    if asked is not None:
        if (composed := unicodedata.normalize("NFC", asked)) in columns:
            return composed
        hint = did_you_mean(asked, columns)
        raise SourceError(f"{name} has no image column {asked!r}; its columns are {listed}: {hint}")
    found = names.find(columns)
    if found is not None:
        return found
    if any(_is_like_a_picture(column) for column in columns):
        raise SourceError(
            f"{name} has no header: its first line is {listed!r}. Write one above it, such as path,label."
        )
    raise SourceError(
        f"{name} has no column that is named for pictures, such as path, image or url; its columns are {listed} "
        "(choose one with --image-column)."
    )


def _is_like_a_picture(text: str) -> bool:
    return is_address(text) or text.lower().endswith(
        (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".hif")
    )


def _table(rows: Iterable[tuple[int, dict[str, Any]]], types: dict[str, pa.DataType], image: str) -> pa.Table:
    schema = pa.schema([(LINE, pa.int64()), *types.items()])
    chunks: list[pa.RecordBatch] = []
    cells: dict[str, list[Any]] = {column: [] for column in schema.names}

    def end_chunk() -> None:
        if cells[LINE]:
            chunks.append(pa.RecordBatch.from_pydict(cells, schema=schema))
        for column in cells.values():
            column.clear()

    for line, row in rows:
        cells[LINE].append(line)
        for column, kind in types.items():
            cell = row.get(column)
            cells[column].append(_as_cell(cell) if column == image else as_type(kind, clean(cell)))
        if len(cells[LINE]) == _CHUNK:
            end_chunk()
    end_chunk()
    return pa.Table.from_batches(chunks, schema)


def _as_cell(cell: Any) -> str | None:
    if isinstance(cell, dict):  # as `datasets` writes an image
        cell = next((cell[key] for key in ("bytes", "path", "url") if isinstance(cell.get(key), str)), cell)
    return cell if cell is None or isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
