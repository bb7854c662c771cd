"""Metadata files of a folder of images, read as they were written: only an empty cell is missing.

A CSV file has no types, so its cells stay text here; `retrieval.sources.matching` settles the type of a whole column.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import SourceError, first_line, short
from retrieval.images.door.formats import is_pointer
from retrieval.images.scalars import as_written
from retrieval.words import did_you_mean

NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
_BOMS = [(b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32")]
_BOMS += [(b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")]
_DELIMITERS = (",", ";", "\t")
_NARROW: dict[pa.DataType, type[np.floating[Any]]] = {pa.float16(): np.float16, pa.float32(): np.float32}
_LONGEST_CELL = 2**30  # characters: a picture as base64; the default is 131,072


@dataclass(frozen=True)
class Table:
    """One metadata file: its columns, each a list of cells in row order. A missing cell is None."""

    name: str
    columns: dict[str, list[Any]]
    rows: list[str]
    """What each row is called in messages, such as `line 2`."""
    is_text: bool
    """Whether cells have no types, as in CSV."""
    notes: tuple[str, ...] = ()

    @property
    def file_column(self) -> str:
        """The column with the names of the files; raises SourceError if there is none."""
        if FILE_NAME in self.columns:
            return FILE_NAME
        near = [name for name in self.columns if name.endswith(f"_{FILE_NAME}")]
        if len(near) == 1:  # as `datasets` writes it: image_file_name
            return near[0]
        like = [name for name in self.columns if name.lower() in {"filename", "file", "image", "path", "name"}]
        hint = f"rename {like[0]!r} to {FILE_NAME!r}" if like else did_you_mean(FILE_NAME, self.columns)
        raise SourceError(
            f"{self.name} has no column {FILE_NAME!r}; its columns are {short(', '.join(self.columns), 200) or 'none'}:"
            f" {hint.rstrip('.')}."
        )


def read_table(name: str, data: bytes) -> Table:
    """Read a metadata file; `name` is its path for messages, and its end says the format.

    Names of columns and cells lose blanks around them, and text is brought into NFC. Raises SourceError, with the line,
    if the file is not of its format.
    """
    if is_pointer(data):
        raise SourceError(f"{name} is a pointer of Git LFS, not the table itself: run `git lfs pull` in its folder.")
    if name.endswith(".parquet"):
        return _from_parquet(name, data)
    text, notes = decoded(name, data)
    if not text.strip():
        raise SourceError(f"{name} cannot be read: it is empty. Write a header with {FILE_NAME!r}, or delete the file.")
    return _from_jsonl(name, text, notes) if name.endswith(".jsonl") else _from_csv(name, text, notes)


def decoded(name: str, data: bytes) -> tuple[str, tuple[str, ...]]:
    """The text, and a note if its encoding had to be guessed."""
    encoding = next((encoding for bom, encoding in _BOMS if data.startswith(bom)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:4096]:  # UTF-16 without a mark: every second byte of most text is 0
        zeros = {"utf-16-le": data[1:4096:2].count(0), "utf-16-be": data[0:4096:2].count(0)}
        likely = max(zeros, key=lambda each: zeros[each])
        encoding = likely if zeros[likely] > min(len(data), 4096) / 20 else encoding  # not a stray one
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise SourceError(f"{name} cannot be read as {encoding.upper()}: save it as UTF-8.") from error
    else:
        if "\0" in text:
            raise SourceError(f"{name} cannot be read: it is not text. Save it as UTF-8.")
        return text, ()
    note = f"{name} is not UTF-8: it was read as Windows-1252 (Latin-1). If letters are wrong, save it as UTF-8."
    try:
        return data.decode("cp1252"), (note,)
    except UnicodeDecodeError:  # five bytes have no meaning in Windows-1252
        return data.decode("latin-1"), (note,)


def _from_csv(name: str, text: str, notes: tuple[str, ...]) -> Table:
    names, rows = csv_rows(name, text)
    columns: dict[str, list[Any]] = {column: [] for column in names}
    lines = []
    for line, row in rows:
        for column, cell in zip(names, row, strict=True):
            columns[column].append(cell if column == FILE_NAME else clean(cell))
        lines.append(f"line {line}")
    return Table(name, columns, lines, True, notes)


def csv_rows(name: str, text: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The names of the columns, and each row of a CSV file that is not blank: its line, and its cells unchanged.

    Raises SourceError, also while the rows are read.
    """
    if sep := re.match(r"sep=([,;\t])\r?\n", text):  # Excel's own way to state the delimiter
        text = text[sep.end() :]
    lines = _lines_of(name, text, sep[1] if sep else _delimiter(text))
    header = [clean(cell) or "" for cell in next(lines)[1]]
    while header and not header[-1]:  # a delimiter at the end of each line
        header.pop()
    names = [column or f"column_{number}" for number, column in enumerate(header, 1)]
    _check_names(name, names)
    return names, _fitted(name, lines, len(names))


