"""One worker: a process that decodes, watched from outside."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval.errors import ImageError, LookalikeError, short
from retrieval.images.door.blank import ALWAYS_BLANK
from retrieval.images.door.views import View
from retrieval.images.door.workers import protocol
from retrieval.images.door.workers.limits import LIMITS, Limits, crashed, too_long, too_much_memory
from retrieval.images.door.workers.memory import memory_file, take_pictures

_log = logging.getLogger(__name__)
_PACKAGES = Path(__file__).parents[4]
_MAIN = (
    "import sys; sys.path[:] = sys.argv[5:]; from retrieval.images.door.workers.program import main; "
    "main(*map(int, sys.argv[1:5]))"
)
# One thread; and freed memory is kept for the next picture: getting it anew costs up to half of the decoding. But it is
# overwritten, as some decoders leave parts of a damaged picture as they find them. What C libraries keep aside for
# themselves ("tcache") would not be, so there is none.
SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",  # or each thread takes 64 MiB of address space
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "GLIBC_TUNABLES": f"{ALWAYS_BLANK}:glibc.malloc.tcache_count=0",
}
_LOOK = 0.5  # seconds
_LONGEST = 2**16  # bytes of what a process writes while it starts
_KEPT = ("LD_LIBRARY_PATH", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")  # no tokens


class Worker:
    """A process that decodes pictures, one at a time."""

    def __init__(self, limits: Limits = LIMITS, program: str = _MAIN) -> None:
        """Start the process, without waiting for it; `program` is Python code. Raises OSError."""
        self.served = 0
        self._limits, self._ready = limits, False
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._complaints = os.memfd_create("complaints", os.MFD_CLOEXEC)
        paths = [str(_PACKAGES), *(path for path in sys.path if Path(path).is_absolute())]
        numbers = [theirs.fileno(), os.getpid(), limits.memory, limits.file]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", program, *map(str, numbers), *paths],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,  # until it has started
                cwd="/",
                env=environment | SETTINGS,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the server
            )
        except BaseException:
            self._socket.close()
            os.close(self._complaints)
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def decode(
        self, name: str, given: int, size: int, at_least: int | None, views: Sequence[View], large: bool = True
    ) -> list[Image.Image] | None:
        """Views of the picture in the file `given`, a descriptor, of `size` bytes; None if it is large but must not be.

        Raises ImageError, or StartError. The worker must then be ended, unless it is an ImageError but no LostError.
        """
        self._await_start()
        with memory_file() as wanted:
            try:
                socket.send_fds(self._socket, [protocol.request(name, at_least, views, large)], [given, wanted])
            except OSError as error:
                raise LostError(crashed(name)) from error
            answer = self._answer(name, given, size)
            self.served += 1
            if answer == protocol.LARGE and not large:
                return None
            return _understood(name, answer, wanted, len(views))

    def _await_start(self) -> None:
        """Wait until the process is ready. Raises StartError."""
        if self._ready:
            return
        self._socket.settimeout(self._limits.start)
        try:
            self._ready = self._socket.recv(protocol.LONGEST) == protocol.READY
        except OSError:
            self._ready = False
        if not self._ready:
            fate = _fate(self._end()) or f"not ready after {self._limits.start:.0f} s"
            written = os.pread(self._complaints, _LONGEST, 0).decode(errors="replace").strip()
            if written:
                _log.error("a process that decodes pictures does not start (%s):\n%s", fate, written)
            reason = short(_without_folders(written.rpartition("\n")[2].strip()), 300) or "is memory short?"
            raise StartError(f"no picture can be decoded: a process that decodes does not start ({fate}): {reason}")
        self._forget_complaints()

    def _forget_complaints(self) -> None:
        if self._complaints >= 0:
            os.close(self._complaints)
        self._complaints = -1

    def _answer(self, name: str, given: int, size: int) -> bytes:
        """Wait for an answer as long as the process is within its time. Raises LostError."""
        processor, clock = self._used(), time.monotonic()
        while True:
            # One thread uses no more processor time than passes on the clock; a decoder may have a few, so look again.
            seconds = self._limits.seconds(size, protocol.declared_pixels(given, size))
            left = min(
                seconds - (self._used() - processor), seconds * self._limits.stretch - (time.monotonic() - clock)
            )
            if left <= 0:
                raise LostError(too_long(name))
            self._socket.settimeout(min(left, _LOOK) + 0.001)
            try:
                answer = self._socket.recv(protocol.LONGEST + 1)
            except TimeoutError:
                continue
            except OSError:
                answer = b""
            if not answer:
                killed = self._end() == -signal.SIGKILL  # not by us: by the kernel, when memory runs out
                raise LostError(too_much_memory(name) if killed else crashed(name))
            return answer

    def _used(self) -> float:
        """Seconds of processor time that the process has used; 0 where another process cannot be asked for."""
        try:
            return time.clock_gettime(~self.pid << 3 | 2)  # its clock, as clock_getcpuclockid makes it
        except OSError:
            return 0.0

    def _end(self) -> int | None:
        """How a process has ended that has closed its socket; None if it did not end by itself."""
        try:
            return self._process.wait(1)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End the process, whatever it does."""
        self._forget_complaints()
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def disown(self) -> None:
        """In a forked child: forget the process, which is the parent's."""
        self._forget_complaints()
        self._socket.close()
        self._process.returncode = 0


class StartError(LookalikeError):
    """A worker that was not ready to decode a picture: the picture is not to blame."""


class LostError(ImageError):
    """A picture that cost its worker."""


def _understood(name: str, answer: bytes, wanted: int, views: int) -> list[Image.Image]:
    """What a worker answered, which may be anything. Raises ImageError."""
    if len(answer) <= protocol.LONGEST:
        if answer.startswith(protocol.REFUSED):
            raise ImageError(protocol.parse_message(answer))
        if answer == protocol.MEMORY:
            raise LostError(too_much_memory(name))
        if answer.startswith(protocol.PIXELS):
            try:
                return take_pictures(wanted, protocol.parse_sizes(answer, views))
            except ValueError as error:
                raise LostError(crashed(name)) from error
            except MemoryError as error:
                raise LostError(too_much_memory(name)) from error
    raise LostError(crashed(name))


def _without_folders(text: str) -> str:
    """The text with only the names of the files that it gives paths of: visitors may read it."""
    return re.sub(r"(?<![\w.])(?:[A-Za-z]:)?/(?:[^/'\":]*/)*", "", text)


def _fate(status: int | None) -> str:
    if status is None:
        return ""
    return f"ended with status {status}" if status >= 0 else f"ended by signal {-status}"
