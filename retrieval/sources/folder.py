"""Folders of images, with class folders and metadata files."""

from __future__ import annotations

import hashlib
import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from retrieval.errors import SourceError, first_line, short
from retrieval.sources import columns
from retrieval.sources.archives.files import PICTURES, File, Tree, as_text
from retrieval.sources.archives.listing import MOST_METADATA
from retrieval.sources.archives.pairs import described as pairs_of
from retrieval.sources.archives.tars import in_order
from retrieval.sources.base import LeftOut, RawImage, Source
from retrieval.sources.folders.labels import Labels, name_of, part_of_split, split_folders
from retrieval.sources.folders.walk import NOT_METADATA, metadata_files, possible_pictures
from retrieval.sources.lists.reading import ENDINGS
from retrieval.sources.matching import Described, Row, is_in, settle
from retrieval.sources.metadata import Table, read_table


def image_folder(tree: Tree, label_column: str | None, split: str | None, label_level: int | None = None) -> Source:
    """Files of images, where class folders give labels *and* metadata columns give attributes.

    The rows of the metadata come first, in their order, then the other files by path: those with the extension of a
    picture before the others, which the decoder judges by content. A label in the metadata goes before the folder's.
    Files in compressed tar files come last, in the order in which they are packed.

    With `label_level`, the folder at this depth is the label, 1 for the first.

    Raises SourceError if the source has no such split, label column or level, no file that could be an image, or
    metadata that cannot be read.
    """
    found = tree.found
    tables = _tables(tree)
    pairs, used, wrong, notes = pairs_of(found.files, tree.root) if not tables else (None, set[str](), [], [])
    types = settle([*(table for table, _ in tables), *filter(None, [pairs])])
    chosen = _chosen(tree, split)
    files, left_out = possible_pictures(f for f in found.files if f.key not in used and is_in(f.key, chosen))
    left_out = [left for left in (*found.left_out, *wrong) if is_in(left.name, chosen)] + left_out
    described = Described(tree.root, files)
    for table, place in tables:
        described.add(table, place, chosen)
    if pairs:
        described.add(pairs, "", chosen)
    rest = [file for file in files if file.key not in described.taken]
    rest.sort(key=lambda f: (_place(f.key, chosen), f.suffix not in PICTURES, f.key))
    rows = [*described.rows, *((file, None, 0) for file in rest)]
    rows.sort(key=lambda row: (_place(row[0].key, chosen), row[0].stream) if row[0].stream else (-1, ("", 0)))
    if not rows:
        raise SourceError(_empty(tree.name, left_out))
    kinds = columns.kinds_of(types)
    asked = label_column and unicodedata.normalize("NFC", label_column)
    label = columns.label_column(tree.name, kinds, asked) if kinds or asked else None
    kept = columns.kept_columns(kinds, label)
    labels = Labels((file.unpacked for file, _, _ in rows), label_level, _wrapper(tree))
    classes = () if label else tuple(sorted({name_of(key) for key in found.empty if not labels.is_split(key)}))
    notes = [f"{left.name} is {left.reason}" for left in left_out if left.reason == NOT_METADATA] + found.notes + notes
    return Source(
        partial(_read, rows, label, kept, labels),
        pa.schema([(new, types[column]) for new, (column, _) in kept.items()]),
        _fingerprint(tree, split, label, label_level),
        len(rows),
        classes,
        tree.about,
        (*left_out, *described.repeated),
        (*notes, *(note for table, _ in tables for note in table.notes), *described.notes(rest if tables else [])),
        _listing(tree, split, label, label_level),
        lambda row: ({"row": row - 1} if row else None, 0),
    )


def _read(
    rows: Sequence[Row], label: str | None, kept: columns.Kept, labels: Labels, after: Any = None
) -> Iterator[RawImage]:
    """The images of these rows, or of those after a position."""
    start = after["row"] + 1 if after else 0
    contents = _streamed([file.stream for file, _, _ in rows[start:] if file.stream])
    for number, (file, table, row) in enumerate(rows[start:], start):
        cells = {column: values[row] for column, values in table.columns.items()} if table else {}
        own = cells.get(label) if label else None
        yield RawImage(
            as_text(file.source),
            labels.of(file.unpacked) if own is None else str(own),
            {new: cells.get(column) for new, (column, _) in kept.items()},
            data=next(contents) if file.stream else None,
            path=file.path or None,
            position={"row": number},
            original=None if file.kind else file.key,
        )


