"""Labels and splits from the names of folders and archives."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from retrieval.errors import SourceError
from retrieval.sources.archives.files import Tree, as_text
from retrieval.sources.archives.listing import is_archive

SPLITS = {  # as in `datasets`
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_PART_OF = {keyword: part for part, keywords in SPLITS.items() for keyword in keywords}
_WRAPPERS = frozenset(("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "pics", "data", "files"))
"""Names of folders that say nothing of the pictures in them."""


def part_of_split(split: str) -> str | None:
    """The part that a split's name stands for: `train`, `validation` or `test`; None for any other name.

    >>> [part_of_split(name) for name in ("training", "Val", "dev", "eval", "extra")]
    ['train', 'validation', 'validation', 'test', None]
    """
    return _PART_OF.get(split.lower())


def split_folders(tree: Tree) -> dict[str, list[str]]:
    """Split -> the folders and archives with its images; empty if these are classes, not splits."""
    above = f"{tree.base}/" if tree.base and not part_of_split(tree.base) else ""
    tops = {}
    for key in (*(file.key for file in tree.found.files), *(f"{key}/" for key in tree.found.empty)):
        top, slash, _ = key.removeprefix(above).partition("/")
        if slash:
            tops[above + top] = _split_of(top)
    found: dict[str, list[str]] = {part: [] for part in dict.fromkeys(_PART_OF.values())}
    for place in sorted(tops):
        found.setdefault(tops[place], []).append(place)
    are_splits = found["train"] and (found["validation"] or found["test"])
    return {part: names for part, names in found.items() if names} if are_splits else {}


def _split_of(top: str) -> str:
    """The split that a folder is, or that an archive belongs to: `train` for `cc3m-train-0001.tar`."""
    if not is_archive(top):
        return part_of_split(top) or top
    stem = top.partition(".")[0]
    parts = filter(None, map(part_of_split, re.split(r"[-._ 0-9]+", stem)))
    return next(parts, None) or re.sub(r"[-_ ]?[0-9]+$", "", stem) or stem


class Labels:
    """Labels from folders: the innermost folder of a file that is a class.

    Splits are no classes, and neither is a folder such as `images` if it is the only one beside none.
    """

    def __init__(self, paths: Iterable[str], level: int | None, wrapper: str | None) -> None:
        self._level = level
        self._wrapper = wrapper
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
            return name_of(parts[-1]) or None if len(parts) == self._level else None
        while folder:
            parent, name = posixpath.split(folder)
            alone = name.lower() in _WRAPPERS and self._beside[parent] == {name}
            if not alone and folder != self._wrapper and not self.is_split(folder):
                return name_of(folder)
            folder = parent
        return None

    def is_split(self, folder: str) -> bool:
        """Whether a folder is a split. One named `train` is a class where its neighbours are `car` and `bus`."""
        parent, name = posixpath.split(folder)
        others = self._beside[parent] - {name}
        if name.lower() == "train" and others:
            return any(part_of_split(other) for other in others)
        return part_of_split(name) is not None


def name_of(folder: str) -> str:
    """The name of a folder as a label, in NFC."""
    return unicodedata.normalize("NFC", as_text(posixpath.basename(folder)))
