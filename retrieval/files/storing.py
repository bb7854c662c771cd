"""Write files so that a full disk, a broken one or a forbidden place is one sentence, and the file before it stays."""

from __future__ import annotations

import csv
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from retrieval.console import say
from retrieval.errors import LookalikeError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_BROKEN = {errno.EIO, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}
_IN_USE = {5, 32, 33}  # error numbers of Windows: access denied, sharing violation, lock violation
_NUMBER = re.compile(r"(?:code|errno|os error)[ :=]*(\d+)", re.IGNORECASE)  # in errors of libraries in Rust and C++
_UNWRITTEN = re.compile(r"\d+ requested and \d+ written|fail\w* writ|writ\w* fail|unexpected pos")  # of NumPy, torch
_DRAFT = re.compile(r"^\.(.+)\.new$")  # a folder that is being written, see `retrieval.artifact.atomic`


@contextmanager
def storing(
    path: Path, error: type[LookalikeError], *, needed: int = 0, only: Callable[[Path], bool] | None = None
) -> Iterator[None]:
    """Turn what a full, broken or forbidden disk raises during the block into `error`, which names the path.

    That holds for OSError and for what libraries raise instead (safetensors, FAISS, torch). `needed` is the number of
    bytes that are written, for the message. If the block does other things, too, `only` says which files it writes: an
    error about another file passes unchanged.
    """
    try:
        yield
    except LookalikeError:
        raise
    except Exception as failed:
        number = error_number(failed)
        if number is None and _UNWRITTEN.search(str(failed)):
            number = _try(path.parent)
        if number is None or (only and not _concerns(failed, number, only)):
            raise
        in_use = getattr(failed, "winerror", None) in _IN_USE
        raise error(unstored(number, path, needed, in_use=in_use)) from failed


def error_number(error: BaseException) -> int | None:
    """The errno of an error of the disk, also from the text of a library's own error; None for any other error."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    known = [*_NO_ROOM, *_FORBIDDEN, *_BROKEN]
    if (found := _NUMBER.search(text)) and int(found[1]) in known:
        return int(found[1])
    return next((number for number in known if os.strerror(number) in text), None)


def unstored(number: int, path: Path, needed: int = 0, *, in_use: bool = False) -> str:
    """The sentence for a file that cannot be written: its path, why, the room there and what helps.

    `in_use`: another program has it open, which Windows does not allow.
    """
    path, why = Path(*(_DRAFT.sub(r"\1", part) for part in path.parts)), os.strerror(number)
    if number in _NO_ROOM:
        helps = "free some space, or choose a folder on another disk"
        return f"{path} cannot be written ({why}; {_room(path, needed)}): {helps}."
    if in_use:
        return f"{path} cannot be written (another program has it open): end that program, such as a running server."
    if number in _FORBIDDEN:
        return f"{path} cannot be written ({why}): make its folder writable, or choose another one."
    if number == errno.ENAMETOOLONG:
        return f"{path} cannot be written ({why}): choose a shorter name."
    helps = "check the disk, or choose" if number in _BROKEN else "choose"
    return f"{path} cannot be written ({why}): {helps} another folder."


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields the path of a new file beside it, which takes its place at the end of the block.

    What is no regular file, such as `/dev/stdout`, or lies in a folder that cannot be changed, is written directly.
    After an error, the old file is unchanged and the new one is gone. Raises OSError.
    """
    path = Path(os.path.realpath(path))  # replace the file that a symbolic link points to, not the link
    fixed = path.exists() and os.access(path, os.W_OK) and not os.access(path.parent, os.W_OK)
    if fixed or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
        yield path
        return
    unfinished = path.with_name(f"{path.stem[:50]}.unfinished")
    try:
        yield unfinished
        flush(unfinished)
        with suppress(FileNotFoundError):
            shutil.copymode(path, unfinished)
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


@contextmanager
def writing_csv(path: Path) -> Iterator[Any]:
    """Write a CSV file as a whole; yields its `csv.writer`. Raises LookalikeError if it cannot be written."""
    with storing(path, LookalikeError), whole(path) as new, new.open("w", newline="", encoding="utf-8") as file:
        yield csv.writer(file)


def flush(path: Path) -> None:
    """Flush a file or a folder to the disk, as far as the system can, so that a power failure does not undo it.

    Windows flushes only handles that can write, and no folders; some network drives flush no folders either.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | getattr(os, "O_BINARY", 0))
    except PermissionError:  # a folder on Windows, or a read-only file, which has not just been written
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """Flush a folder and everything in it to the disk."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_file() or path.is_dir():
            flush(path)


def _try(folder: Path) -> int:
    """The errno of writing a file into a folder, for libraries that do not tell it; EIO if it can be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))
            file.flush()
    except OSError as error:
        return error.errno or errno.EIO
    return errno.EIO


def discard(folder: Path) -> None:
    """Delete a folder that is needed no more; where that fails, a note says so, because the work itself is done."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        say(f"note: {folder} could not be deleted ({error.strerror}); it is needed no more")


def _concerns(error: BaseException, number: int, only: Callable[[Path], bool]) -> bool:
    names = [getattr(error, name, None) for name in ("filename", "filename2")]
    at = [Path(os.fsdecode(name)).absolute() for name in names if isinstance(name, str | bytes)]
    # Without a name, a write failed in the middle of a file, or something that has nothing to do with files.
    return any(map(only, at)) if at else number in _NO_ROOM | {errno.EROFS, errno.EIO}


def _room(path: Path, needed: int) -> str:
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    free = f"{shutil.disk_usage(there).free / 1e6:,.1f} MB free"
    return f"{free}, {max(needed, 100_000) / 1e6:,.1f} MB needed" if needed else free