def _streamed(places: Sequence[tuple[str, int]]) -> Iterator[bytes]:
    """The contents of members of compressed tar files. A file is read again only to go back in it."""
    runs: list[tuple[str, list[int]]] = []
    for path, number in places:
        if not runs or runs[-1][0] != path or number < runs[-1][1][-1]:
            runs.append((path, []))
        runs[-1][1].append(number)
    for path, numbers in runs:
        yield from in_order(Path(path), numbers)


def _tables(tree: Tree) -> list[tuple[Table, str]]:
    """The metadata, each with the folder that its names are below."""
    inside = metadata_files(tree.found.files)
    tables = [(_table(file), file.key.rpartition("/")[0]) for file in inside]
    if inside or not tree.beside:
        return tables
    known = {unicodedata.normalize("NFC", name) for file in tree.found.files for name in (file.key, file.unpacked)}
    beside = [_table(file) for file in tree.beside]
    for table in beside:
        named = (posixpath.normpath(str(name)) for name in table.columns[table.file_column] if name is not None)
        if any(unicodedata.normalize("NFC", name) in known for name in named):
            tables.append((table, ""))
        else:
            tree.found.notes.append(f"{table.name} beside {tree.name} is not read: it names no file in it")
    return tables


def _table(file: File) -> Table:
    try:
        data = file.read(MOST_METADATA)
    except (OSError, ValueError) as error:
        raise SourceError(f"{as_text(file.key)} cannot be read: {first_line(error)}.") from error
    if len(data) == MOST_METADATA:
        raise SourceError(f"{as_text(file.key)} cannot be read: it is larger than {MOST_METADATA // 2**20} MiB.")
    return read_table(as_text(file.key), data)


def _wrapper(tree: Tree) -> str | None:
    """The folder at the top of an archive, if it only repeats the archive's name: it is no class."""
    return tree.base if tree.base and tree.base == str(tree.about["name"]).partition(".")[0] else None


def _chosen(tree: Tree, split: str | None) -> list[str]:
    """The top folders of the splits asked for; [""] for all of the source. Raises SourceError for an unknown split."""
    if split is None:
        return [""]
    known = split_folders(tree) or {"train": [""]}
    places: list[str] = []
    for part in split.split("+"):
        found = known.get(part) or known.get(part_of_split(part) or "")  # `val`, as the folder may be named
        if not found:
            raise SourceError(f"{tree.name} has no split {part!r}; it has {', '.join(known)}.")
        places += found
    return places


def _empty(name: str, left_out: Sequence[LeftOut]) -> str:
    if lists := [left.name for left in left_out if left.name.lower().endswith(ENDINGS)]:
        return f"{name} contains no image, but a list ({short(', '.join(lists), 200)}): name it as the source."
    named = "; ".join(f"{left.name}: {left.reason}" for left in left_out[:3])
    return f"{name} is empty: it contains no file that could be an image." + (f" Left out: {named}." if named else "")


def _fingerprint(tree: Tree, *choices: str | int | None) -> str:
    """SHA-256 hex digest of the choices and of the paths, sizes and times of the files."""
    listed = [(file.key, file.stamp) for file in (*tree.found.files, *tree.beside)]
    return hashlib.sha256(repr((str(tree.root), choices, listed)).encode("utf-8", "surrogateescape")).hexdigest()


def _listing(tree: Tree, *choices: str | int | None) -> str:
    """SHA-256 hex digest of the choices and of the paths and sizes of the files, which are the same for a copy."""
    listed = [(file.key, file.stamp[0]) for file in (*tree.found.files, *tree.beside)]
    return hashlib.sha256(repr((choices, listed)).encode("utf-8", "surrogateescape")).hexdigest()


def _place(key: str, chosen: Sequence[str]) -> int:
    return next(number for number, place in enumerate(chosen) if is_in(key, [place]))