def _lines_of(name: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
    except csv.Error as error:
        raise SourceError(
            f"{name} cannot be read: line {reader.line_num}: {error}. Put cells that contain a delimiter or a quote in "
            'quotes, and write a quote inside them as "".'
        ) from error


def _lines(text: str) -> Iterator[str]:
    """The lines of a text with their ends, one by one: `io.StringIO` would copy a large text at four bytes a letter."""
    return (found[0] for found in re.finditer(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+", text))


def _fitted(name: str, lines: Iterable[tuple[int, list[str]]], width: int) -> Iterator[tuple[int, list[str]]]:
    for line, row in lines:
        if any(cell.strip() for cell in row[width:]):
            raise SourceError(
                f"{name} cannot be read: line {line} has {len(row)} cells, but the header names {width} columns. "
                "Put cells that contain a delimiter in quotes."
            )
        yield line, row[:width] + [""] * (width - len(row))


def _delimiter(text: str) -> str:
    """The delimiter that finds the column `file_name` in the header; otherwise the one that finds most columns."""
    header = text.lstrip().splitlines()[0]
    found = {each: [cell.strip().strip('"').strip() for cell in header.split(each)] for each in _DELIMITERS}
    return max(_DELIMITERS, key=lambda each: (FILE_NAME in found[each], len(found[each])))


def _check_names(name: str, names: list[str]) -> None:
    twice = next((column for column in names if names.count(column) > 1), None)
    if twice is not None:
        raise SourceError(f"{name} cannot be read: it has two columns named {twice!r}. Rename one of them.")


def _from_jsonl(name: str, text: str, notes: tuple[str, ...]) -> Table:
    columns: dict[str, list[Any]] = {}
    lines: list[str] = []
    for line, row in json_rows(name, text):
        for column, value in row.items():
            cells = columns.setdefault(column, [])
            cells += [None] * (len(lines) - len(cells))
            cells.append(value if column == FILE_NAME else clean(value))
        lines.append(f"line {line}")
    for cells in columns.values():
        cells += [None] * (len(lines) - len(cells))
    return Table(name, columns, lines, False, notes)


def json_rows(name: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row of a JSONL file that is not blank: its line, and its values unchanged; raises SourceError."""
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SourceError(f"{name} cannot be read: line {number} is not JSON: {_told(error)}.") from error
        if not isinstance(row, dict):
            raise SourceError(f"{name} cannot be read: line {number} is not a JSON object in braces, one per line.")
        names = [clean(column) or "column" for column in row]
        _check_names(f"{name}, line {number},", names)
        yield number, dict(zip(names, row.values(), strict=True))


def _told(error: ValueError) -> str:
    """What is wrong in a line of JSON; the message itself counts lines from this one."""
    if not isinstance(error, json.JSONDecodeError):
        return first_line(error)
    return f"{error.msg} at character {min(error.pos, len(error.doc.rstrip())) + 1}"


def _from_parquet(name: str, data: bytes) -> Table:
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{name} cannot be read: it is not a parquet file: {first_line(error)}.") from error
    columns: dict[str, list[Any]] = {}
    notes = []
    names = [clean(column) or "column" for column in table.column_names]
    _check_names(name, names)
    for column, cells in zip(names, table.columns, strict=True):
        if pa.types.is_map(cells.type) or "binary" in str(cells.type):
            notes.append(f"{name}: the column {column!r} is left out, because {cells.type} cannot be an attribute.")
            continue
        values = cells.to_pylist()
        if narrow := _NARROW.get(getattr(cells.type, "value_type", cells.type)):
            values = [_as_written(value, narrow) for value in values]
        columns[column] = values if column == FILE_NAME else [clean(value) for value in values]
    return Table(name, columns, [f"row {number}" for number in range(1, len(table) + 1)], False, tuple(notes))


def _as_written(value: Any, narrow: type[np.floating[Any]]) -> Any:
    """A number, or each number of a list, as it is written in a narrow type."""
    if isinstance(value, list):
        return [_as_written(member, narrow) for member in value]
    return None if value is None else as_written(narrow(value))


def clean(value: Any) -> Any:
    """Text in NFC without blanks around it, and None if nothing is left; NaN, written for a missing number, is None.

    The same for each member of a list.
    """
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value.strip()) or None
    if isinstance(value, list):
        return [clean(member) for member in value]
    return None if isinstance(value, float) and math.isnan(value) else value
