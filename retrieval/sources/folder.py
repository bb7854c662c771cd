"""Folders of images, with class folders and metadata files."""

from __future__ import annotations

import hashlib
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
from datasets.data_files import SPLIT_KEYWORDS
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

from retrieval.errors import SourceError
from retrieval.sources import columns
from retrieval.sources import datasets as origins
from retrieval.sources.base import LeftOut, RawImage, Source
from retrieval.sources.matching import Described, is_in, settle
from retrieval.sources.metadata import NAMES, read_table
from retrieval.sources.walk import NOT_METADATA, File, as_text, is_artifact, metadata_files, possible_pictures, walk

_PART_OF = {keyword: str(part) for part, keywords in SPLIT_KEYWORDS.items() for keyword in keywords}
PICTURES = frozenset(ImageFolder.EXTENSIONS)
"""Extensions of pictures, in lower case with their dots."""
_WRAPPERS = frozenset(("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "pics", "data", "files"))
"""Names of folders that say nothing of the pictures in them."""


def part_of_split(split: str) -> str | None:
    """The part that a split's name stands for: `train`, `validation` or `test`; None for any other name.

    >>> [part_of_split(name) for name in ("training", "Val", "dev", "eval", "extra")]
    ['train', 'validation', 'validation', 'test', None]
    """
    return _PART_OF.get(split.lower())


def is_image_folder(folder: Path, config: str | None) -> bool:
    """Whether to read a folder for its images rather than as a dataset.

    A folder with parquet files is a dataset, unless they are image metadata or belong to an artifact inside it. A
    folder for which a configuration is requested is a dataset too: only a dataset card declares configurations.
    """
    if config or not folder.is_dir():
        return False
    found = (path for path in folder.rglob("*.parquet") if path.name.lower() not in NAMES and path.is_file())
    visible = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return not any(path.parent == folder or not is_artifact(path.parent) for path in visible)


def image_folder(folder: Path, label_column: str | None, split: str | None, label_level: int | None = None) -> Source:
    """A folder of images, where class folders give labels *and* metadata columns give attributes.

    The rows of the metadata come first, in their order, then the other files by path: those with the extension of a
    picture before the others, which the decoder judges by content. A label in the metadata goes before the folder's.

    With `label_level`, the folder at this depth is the label, 1 for the first.

    Raises SourceError if the folder has no such split, label column or level, no file that could be an image, or
    metadata that cannot be read.
    """
    root = folder.resolve()
    found = walk(root)
    tables = [read_table(as_text(f.key), Path(f.path).read_bytes()) for f in metadata_files(found.files)]
    places = [at.key.rpartition("/")[0] for at in metadata_files(found.files)]
    types = settle(tables)
    chosen = _chosen(folder, root, split)
    files, left_out = possible_pictures(file for file in found.files if is_in(file.key, chosen))
    left_out = [left for left in found.left_out if is_in(left.name, chosen)] + left_out
    notes = [f"{left.name} is {left.reason}" for left in left_out if left.reason == NOT_METADATA]
    described = Described(root, files)
    for table, place in zip(tables, places, strict=True):
        described.add(table, place, chosen)
    rest = [file for file in files if file.key not in described.taken]
    rest.sort(key=lambda f: (_place(f.key, chosen), f.suffix not in PICTURES, f.key))
    rows_of = [*described.rows, *((file, None, 0) for file in rest)]
    if not rows_of:
        raise SourceError(_empty(folder, left_out))
    features = {column: datasets.Value(str(kind).replace("double", "float64")) for column, kind in types.items()}
    asked = label_column and unicodedata.normalize("NFC", label_column)
    label = columns.label_column(str(folder), features, asked) if features or asked else None
    kept = columns.kept_columns(features, label)
    labels = _Labels((file.unpacked for file, _, _ in rows_of), label_level)

    def rows() -> Iterator[RawImage]:
        for file, table, row in rows_of:
            cells = {column: values[row] for column, values in table.columns.items()} if table else {}
            own = cells.get(label) if label else None
            values = {new: cells.get(column) for new, (column, _) in kept.items()}
            text = labels.of(file.unpacked) if own is None else str(own)
            yield RawImage(as_text(file.source), text, values, path=file.path)

    classes = () if label else tuple(sorted({_name_of(key) for key in found.empty if not labels.is_split(key)}))
    return Source(
        rows,
        pa.schema([(new, types[column]) for new, (column, _) in kept.items()]),
        _fingerprint(root, found.files, split, label, label_level),
        len(rows_of),
        classes,
        origins.about_local(root),
        (*left_out, *described.repeated),
        (*notes, *(note for table in tables for note in table.notes), *described.notes(rest if tables else [])),
    )


def split_folders(root: Path) -> dict[str, list[str]]:
    """Split -> the folders with its images; empty if the folders are classes, not splits."""
    found: dict[str, list[str]] = {part: [] for part in dict.fromkeys(_PART_OF.values())}
    for name in sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        found.setdefault(part_of_split(name) or name, []).append(name)
    are_splits = found["train"] and (found["validation"] or found["test"])
    return {part: names for part, names in found.items() if names} if are_splits else {}


def _chosen(folder: Path, root: Path, split: str | None) -> list[str]:
    """The top folders of the splits asked for; [""] for all of the folder. Raises SourceError for an unknown split."""
    if split is None:
        return [""]
    known = split_folders(root) or {"train": [""]}
    for part in split.split("+"):
        if part not in known:
            raise SourceError(f"{folder} has no split {part!r}; it has {', '.join(known)}.")
    return [name for part in split.split("+") for name in known[part]]


def _empty(folder: Path, left_out: Sequence[LeftOut]) -> str:
    named = "; ".join(f"{left.name}: {left.reason}" for left in left_out[:3])
    return f"{folder} is empty: it contains no file that could be an image." + (f" Left out: {named}." if named else "")


def _fingerprint(root: Path, files: Sequence[File], *choices: str | int | None) -> str:
    """SHA-256 hex digest of the choices and of the paths, sizes and times of the files."""
    listed = [(file.key, file.stamp) for file in files]
    return hashlib.sha256(repr((str(root), choices, listed)).encode("utf-8", "surrogateescape")).hexdigest()


def _place(key: str, chosen: Sequence[str]) -> int:
    return next(number for number, place in enumerate(chosen) if is_in(key, [place]))


# --- Labels ---


class _Labels:
    """Labels from folders: the innermost folder of a file that is a class.

    Splits are no classes, and neither is a folder such as `images` if it is the only one beside none.
    """

    def __init__(self, paths: Iterable[str], level: int | None) -> None:
        self._level = level
        self._beside: dict[str, set[str]] = defaultdict(set)  # folder -> its sub-folders with files
        paths = list(paths)
        deepest = max((path.count("/") for path in paths), default=0)
        if level is not None and not 1 <= level <= deepest:
            raise SourceError(f"there is no label level {level}: the folders are {deepest} deep; count from 1.")
        for folder in {posixpath.dirname(path) for path in paths}:
            while folder:
                parent, name = posixpath.split(folder)
                self._beside[parent].add(name)
                folder = parent

    def of(self, path: str) -> str | None:
        """The label of a file, in NFC; None if no folder on its path is a class."""
        folder = posixpath.dirname(path)
        if self._level is not None:
            parts = folder.split("/")[: self._level]
            return _name_of(parts[-1]) or None if len(parts) == self._level else None
        while folder:
            parent, name = posixpath.split(folder)
            alone = name.lower() in _WRAPPERS and self._beside[parent] == {name}
            if not alone and not self.is_split(folder):
                return _name_of(folder)
            folder = parent
        return None

    def is_split(self, folder: str) -> bool:
        """Whether a folder is a split. One named `train` is a class where its neighbours are `car` and `bus`."""
        parent, name = posixpath.split(folder)
        others = self._beside[parent] - {name}
        if name.lower() == "train" and others:
            return any(part_of_split(other) for other in others)
        return part_of_split(name) is not None


def _name_of(folder: str) -> str:
    return unicodedata.normalize("NFC", as_text(posixpath.basename(folder)))
