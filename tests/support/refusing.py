"""Make system calls fail, for this process and all its children, as a network drive or a full disk would.

A filter of the kernel (seccomp) answers the calls, so it holds for libraries in C and Rust, too. It cannot be undone:
call this in a process that was started for it. Linux on x86-64 only.
"""

import ctypes
import errno
import platform
import struct
import sys

import pytest

NUMBERS = {
    "write": 1,
    "writev": 20,
    "pwrite64": 18,
    "pwritev": 296,
    "sendfile": 40,
    "copy_file_range": 326,
    "open": 2,
    "openat": 257,
    "mkdir": 83,
    "mkdirat": 258,
    "ftruncate": 77,
    "fallocate": 285,
    "rename": 82,
    "renameat": 264,
    "renameat2": 316,
    "unlink": 87,
    "unlinkat": 263,
    "rmdir": 84,
    "link": 86,
    "linkat": 265,
    "symlink": 88,
    "symlinkat": 266,
    "flock": 73,
    "fsync": 74,
    "fdatasync": 75,
}
WRITING = 0o1 | 0o2 | 0o100  # flags of open: for writing, for both, or to create the file
_LOAD, _EQUAL, _MORE, _ANY, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_CALL, _FIRST, _SECOND, _THIRD = 0, 16, 24, 32  # where the filter finds the number and the arguments
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

only_here = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="system calls can be refused on Linux x86-64 only"
)


def refuse(error, *calls):
    """Let these calls fail with the error of this name.

    Of `open` and `openat` only those that write or create fail; calls on the standard streams never do.
    """
    number, program = getattr(errno, error), []
    for call in calls:
        block = [(_LOAD, 0, 0, _CALL)]
        checks = []
        if call in ("open", "openat"):
            checks = [(_LOAD, 0, 0, _SECOND if call == "open" else _THIRD), (_ANY, 0, 1, WRITING)]
        elif call in ("write", "writev", "pwrite64", "pwritev", "ftruncate", "fallocate"):
            checks = [(_LOAD, 0, 0, _FIRST), (_MORE, 0, 1, 2)]
        block.append((_EQUAL, 0, len(checks) + 1, NUMBERS[call]))
        program += [*block, *checks, (_RETURN, 0, 0, _ERRNO | number)]
    program.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    held = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    system = ctypes.CDLL(None, use_errno=True)
    assert system.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
    assert system.prctl(22, 2, held) == 0, "seccomp"
