"""Patterns that name several archives in one folder: `shard-{000..009}.tar`, `train-*.tar`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from retrieval.errors import SourceError

_BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<names>[^{}]*,[^{}]*))\}")
_MOST = 100_000  # names from one pattern


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files in a folder that exists, and is not itself a file or folder."""
    path = Path(name).expanduser()
    return "://" not in name and any(sign in path.name for sign in "*?[{") and not path.exists()


def matching(name: str) -> list[Path]:
    """The files that a pattern names, by name. Raises SourceError if there are none, or if a numbered one is missing.

    Numbers keep the zeros of the first: `{000..009}`. Only the file's name may be a pattern.
    """
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        raise SourceError(
            f"{name} names no file: there is no folder {path.parent}. Only the file name may be a pattern."
        )
    present = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    found: dict[str, None] = {}
    missing: list[str] = []
    for wanted in _expanded(path.name):
        names = [each for each in present if fnmatchcase(each, wanted)] if any(s in wanted for s in "*?[") else [wanted]
        missing += [each for each in names if each not in present]
        found.update(dict.fromkeys(names))
    if missing:
        raise SourceError(
            f"{name} names {len(found)} files; of these, {len(missing)} cannot be found, the first: {missing[0]}."
        )
    if not found:
        raise SourceError(f"{name} matches none of the {len(present)} files in {path.parent}.")
    return [path.parent / each for each in found]


def _expanded(pattern: str) -> Iterator[str]:
    """The names for each number or word in braces.

    >>> list(_expanded("{train,val}-{08..10}.tar"))[:4]
    ['train-08.tar', 'train-09.tar', 'train-10.tar', 'val-08.tar']
    """
    braces = _BRACES.search(pattern)
    if not braces:
        yield pattern
        return
    if braces["names"] is not None:
        words = braces["names"].split(",")
    else:
        first, last = int(braces["first"]), int(braces["last"])
        if last - first >= _MOST:
            raise SourceError(f"{pattern} names {last - first + 1:,} files: at most {_MOST:,} are possible.")
        words = [str(number).zfill(len(braces["first"])) for number in range(first, last + 1)]
    for word in words:
        yield from _expanded(pattern[: braces.start()] + word + pattern[braces.end() :])
