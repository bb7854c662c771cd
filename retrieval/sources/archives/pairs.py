"""WebDataset: the files of one key in a tar file are one image with its label, caption and attributes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from retrieval.errors import first_line
from retrieval.sources.archives.files import File, as_text
from retrieval.sources.archives.listing import SIDECARS
from retrieval.sources.base import LeftOut
from retrieval.sources.metadata import FILE_NAME, Table, clean
from retrieval.words import counted

CAPTION = "caption"
CLASS_NAMES = ("classes.txt", "classnames.txt")
_NAMELESS = "json"  # column for JSON that is not an object
_Row = dict[str, Any]


def described(files: Sequence[File], root: Path) -> tuple[Table | None, set[str], list[LeftOut], list[str]]:
    """What `.cls`, `.txt` and `.json` files in tar files say of the images of the same key.

    The key is the path without extension, as in `0001.jpg` and `0001.cls`, or up to the first dot, as WebDataset has
    it: `0001.left.jpg` and `0001.right.jpg` are two images of the key `0001`.

    Numbers in `.cls` become names if `root`, or the top of a tar file, has a `classes.txt` or `classnames.txt` with
    enough lines, one name each.

    Returns a table with one row per described image, or None if there is none; the keys of the files it was read from;
    those that could not be read; and notes.
    """
    rows: dict[str, _Row] = defaultdict(dict)
    used: set[str] = set()
    wrong: list[LeftOut] = []
    images = [file for file in files if file.kind == "tar" and file.suffix not in SIDECARS and not file.is_other]
    keys = {key for file in images for key in _keys(file)}
    for file in files:
        if file.kind != "tar" or file.suffix not in SIDECARS or (key := _keys(file)[0]) not in keys:
            continue
        used.add(file.key)
        if file.data is None:
            wrong.append(LeftOut(as_text(file.key), "too large to describe an image: at most 1 MiB is read"))
            continue
        try:
            rows[key][file.suffix] = _content(file.suffix, file.data)
        except ValueError as error:
            wrong.append(LeftOut(as_text(file.key), f"not JSON: {first_line(error)}"))
    notes = list(_notes(images, rows))
    if names := _class_names(files, root, [row[".cls"] for row in rows.values() if row.get(".cls")], used):
        for row in rows.values():
            row |= {".cls": names[int(row[".cls"])]} if row.get(".cls") else {}
        notes.append(f"labels are names from a list of {len(names):,}: the .cls files hold their numbers, from 0")
    table = _table([(file, _merged(rows, file)) for file in images if any(key in rows for key in _keys(file))])
    return table, used, wrong, notes


def _class_names(files: Sequence[File], root: Path, labels: Sequence[str], used: set[str]) -> list[str] | None:
    """The names that the numbers in `.cls` files stand for, if all are numbers of lines in a file of names."""
    if not labels or not all(label.isdecimal() and label.isascii() for label in labels):
        return None
    inside = [file for file in files if file.name in CLASS_NAMES and file.key.count("/") <= 1]
    beside = [File(name, str(root / name), name) for name in CLASS_NAMES if (root / name).is_file()]
    for file in (*inside, *beside):
        try:
            names = [clean(line) or "" for line in file.read().decode("utf-8-sig").strip().splitlines()]
        except (OSError, ValueError):
            continue
        if max(map(int, labels)) < len(names) and all(names):
            used.add(file.key)
            return names
    return None


def _keys(file: File) -> tuple[str, str]:
    """The path of a file without its extension, and up to the first dot of its name."""
    folder = file.key[: len(file.key) - len(file.name)]
    return file.key.rpartition(".")[0] if "." in file.name else file.key, folder + file.name.partition(".")[0]


def _content(suffix: str, data: bytes) -> Any:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return json.loads(text) if suffix == ".json" else clean(text)


def _merged(rows: dict[str, _Row], file: File) -> _Row:
    """The columns of an image: the label, the caption and the fields of the JSON, none of which hides another."""
    own, shared = _keys(file)
    parts = {**rows.get(shared, {}), **rows.get(own, {})}
    fields = parts.get(".json", {})
    if not isinstance(fields, dict):
        fields = {_NAMELESS: fields}
    row = {_free(clean(name) or "column", {FILE_NAME}): clean(value) for name, value in fields.items()}
    for suffix, column in ((".cls", "label"), (".txt", CAPTION)):
        if (value := parts.get(suffix)) is None:
            continue
        if (other := row.get(column)) is not None and str(other) != value:
            row[f"{column}_json"] = other
        row[column] = value
    return row


def _free(name: str, taken: Iterable[str]) -> str:
    return f"{name}_" if name in taken else name


def _table(rows: Sequence[tuple[File, _Row]]) -> Table | None:
    if not rows:
        return None
    names = dict.fromkeys(name for _, row in rows for name in row)
    columns: dict[str, list[Any]] = {FILE_NAME: [file.key for file, _ in rows]}
    columns |= {name: [row.get(name) for _, row in rows] for name in names}
    return Table("the tar file", columns, [as_text(file.key) for file, _ in rows], False)


def _notes(images: Sequence[File], rows: dict[str, _Row]) -> Iterable[str]:
    counts: dict[str, int] = defaultdict(int)
    for file in images:
        own, shared = _keys(file)
        if shared in rows and own != shared:
            counts[shared] += 1
    if several := [key for key, count in counts.items() if count > 1]:
        yield (
            f"{counted(len(several), 'key')} with several images, such as {as_text(several[0])}: each image is in the "
            "gallery, with the label and attributes of its key"
        )
