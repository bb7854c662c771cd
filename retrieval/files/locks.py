"""Locks: one process at a time, also on file systems that have no locks of their own.

The system's lock on a file (`flock`, `LockFileEx`) is used where it exists: it ends with its process. Some network
drives have none. There, a second file beside it, which names its process and exists only while it is held, is the lock.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from retrieval.console import say
from retrieval.errors import LookalikeError

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EPERM}
_QUIET = 1.0  # seconds of waiting before a message says for whom
_LONGEST = 600.0  # seconds to wait for a file that is a lock: its process may have ended on another computer
_noted: set[Path] = set()  # folders without locks, for one note each


@contextmanager
def alone(path: Path, busy: str, error: type[LookalikeError], *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` during the block; its folder must exist.

    If another process or thread holds it, raises `error` with the sentence `busy` and the process that holds it. With
    `wait`, says so after a second and waits: without end for a lock of the system, 10 minutes for a file that is one.
    Another thread may end the block. Raises OSError if the file cannot be created.
    """
    signed: list[int] = []
    lock = _taken(path, busy, error, wait, signed)
    try:
        yield
    finally:
        with suppress(OSError):
            for descriptor in signed:
                os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a drive that went away, and the lock with it
            lock.release()


def check_lockable(cache: Path, error: type[LookalikeError]) -> None:
    """Raise `error` if the files of a cache of other software cannot be locked.

    That software would fail without naming the folder, or wait for ever for a lock file that remains from better times.
    """
    there = next(place for place in (cache, *cache.absolute().parents) if place.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file, FileLock(file.name, fallback_to_soft=False, timeout=0):
            return
    except OSError as failed:
        if failed.errno in _NO_LOCKS:  # not for a folder that is only read: it needs no locks
            why = failed.strerror
            raise error(f"{cache} has no file locks ({why}): set HF_HOME to a folder on a local disk.") from failed


def _taken(path: Path, busy: str, error: type[LookalikeError], wait: bool, signed: list[int]) -> BaseFileLock:
    def sign(descriptor: int) -> None:
        signed.append(descriptor)
        with suppress(OSError):  # a full disk: nobody is told who holds the lock
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"{os.getpid()}\n{socket.gethostname()}\n".encode())

    was_there = os.path.lexists(path)
    native = FileLock(path, thread_local=False, fallback_to_soft=False, on_acquired=sign)
    try:
        return _acquire(native, path, busy, wait)
    except Timeout as timeout:
        raise error(f"{busy}{_holder(path)}.") from timeout
    except OSError as failed:
        if failed.errno not in _NO_LOCKS:
            raise
        why = failed
    if not was_there:
        with suppress(OSError):
            path.unlink()
    return _taken_by_name(path.with_name(f"{path.name}.held"), busy, error, wait, why)


def _taken_by_name(path: Path, busy: str, error: type[LookalikeError], wait: bool, why: OSError) -> BaseFileLock:
    """Be alone by a file that only one process can create."""
    soft = SoftFileLock(path, thread_local=False)
    try:
        _acquire(soft, path, busy, wait, _LONGEST)
    except Timeout as timeout:
        raise error(f"{busy}{_holder(path)}; if that process has ended, delete {path}.") from timeout
    if path.parent not in _noted:
        _noted.add(path.parent)
        say(f"note: {path.parent} has no file locks ({why.strerror}), so {path.name} is the lock")
    return soft


def _acquire(lock: BaseFileLock, path: Path, busy: str, wait: bool, longest: float = -1.0) -> BaseFileLock:
    try:
        lock.acquire(timeout=_QUIET if wait else 0)
    except Timeout:
        if not wait:
            raise
        say(f"{busy}{_holder(path)}: waiting")
        lock.acquire(timeout=longest)
    return lock


def _holder(path: Path) -> str:
    """` (process 4711 on alpha, for 3 min)`, from what the holder wrote into its lock; empty if that is not known."""
    with suppress(OSError, ValueError, IndexError):
        number, host = path.read_text(encoding="utf-8").splitlines()[:2]
        host, here = host.partition("?")[0], socket.gethostname()
        if host != here or _runs(int(number)):  # other software holds the lock without writing its name
            seconds = max(0.0, time.time() - path.stat().st_mtime)
            return f" (process {int(number)} on {host}, for {_duration(seconds)})"
    return ""


def _runs(process: int) -> bool:
    import psutil  # where only the Hub's client is installed, nobody waits

    return bool(psutil.pid_exists(process))


def _duration(seconds: float) -> str:
    unit, length = next((pair for pair in (("h", 3600), ("min", 60)) if seconds >= pair[1]), ("s", 1))
    return f"{seconds / length:.0f} {unit}"
