"""Folders and files that end with their process, whatever ends it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from retrieval.errors import LookalikeError
from retrieval.files.locks import alone

PICTURES = "lookalike-pictures-"
"""Beginning of the name of a folder with pictures that a page shows."""

_WORK = "lookalike-work-"
_OPEN_FILES = Path("/proc/self/fd")
_LOCK = ".lock"
_YOUNG = 60.0  # seconds that a lock without a folder may be one that is just being made


class HeldFolder:
    """A new folder, in a folder that other processes use too, with a lock that its process holds.

    If the process is killed, who comes next deletes it: at the start, folders of the same prefix whose processes have
    ended are deleted, only real folders of the same user, and without following symbolic links in them. It is deleted
    by `close`, when it is no longer used, and at exit.
    """

    def __init__(self, place: Path, prefix: str) -> None:
        """`place` is created if needed. Raises OSError if nothing can be written there."""
        place.mkdir(parents=True, exist_ok=True)
        place = place.resolve()
        for left in _left_in(place, prefix):
            _delete(left)
        self.path = place / f"{prefix}{token_hex(8)}"
        held = ExitStack()
        held.enter_context(alone(_lock_of(self.path), f"{self.path} is in use", LookalikeError))
        try:
            self.path.mkdir(mode=0o700)
            _try(self.path)
        except BaseException:
            _end(self.path, held, os.getpid())
            raise
        self._end = weakref.finalize(self, _end, self.path, held, os.getpid())

    def close(self) -> None:
        """Delete the folder, with everything in it."""
        self._end()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the system's one for temporary files until the end of the block; raises OSError if there is none."""
    with closing(HeldFolder(Path(tempfile.gettempdir()), _WORK)) as held:
        yield held.path


class HeldFile:
    """A new file in the system's folder for temporary files, deleted when it is no longer used.

    On Linux it has no name there, so that nothing is left of it if the process is killed.
    """

    def __init__(self, name: str) -> None:
        """`name` is its name where it needs one. Raises OSError if nothing can be written there."""
        if _OPEN_FILES.is_dir():
            self._held: Any = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as this object is there
            self.path = _OPEN_FILES / str(self._held.fileno())
        else:
            self._held = HeldFolder(Path(tempfile.gettempdir()), _WORK)
            self.path = self._held.path / name


def _try(folder: Path) -> None:
    """Raise OSError if a byte cannot be written."""
    path = folder / "x"
    path.write_bytes(b"x")
    path.unlink()


def _end(folder: Path, held: ExitStack, process: int) -> None:
    if os.getpid() != process:  # a forked child: the folder is its parent's
        return
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        _lock_of(folder).unlink()
    held.close()


def _left_in(place: Path, prefix: str) -> Iterator[Path]:
    """Folders that may be left over, also those of which only the lock is there; none of other users."""
    with os.scandir(place) as entries:
        for entry in entries:
            if not entry.name.startswith(prefix):
                continue
            with suppress(OSError):  # it has just been deleted
                found = entry.stat(follow_symlinks=False)
                if hasattr(os, "getuid") and found.st_uid != os.getuid():
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)
                elif entry.name.endswith(_LOCK) and time.time() - found.st_mtime > _YOUNG:
                    yield Path(entry.path.removesuffix(_LOCK))


def _delete(folder: Path) -> None:
    """Delete a folder and its lock, unless its process still runs."""
    lock = _lock_of(folder)
    with suppress(LookalikeError, OSError), alone(lock, f"{folder} is in use", LookalikeError):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
        lock.unlink()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK}")
