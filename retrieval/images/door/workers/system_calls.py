"""A filter of system calls (seccomp) that forbids what decoding never does: sockets, processes, signals, new limits.

A thread may be started: it has the same rights, memory and processor time as the others of its process, which is what
is limited, and the decoder of HEIC needs one.

Landlock does not know of UDP, nor of sockets that are files. A call that is forbidden fails with EPERM. The numbers of
the calls differ between processors; on those that are not listed, and without seccomp, there is no filter.
"""

from __future__ import annotations

import ctypes
import platform
import struct

# AUDIT_ARCH, the number of the call `seccomp`, that of `clone`, and those that are forbidden.
_MACHINES = {
    "x86_64": (
        0xC000003E,
        317,
        56,
        {
            "socket": 41,
            "connect": 42,
            "bind": 49,
            "listen": 50,
            "socketpair": 53,
            "fork": 57,
            "vfork": 58,
            "execve": 59,
            "kill": 62,
            "ptrace": 101,
            "setrlimit": 160,
            "tkill": 200,
            "tgkill": 234,
            "add_key": 248,
            "keyctl": 250,
            "unshare": 272,
            "perf_event_open": 298,
            "prlimit64": 302,
            "setns": 308,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "memfd_create": 319,
            "bpf": 321,
            "execveat": 322,
            "userfaultfd": 323,
        },
    ),
    "aarch64": (
        0xC00000B7,
        277,
        220,
        {
            "unshare": 97,
            "ptrace": 117,
            "kill": 129,
            "tkill": 130,
            "tgkill": 131,
            "setrlimit": 164,
            "socket": 198,
            "socketpair": 199,
            "bind": 200,
            "listen": 201,
            "connect": 203,
            "add_key": 217,
            "keyctl": 219,
            "execve": 221,
            "perf_event_open": 241,
            "prlimit64": 261,
            "setns": 268,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "memfd_create": 279,
            "bpf": 280,
            "execveat": 281,
            "userfaultfd": 282,
        },
    ),
}
_EVERYWHERE = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438}
_CLONE3 = 435  # its flags are in memory, where no filter sees them; without it, C libraries use `clone`

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = (
    0x20,
    0x15,
    0x35,
    0x45,
    0x06,
)  # instructions of BPF: a word; jumps; the end
_ALLOW, _FORBID, _ABSENT = 0x7FFF0000, 0x00050001, 0x00050026  # the latter two with EPERM and ENOSYS
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in what a filter looks at; the lower half of an argument
_THREAD = 0x10000  # CLONE_THREAD: not a process
_X32 = 0x40000000  # added to the number of a call, x86_64 has other calls that do the same


def forbid_calls() -> bool:
    """Install the filter for this thread and for good; needs `no_new_privs`. Returns whether it is there."""
    if platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return False
    architecture, seccomp, clone, calls = _MACHINES[platform.machine()]
    code = _program(architecture, clone, sorted({*calls.values(), *_EVERYWHERE.values()}))
    holder = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(holder))
    # SECCOMP_SET_MODE_FILTER, with SECCOMP_FILTER_FLAG_SPEC_ALLOW, or older kernels slow the process down.
    failed = ctypes.CDLL(None).syscall(seccomp, 1, ctypes.c_ulong(4), program)
    return not failed


def _program(architecture: int, clone: int, forbidden: list[int]) -> bytes:
    """The filter in BPF: (code, jump if true, jump if false, value) for each instruction; jumps are relative."""
    first = 5  # of the tests for what is forbidden
    allow = first + len(forbidden) + 3
    forbid, absent = allow + 1, allow + 2
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, forbid - 2, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, forbid - 4, 0, _X32),
        (_EQUAL, absent - first, 0, _CLONE3),
        *((_EQUAL, forbid - place - 1, 0, number) for place, number in enumerate(forbidden, first)),
        (_EQUAL, 0, 2, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FORBID),
        (_RETURN, 0, 0, _ABSENT),
    ]
    return b"".join(struct.pack("HBBI", *each) for each in code)
