"""What was computed from the bytes of large files, remembered: a start does not hash again what was hashed before.

A file counts as unchanged if path, device, inode, size, and both times (of its content, and of the last change of any
kind, which nobody can set) are as they were when it was read. This is not trusted where it can mislead: for files that
changed shortly before they were read, as times are coarse (like git's "racily clean" entries); on network drives and
others, whose times come from elsewhere; and on Windows, which has no time of the last change of any kind.

Each result is a small file of its own in a private folder, so processes need no lock. Whatever is wrong with it, the
files are read as if nothing were remembered.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from secrets import token_hex

from retrieval.files.private import private_folder

_FORMAT = "hashes-1"  # another name for another form
_LARGE = 4 * 2**20  # bytes: smaller files are read in some milliseconds
_SETTLED = 2 * 10**9  # nanoseconds that a file must not have changed before it is read: times of some disks are seconds
_MOST = 1_000  # results kept, of some hundred bytes each
_MOST_BYTES = 2**16  # of one
# Disks of this machine, whose times are its own. A drive in the network, of a host, or of a program is not among them.
_LOCAL = frozenset(
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "tmpfs", "overlay", "apfs", "hfs", "ufs"]
)
_States = list[list[str | int]]
_anew = ContextVar("anew", default=False)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits, remembered if it is large."""
    return remembered([path], "sha256", lambda: hashed(path))


def hashed(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits, from its bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered(files: Sequence[Path | int], what: str, compute: Callable[[], str]) -> str:
    """What `compute` finds in the content of these files, a short text; from before, if they are unchanged.

    `files` are paths, or descriptors of open files. `what` names what is computed, with all that it depends on besides
    the files. Raises what `compute` raises, which is not remembered.
    """
    states = _states(files)
    place = private_folder(_FORMAT) if states and _may_be_trusted(states) else None
    if place is None or states is None:
        return compute()
    entry = place / hashlib.sha256(json.dumps([what, [state[0] for state in states]]).encode()).hexdigest()
    if not _anew.get() and (found := _read(entry, what, states)):
        return found
    started = time.time_ns()
    found = compute()
    if _states(files) == states and all(int(at) < started - _SETTLED for state in states for at in state[-2:]):
        with suppress(OSError):
            _write(entry, what, states, found)
    return found


@contextmanager
def reading_anew() -> Iterator[None]:
    """Compute everything from the bytes of the files during the block, whatever is remembered; for this thread."""
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


def _states(files: Sequence[Path | int]) -> _States | None:
    """Of each file: path without links, device, inode, size, and the times of its content and of its last change."""
    try:
        real = [(os.path.realpath(f"/dev/fd/{each}" if isinstance(each, int) else each), each) for each in files]
        found = [(path, os.fstat(each) if isinstance(each, int) else Path(path).stat()) for path, each in real]
    except (OSError, ValueError):  # `compute` says what is wrong; or it is a file without a name
        return None
    return [[path, of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns] for path, of in found]


def _may_be_trusted(states: _States) -> bool:
    """Whether the files are worth it, and on disks that tell when they change."""
    if not hasattr(os, "getuid") or sum(int(state[3]) for state in states) < _LARGE:
        return False
    try:
        import psutil  # late: most commands read small files

        mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}  # of two, the later counts
    except (ImportError, OSError):
        return False
    for state in states:
        path = Path(str(state[0]))
        above = next((str(place) for place in (path, *path.parents) if str(place) in mounts), "")
        if mounts.get(above) not in _LOCAL:
            return False
    return True


def _read(entry: Path, what: str, states: _States) -> str | None:
    """The result in a file; None if there is none, or it is damaged, of others, or of files as they were once."""
    try:
        descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            of = os.fstat(descriptor)
            if not stat.S_ISREG(of.st_mode) or of.st_uid != os.geteuid() or of.st_mode & 0o022:
                return None
            digest, _, content = file.read(_MOST_BYTES).partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        stated = json.loads(content)
        same = stated["what"] == what and stated["files"] == states
        return str(stated["found"]) if same else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _write(entry: Path, what: str, states: _States, found: str) -> None:
    content = json.dumps({"what": what, "files": states, "found": found}).encode()
    fresh = entry.with_name(f"{token_hex(16)}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        fresh.replace(entry)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    _drop_oldest(entry.parent)


def _drop_oldest(folder: Path) -> None:
    """Keep the newest results, and fewer than may be there, so that this is seldom done."""
    with os.scandir(folder) as entries:
        paths = [Path(each.path) for each in entries]
    if len(paths) <= _MOST:
        return
    ages = []
    for path in paths:
        with suppress(OSError):  # another process has just dropped it
            ages.append((path.lstat().st_mtime_ns, path))
    for _, path in sorted(ages)[: len(paths) - _MOST * 3 // 4]:
        with suppress(OSError):
            path.unlink()
