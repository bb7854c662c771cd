"""Atomic replacement of folders: a crash at any moment leaves either the old folder or the new one, never a mix.

The new folder is written next to the old one and synced to disk. Then one system call swaps the two names
(`renameat2` with RENAME_EXCHANGE on Linux). Without that call, the swap is two renames. Every reader first calls
`recover`, which repairs a swap that was interrupted between them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.errors import ArtifactError
from retrieval.files.locks import alone

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def writing(folder: Path, own: Collection[str]) -> Iterator[None]:
    """Lock a folder for writing, and clean up after a process that was killed while writing it.

    `own` are the names of the files that belong to the folder. Raises ArtifactError if another process is writing the
    folder, or if its parent cannot be created or written.
    """
    folder = folder.resolve()  # replace the folder that a symbolic link points to, not the link
    with _locked(folder):
        _restore(folder)
        for left_over in (_beside(folder, "new"), _beside(folder, "old")):
            _retire(left_over, folder, own)
        yield


@contextmanager
def replacing(folder: Path, own: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder to write into; it replaces `folder` at the end of the block.

    `own` are the names of the files that belong to the folder. Any other file in the old folder is moved to the new
    one, not deleted. Use this inside `writing`. An error in the block leaves the old folder unchanged.
    """
    folder = folder.resolve()
    fresh = _beside(folder, "new")
    fresh.mkdir()
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _sync(fresh)
    _swap(fresh, folder)
    _sync_folder(folder.parent)
    _retire(fresh, folder, own)


def recover(folder: Path) -> None:
    """Repair a two-rename swap that was interrupted halfway: give the old folder its name back."""
    folder = folder.resolve()
    if not folder.exists() and _beside(folder, "old").exists():
        with _locked(folder):  # a swap may still be running
            _restore(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{folder.parent} cannot be created: {error.strerror}.") from error
    if not os.access(folder.parent, os.W_OK):
        raise ArtifactError(f"{folder.parent} is not writable; choose another folder.")
    with alone(
        _beside(folder, "lock"), f"another process is writing {folder}; wait until it has finished", ArtifactError
    ):
        yield


def _restore(folder: Path) -> None:
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def _beside(folder: Path, what: str) -> Path:
    return folder.parent / f".{folder.name}.{what}"


def _swap(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`; the previous `folder`, if any, is then called `fresh`."""
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchange(fresh, folder):
        old = _beside(folder, "old")
        folder.rename(old)
        fresh.rename(folder)
        old.rename(fresh)


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders atomically; returns False if the system does not support it."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
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


def _sync(folder: Path) -> None:
    """Flush every file of a folder to disk, so a power failure cannot undo the swap."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
