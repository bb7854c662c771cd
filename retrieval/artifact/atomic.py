"""Folders that are replaced whole: a kill at any moment leaves the old folder or the new one, never a part of one.

The new folder is written beside the old one, synced to disk, and then takes its name in one system call
(`renameat2` with RENAME_EXCHANGE on Linux). Where that call is not to be had, the swap is two renames, and `recover`,
which every reader calls first, ends one that was cut in between.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from retrieval.errors import ArtifactError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def writing(folder: Path, own: Collection[str]) -> Iterator[None]:
    """Keep every other process from writing that folder, and clear up after one that was killed while it did.

    `own` are the names of the files that belong to the folder. Raises ArtifactError where another process is at it.
    """
    folder = folder.resolve()  # a link's folder is replaced, and not the link
    with _locked(folder):
        _restore(folder)
        for left_over in (_beside(folder, "new"), _beside(folder, "old")):
            _retire(left_over, folder, own)
        yield


@contextmanager
def replacing(folder: Path, own: Collection[str]) -> Iterator[Path]:
    """Give an empty folder to write into; at the end of the block it takes the place of `folder`.

    `own` are the names of the files that belong to the folder: whatever else lies in the old one is moved to the
    new one, not thrown away. To be used inside `writing`. An error in the block leaves the old folder as it was.
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
    """End a swap by two renames that was killed between them: give the old folder its name back."""
    folder = folder.resolve()
    if not folder.exists() and _beside(folder, "old").exists():
        with _locked(folder):  # not while the swap is still going on
            _restore(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{folder.parent} cannot be made: {error.strerror}.") from error
    if not os.access(folder.parent, os.W_OK):
        raise ArtifactError(f"{folder.parent} cannot be written to; choose another place.")
    lock = FileLock(_beside(folder, "lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ArtifactError(f"another process is writing {folder}; wait until it has ended.") from error
    try:
        yield
    finally:
        lock.release()


def _restore(folder: Path) -> None:
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)


def _beside(folder: Path, what: str) -> Path:
    return folder.parent / f".{folder.name}.{what}"


def _swap(fresh: Path, folder: Path) -> None:
    """`fresh` takes the name `folder`; what had it before, if anything, is then called `fresh`."""
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchange(fresh, folder):
        old = _beside(folder, "old")
        folder.rename(old)
        fresh.rename(folder)
        old.rename(fresh)


def _exchange(one: Path, other: Path) -> bool:
    """Two folders take each other's names in one step; False where the system cannot do it."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _retire(old: Path, folder: Path, own: Collection[str]) -> None:
    """Remove a folder that has been replaced, or was never finished; what is not ours in it moves to `folder`."""
    if not old.exists():
        return
    for path in old.iterdir():
        if path.name not in own and folder.is_dir() and not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(old)


def _sync(folder: Path) -> None:
    """Have the system write every file of a folder to the disk, so that a power cut cannot undo the swap."""
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
