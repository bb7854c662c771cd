"""A system that treats files as Windows does, for this process: what `os` does is checked before it is done.

Only what differs is here. Files that libraries in C and Rust open are not seen, except where they stay open.
"""

import ctypes
import errno
import os
import re
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from retrieval.files import system
from retrieval.images.door.workers import apart

FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
_watched = []  # the switch of the audit hook, which cannot be taken away again


def _failure(kind, number, windows, *paths):
    error = kind(number, os.strerror(number), *map(os.fspath, paths))
    error.winerror = windows
    return error


def _is_open(path):
    """Whether this process has the file, or one below the folder, open or mapped."""
    at = os.path.realpath(path)
    held = []
    for number in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            held.append(str(number.readlink()))
    held += [line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()]
    return any(each == at or each.startswith(f"{at}/") for each in held)


def _check_name(path):
    name = Path(os.fsdecode(path)).name
    if FORBIDDEN.search(name):
        raise _failure(OSError, errno.EINVAL, 123, path)


def _hook(event, arguments):
    if not _watched or not isinstance(arguments[0] if arguments else None, str | bytes):
        return
    if event == "open" and (arguments[2] or 0) & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
        if not str(arguments[0]).startswith(("/dev/", "/proc/")):
            _check_name(arguments[0])
    elif event == "os.mkdir":
        _check_name(arguments[0])


def emulate(patch):
    """Patch `os` with a `pytest.MonkeyPatch`; ends with it (see `release`). Does nothing but on Linux."""
    if sys.platform != "linux":
        return  # on Windows it is the real thing; on macOS, what is open cannot be found out
    import fcntl

    real = {name: getattr(os, name) for name in ("open", "fsync", "rename", "replace", "unlink", "rmdir")}
    cdll = ctypes.CDLL

    def opened(path, flags, *rest, **options):
        if isinstance(path, str | bytes | os.PathLike) and Path(path).is_dir():
            raise _failure(PermissionError, errno.EACCES, 5, path)
        return real["open"](path, flags, *rest, **options)

    def fsync(file):
        number = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real["fsync"](number)

    def moves(name):
        def move(source, target, **options):
            _check_name(target)
            if os.path.lexists(target) and (name == "rename" or Path(target).is_dir()):
                kind = (FileExistsError, errno.EEXIST, 183) if name == "rename" else (PermissionError, errno.EACCES, 5)
                raise _failure(*kind, source, target)
            if _is_open(source) or _is_open(target):
                raise _failure(PermissionError, errno.EACCES, 32, source, target)
            real[name](source, target, **options)

        return move

    def unlink(path, **options):
        if _is_open(path):
            raise _failure(PermissionError, errno.EACCES, 32, path)
        real["unlink"](path, **options)

    def symlink(source, target, *_, **__):
        raise _failure(OSError, errno.EINVAL, 1314, source, target)

    def library(name, *rest, **options):
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        return cdll(name, *rest, **options)

    for name, new in (("open", opened), ("fsync", fsync), ("unlink", unlink), ("remove", unlink), ("symlink", symlink)):
        patch.setattr(os, name, new)
    patch.setattr(os, "rename", moves("rename"))
    patch.setattr(os, "replace", moves("replace"))
    patch.setattr(ctypes, "CDLL", library)
    patch.setattr(system, "MOVES_OPEN_FILES", False)
    patch.setattr(apart, "AVAILABLE", False)
    patch.setattr(shutil, "_use_fd_functions", False)
    for module, name in ((os, "fork"), (os, "memfd_create"), (os, "register_at_fork"), (signal, "SIGKILL")):
        patch.delattr(module, name, raising=False)
    if not _watched:
        sys.addaudithook(_hook)
    _watched.append(True)


def release():
    """End the check of names."""
    _watched.clear()
