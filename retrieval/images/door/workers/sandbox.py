"""How a worker gives up its rights, once and for ever. Linux only; what a kernel does not have is left out."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path

from retrieval.images.door.workers.system_calls import forbid_calls

_libc = ctypes.CDLL(None, use_errno=True)
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38  # of prctl
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # system calls, the same number on all architectures but Alpha
_DESCRIPTORS = 8  # the streams, the socket, a picture and its pixels, and two to spare


def die_with(server: int) -> None:
    """End this process as soon as the thread that started it ends; at once, if the server already has."""
    _libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != server:
        os._exit(0)


def lock_in(memory: int, file_size: int) -> None:
    """Give up the right to open files, to connect, to start processes, and to take `memory` bytes more than now.

    `file_size` is the largest file that may be written, in bytes. Call this when everything is imported.
    """
    _die_first()
    memory += _address_space()  # while it can be read
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    landlock()
    _drop_capabilities()
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
    ):
        _limit(kind, limit)
    if not forbid_calls():
        _limit(resource.RLIMIT_NPROC, 0)  # forbids threads, too, without which HEIC cannot be decoded


def _limit(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def _die_first() -> None:
    """If memory runs out, the kernel ends this process and not the server."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def _address_space() -> int:
    """The bytes of address space that this process has; 0 without /proc."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def landlock() -> int:
    """Forbid every use of the file system and of TCP, signals to others and abstract sockets, as far as the kernel can.

    Returns the version of Landlock that was used; 0 if the kernel has none.
    """
    version = max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))
    if not version:
        return 0
    files = 13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16  # rights, one bit each
    rights = [(1 << files) - 1]
    rights += [0b11] * (version >= 4)  # bind and connect
    rights += [0b11] * (version >= 6)  # abstract sockets and signals
    handled = (ctypes.c_uint64 * len(rights))(*rights)
    ruleset = _libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(ctypes.sizeof(handled)), 0)
    if ruleset < 0:
        return 0
    failed = _libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return 0 if failed else version


def _drop_capabilities() -> None:
    """Give up what root may do, such as raising its own limits."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    _libc.capset(header, (ctypes.c_uint32 * 6)())


def give_memory_back() -> None:
    """Give freed memory back to the system, where the C library can."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(ctypes.c_size_t(0))
