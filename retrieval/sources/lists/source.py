"""A list of pictures as a source: one row per picture, with a path, an address or base64, and attributes."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import SourceError, short
from retrieval.sources import columns
from retrieval.sources import datasets as origins
from retrieval.sources.archives.files import as_text
from retrieval.sources.base import LeftOut, RawImage, Source
from retrieval.sources.lists import names
from retrieval.sources.lists.cells import Place
from retrieval.sources.lists.fetch import Fetcher
from retrieval.sources.lists.reading import ENDINGS, LINE, Listed, read_list, values_of
from retrieval.words import counted

SPLIT = "split"  # the column that says to which split a row belongs
_LISTED = 10  # rows in one note, at most
_BATCH = 1_000  # rows that are Python objects at a time


def is_list(path: Path) -> bool:
    """Whether to read a path as a list of pictures: a file, by its extension."""
    return path.suffix.lower() in ENDINGS and path.is_file()


def list_splits(path: Path) -> tuple[str, ...]:
    """The values of a column `split`, in order of appearance; otherwise `train`. Raises SourceError."""
    return tuple(values_of(path, SPLIT)) or ("train",)


def image_list(
    path: Path,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    *,
    allow_private: bool = False,
) -> Source:
    """The pictures of a list; the columns are those of `open_source`.

    Paths are relative to the folder of the list. Rows without a picture, and those that repeat one, are left out.
    Raises SourceError if the list cannot be read, or none of its files exists.
    """
    name = as_text(path.name)
    listed = read_list(path, image_column)
    table, image = listed.table, listed.image
    place = Place(str(path.resolve().parent), Fetcher(allow_private), True, names.is_base64(image))
    kinds = columns.kinds_of({field.name: field.type for field in table.schema if field.name not in (LINE, image)})
    label = columns.label_column(name, kinds, label_column and unicodedata.normalize("NFC", label_column))
    kept = columns.kept_columns(kinds, label)
    table = table.take(pa.array(_chosen(name, table, split)))
    order, left_out, missing, stamp = _looked_up(name, table, image, place)
    if len(missing) == len(order) > 0:
        raise SourceError(_none_exists(path, table, image, missing))

    def rows(after: int | None = None) -> Iterator[RawImage]:
        for first in range(0 if after is None else after + 1, len(order), _BATCH):
            batch = table.take(pa.array(order[first : first + _BATCH]))
            for number, row in enumerate(batch.to_pylist(), first):
                line = f"line {row[LINE]}"
                own = row.get(label) if label else None
                values = {new: row.get(column) for new, (column, _) in kept.items()}
                raw = RawImage(line, None if own is None else str(own), values, position=number, row=line)
                yield place.resolve(row[image], raw)

    schema = pa.schema([(new, kind.type) for new, (_, kind) in kept.items()])
    notes = (*listed.notes, *_notes(name, listed, missing, table))
    fingerprint = _hash(path, str(path.resolve()), image, label, split, stamp)
    known: dict[str, Any] = {"listing": _hash(path, image, label, split), "seek": _before}
    return Source(rows, schema, fingerprint, len(order), (), origins.about_local(path), tuple(left_out), notes, **known)


def _before(row: int) -> tuple[int | None, int]:
    return (row - 1 if row else None), 0


def _hash(path: Path, *choices: str | bytes | None) -> str:
    """SHA-256 hex digest of the list and the choices, such as its path, and the sizes and times of the files."""
    digest = hashlib.sha256(repr(choices).encode("utf-8", "surrogateescape"))
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def _splits(table: pa.Table) -> list[str]:
    if SPLIT not in table.column_names:
        return []
    return [text for text in pc.unique(table[SPLIT].cast(pa.string())).to_pylist() if text is not None]


def _chosen(name: str, table: pa.Table, split: str | None) -> Sequence[int]:
    """The rows of the splits asked for, in order of the splits; all rows by default. Raises SourceError."""
    if split is None:
        return range(len(table))
    known = _splits(table)
    if not known and split == "train":
        return range(len(table))
    found: list[int] = []
    for part in split.split("+"):
        if part not in known:
            has = f"it has {', '.join(known)}" if known else "it has no column 'split'"
            raise SourceError(f"{name} has no split {part!r}; {has}.")
        found += np.flatnonzero(pc.equal(table[SPLIT].cast(pa.string()), part).fill_null(False)).tolist()
    return found


def _looked_up(
    name: str, table: pa.Table, image: str, place: Place
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[LeftOut], list[int], bytes]:
    """The rows to read, what is left out, the rows without their file, and a hash of sizes and times of the files."""
    first: dict[bytes, int] = {}  # hash of a path or address -> row; a hash, because a list may be long
    order, left_out, missing = list[int](), list[LeftOut](), list[int]()
    digest = hashlib.sha256()
    lines = table[LINE]
    cells = (cell for chunk in table[image].iterchunks() for cell in chunk.to_pylist())
    for row, cell in enumerate(cells):
        called = f"{name}, line {lines[row]}"
        if cell is None or not cell.strip():
            left_out.append(LeftOut(called, "it names no picture"))
            continue
        raw = place.resolve(cell, RawImage(""))
        if raw.path is not None:
            key = hashlib.blake2b(
                os.path.normpath(raw.path).encode("utf-8", "surrogateescape"), digest_size=16
            ).digest()
            if (before := first.setdefault(key, row)) != row:
                left_out.append(LeftOut(called, f"{raw.source} is named in line {lines[before]} already"))
                continue
            if raw.fetch is None:
                try:
                    stat = Path(raw.path).stat()
                    digest.update(repr((stat.st_size, stat.st_mtime_ns)).encode())
                except (OSError, ValueError):  # ValueError: a null byte
                    missing.append(row)
        order.append(row)
    return np.array(order, np.int64), left_out, missing, digest.digest()


def _notes(name: str, listed: Listed, missing: Sequence[int], table: pa.Table) -> Iterator[str]:
    yield f"{name}: the pictures are those of the column {listed.image!r}"
    if missing:
        more = f" and {len(missing) - _LISTED:,} more" if len(missing) > _LISTED else ""
        places = ", ".join(
            f"{short(table[listed.image][row].as_py(), 100)} (line {table[LINE][row]})" for row in missing[:_LISTED]
        )
        yield f"{counted(len(missing), 'row')} of {name} without a file: {as_text(places)}{more}"


def _none_exists(path: Path, table: pa.Table, image: str, missing: Sequence[int]) -> str:
    first = short(table[image][missing[0]].as_py(), 200)
    return as_text(
        f"none of the {len(missing):,} files that {path.name} names in {image!r} exists. The first is {first!r}; it "
        f"was looked for in {path.resolve().parent}: move the list to the folder that its paths start from, or choose "
        "another column with --image-column."
    )
