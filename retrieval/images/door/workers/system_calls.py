"""A filter of system calls (seccomp) that forbids what decoding never does: sockets, processes, signals, new limits.

Landlock does not know of UDP, nor of sockets that are files. A call that is forbidden fails with EPERM. The numbers of
the calls differ between processors; on those that are not listed, and without seccomp, there is no filter.
"""

from __future__ import annotations

import ctypes
import platform
import struct

# AUDIT_ARCH, the number of the call `seccomp`, and those that are forbidden.
_MACHINES = {
    "x86_64": (
        0xC000003E,
        317,
        {
            "socket": 41,
            "connect": 42,
            "bind": 49,
            "listen": 50,
            "socketpair": 53,
            "clone": 56,
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
            "clone": 220,
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
_EVERYWHERE = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438}

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # instructions of BPF: a word; jumps; the end
_ALLOW, _FORBID = 0x7FFF0000, 0x00050001  # the latter with EPERM
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in what a filter looks at
_X32 = 0x40000000  # added to the number of a call, x86_64 has other calls that do the same


def forbid_calls() -> bool:
    """Install the filter for this thread and for good; needs `no_new_privs`. Returns whether it is there."""
    if platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return False
    architecture, seccomp, calls = _MACHINES[platform.machine()]
    code = _program(architecture, sorted({*calls.values(), *_EVERYWHERE.values()}))
    holder = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(holder))
    # SECCOMP_SET_MODE_FILTER, with SECCOMP_FILTER_FLAG_SPEC_ALLOW, or older kernels slow the process down.
    failed = ctypes.CDLL(None).syscall(seccomp, 1, ctypes.c_ulong(4), program)
    return not failed


def _program(architecture: int, forbidden: list[int]) -> bytes:
    """The filter in BPF: (code, jump if true, jump if false, value) for each instruction; jumps are relative."""
    last = len(forbidden) + 1  # instructions from the first test of a number to the one that forbids
    code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, last + 2, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, last, 0, _X32),
        *((_EQUAL, last - 1 - place, 0, number) for place, number in enumerate(forbidden)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FORBID),
    ]
    return b"".join(struct.pack("HBBI", *each) for each in code)
