"""Metadata of a folder as a whole: the type of each column over all tables, and the file of each row.

No type is guessed: a column is a number only if every cell can be written again from the number exactly as it was.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrieval.errors import SourceError, short
from retrieval.sources.archives.files import File, as_text
from retrieval.sources.base import LeftOut
from retrieval.sources.metadata import Table
from retrieval.words import counted

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MOST_EXACT = 2**53  # larger whole numbers are not exact as float64
_LISTED = 10  # names in one message, at most


Row = tuple[File, Table | None, int]
"""A file, the table that describes it, and the row of the table."""


def is_in(key: str, places: Iterable[str]) -> bool:
    """Whether a path lies in one of these folders; "" is the whole source."""
    return any(not place or key.startswith(f"{place}/") for place in places)


class Described:
    """Rows of metadata in order, each with its file."""

    def __init__(self, root: Path, files: Sequence[File]) -> None:
        self._root = root
        self._exact = {file.key: file for file in files}
        # By name in NFC: a Mac writes é as two characters, most other programs as one.
        self._alike: dict[str, File] = {}
        for file in files:
            self._alike.setdefault(unicodedata.normalize("NFC", file.key), file)
            # Metadata beside a zip file may name the files in it.
            self._alike.setdefault(unicodedata.normalize("NFC", file.unpacked), file)
        self.taken: dict[str, str] = {}  # key of a file -> the row that names it
        self.rows: list[Row] = []
        self.repeated: list[LeftOut] = []
        self._missing: list[str] = []

    def add(self, table: Table, place: str, chosen: Sequence[str]) -> None:
        """Take over the rows of a table in the folder `place`, apart from those outside the chosen folders.

        Raises SourceError if a row names a file outside the source.
        """
        for row, name in enumerate(table.columns[table.file_column]):
            called = f"{table.name}, {table.rows[row]}"
            if name is None or not str(name).strip():
                self.repeated.append(LeftOut(called, "it names no file"))
                continue
            file = self._find(str(name), place, called)
            if not is_in(file.key, chosen):
                continue
            if file.key in self.taken:
                self.repeated.append(LeftOut(called, f"{file.key} is named in {self.taken[file.key]} already"))
                continue
            if file.key not in self._exact:
                self._missing.append(file.key)
            self.taken[file.key] = called
            self.rows.append((file, table, row))

    def _find(self, name: str, place: str, called: str) -> File:
        """The file that a row names; one that does not exist if there is none."""
        keys = []
        for written in (name, name.strip(), name.strip().replace("\\", "/")):
            key = posixpath.normpath(posixpath.join(place, written))
            if written.startswith("/") or key == ".." or key.startswith("../"):
                raise SourceError(
                    f"{called} cannot be read: it names a file outside the folder, {short(written, 100)!r}. Write the "
                    "path below the folder of the metadata file, and put a link into the folder if the file lies "
                    "elsewhere."
                )
            keys.append(key)
        same = (self._exact.get(key) or self._alike.get(unicodedata.normalize("NFC", key)) for key in keys)
        return next(filter(None, same), None) or File(keys[-1], f"{self._root}/{keys[-1]}", keys[-1])

    def notes(self, rest: Sequence[File]) -> Iterator[str]:
        """Sentences on rows without a file, and on the files without a row."""
        if self._missing:
            yield f"{counted(len(self._missing), 'row')} of the metadata without a file: {_listed(self._missing)}"
        if rest:
            yield f"{counted(len(rest), 'file')} without a row in the metadata: {_listed([f.key for f in rest])}"


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED:,} more" if len(keys) > _LISTED else ""
    return as_text(", ".join(keys[:_LISTED])) + more


# --- The type of a column ---


def settle(tables: Iterable[Table]) -> dict[str, pa.DataType]:
    """The type of each column over all its cells in all tables, in order of first appearance.

    int64, float64 or bool where every cell fits, lists of these or of text where every cell is a list, otherwise
    string. The cells in the tables become values of that type.
    """
    tables = list(tables)
    types = {}
    for column in dict.fromkeys(column for table in tables for column in table.columns if column != table.file_column):
        mine = [table for table in tables if column in table.columns]
        kinds = {is_text: Kind(is_text) for is_text in (True, False)}
        for table in mine:
            for cell in table.columns[column]:
                kinds[table.is_text].see(cell)
        found = {kind.type for kind in kinds.values() if not kind.is_empty}
        types[column] = found.pop() if len(found) == 1 else pa.string()
        for table in mine:
            table.columns[column][:] = [as_type(types[column], cell) for cell in table.columns[column]]
    return types


class Kind:
    """The narrowest type of the cells seen so far: of text, or of values that have types of their own."""

    def __init__(self, is_text: bool) -> None:
        self._fits: Callable[[Any], set[pa.DataType]] = _of_text if is_text else _of_value
        self._possible = {pa.bool_(), pa.int64(), pa.float64()}
        self._members: Kind | None = None  # of lists
        self._has_others = False

    def see(self, cell: Any) -> None:
        """Take one more cell into account; None is missing, and fits every type."""
        if cell is None:
            return
        if not isinstance(cell, str) and _is_flat_list(cell):
            self._members = self._members or Kind(False)
            for member in cell:
                self._members.see(member)
            return
        self._has_others = True
        if self._possible:
            self._possible = self._possible & self._fits(cell)

    @property
    def is_empty(self) -> bool:
        """Whether no cell has a value."""
        return not self._has_others and self._members is None

    @property
    def type(self) -> pa.DataType:
        """A type that all cells fit; string if there is no other."""
        if self._members is not None:
            return pa.string() if self._has_others else pa.list_(self._members.type)
        possible = self._possible if self._has_others else set()
        return next((kind for kind in (pa.bool_(), pa.int64(), pa.float64()) if kind in possible), pa.string())


def _is_flat_list(cell: Any) -> bool:
    return isinstance(cell, list) and not any(isinstance(member, list | dict) for member in cell)


def _of_text(cell: str) -> set[pa.DataType]:
    """The types from which this text comes back unchanged: 7 from a whole number, 0.5 from a float, 007 from none."""
    if cell in ("True", "False"):
        return {pa.bool_()}
    if _WHOLE.fullmatch(cell):
        return {pa.int64()} if -(2**63) <= int(cell) < 2**63 else set()
    try:
        number = float(cell)
    except ValueError:
        return set()
    return {pa.float64()} if math.isfinite(number) and repr(number) == cell else set()


def _of_value(cell: Any) -> set[pa.DataType]:
    if isinstance(cell, bool):
        return {pa.bool_()}
    if isinstance(cell, int) and -(2**63) <= cell < 2**63:
        return {pa.int64(), pa.float64()} if abs(cell) <= _MOST_EXACT else {pa.int64()}
    return {pa.float64()} if isinstance(cell, float) else set()


def as_type(kind: pa.DataType, cell: Any) -> Any:
    """A cell as a value of the type that its column has."""
    if cell is None:
        return None
    if pa.types.is_list(kind):
        return [as_type(kind.value_type, member) for member in cell]
    if kind == pa.bool_():
        return cell in (True, "True")
    if kind != pa.string():
        return int(cell) if kind == pa.int64() else float(cell)
    text = json.dumps(cell, default=str, ensure_ascii=False) if isinstance(cell, dict | list) else str(cell)
    return unicodedata.normalize("NFC", text)
