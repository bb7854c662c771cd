"""Atomic replacement of folders: a crash at any moment leaves either the old folder or the new one, never a mix.

The new folder is written next to the old one and synced to disk. Then one system call swaps the two names
(`renameat2` with RENAME_EXCHANGE on Linux). Without that call, the swap is two renames. Every reader first calls
`recover`, which repairs a swap that was interrupted between them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retrieval.console import say
from retrieval.errors import ArtifactError
from retrieval.files.locks import alone
from retrieval.files.names import beside
from retrieval.files.storing import flush, flush_all, storing

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def writing(folder: Path, own: Collection[str]) -> Iterator[None]:
    """Lock a folder for writing, and clean up after a process that was killed while writing it.

    `own` are the names of the files that belong to the folder. Raises ArtifactError if another process is writing the
    folder, or if the disk is full, broken or cannot be written there.
    """
    folder = folder.resolve()  # replace the folder that a symbolic link points to, not the link
    with storing(folder, ArtifactError, only=_ours(folder)), _locked(folder):
        _restore(folder)
        for left_over in (beside(folder, "new"), beside(folder, "old")):
            with storing(left_over, ArtifactError):
                _retire(left_over, folder, own)
        yield


@contextmanager
def replacing(folder: Path, own: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder to write into; it replaces `folder` at the end of the block.

    `own` are the names of the files that belong to the folder. Any other file in the old folder is moved to the new
    one, not deleted. Use this inside `writing`. An error in the block leaves the old folder unchanged.
    """
    folder = folder.resolve()
    fresh = beside(folder, "new")
    fresh.mkdir()
    try:
        yield fresh
        flush_all(fresh)
        _swap(fresh, folder)
    except BaseException:
        with suppress(OSError):  # after Ctrl-C, the swap may be done, and the user's own files are in it
            _retire(fresh, folder, own)
        raise
    flush(folder.parent)
    try:
        _retire(fresh, folder, own)
    except OSError as error:
        say(f"note: the old files in {fresh} could not be deleted ({error.strerror}); the next change deletes them")


def recover(folder: Path) -> None:
    """Repair a two-rename swap that was interrupted halfway: give the old folder its name back."""
    folder = folder.resolve()
    if not folder.exists() and beside(folder, "old").exists():
        with storing(folder, ArtifactError), _locked(folder):  # a swap may still be running
            _restore(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    busy = f"another process is writing {folder}; wait until it has finished"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(beside(folder, "lock"), busy, ArtifactError):
        yield


def _ours(folder: Path) -> Callable[[Path], bool]:
    """Whether a path is written when `folder` is replaced: the folder, what is beside it, or a folder above it."""
    start = beside(folder, "").name

    def is_ours(path: Path) -> bool:
        if folder.is_relative_to(path):
            return True
        return path.is_relative_to(folder.parent) and path.relative_to(folder.parent).parts[0].startswith(start)

    return is_ours


def _restore(folder: Path) -> None:
    old = beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def _swap(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`; the previous `folder`, if any, is then called `fresh`."""
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchange(fresh, folder):
        old = beside(folder, "old")
        folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        old.rename(fresh)


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders atomically; returns False if the system does not support it."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # neither macOS nor Windows has it
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _retire(old: Path, folder: Path, own: Collection[str]) -> None:
    """Delete a replaced or unfinished folder, after moving files that are not in `own` to `folder`."""
    if not old.exists():
        return
    for path in old.iterdir():
        if path.name not in own and folder.is_dir() and not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(old)
