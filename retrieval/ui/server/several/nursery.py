"""The process that workers are forked from: it has imported everything, and does nothing else.

Importing takes seconds and hundreds of megabytes, which workers share this way. It starts no thread and computes
nothing, so that a fork of it is as good as a new process.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from retrieval.ui.footprint import without_pandas

_PACKAGES = Path(__file__).parents[4]
_MAIN = (
    "import sys; sys.path[:] = sys.argv[3:]; from retrieval.ui.server.several.nursery import main; "
    "main(*map(int, sys.argv[1:3]))"
)
_IMPORTED = (
    "gradio_client",
    "gradio.mcp",
    "onnxruntime",
    "uvicorn.protocols.http.auto",
    "retrieval.search",
    "retrieval.ui.following",
    "retrieval.ui.server.launch",
)


class Nursery:
    """The process, as its owner sees it."""

    def __init__(self, threads: int) -> None:
        """Each worker computes with so many threads. Raises OSError if no process can be started."""
        self._socket, theirs = socket.socketpair()
        number = str(threads)
        environment = {"OMP_NUM_THREADS": number, **os.environ}
        with theirs:
            if threading.active_count() == 1 and (sys.platform == "linux"):
                self._pid = self._fork(theirs, threads, environment)
            else:
                self._pid = self._begin(theirs, threads, environment)

    def fork(self, channel: socket.socket) -> None:
        """Start a worker at the other end of a channel. Raises OSError if the process has ended."""
        socket.send_fds(self._socket, [b"f"], [channel.fileno()])

    def close(self) -> None:
        """End it; workers go on until their channels are closed."""
        self._socket.close()
        with suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _fork(self, theirs: socket.socket, threads: int, environment: dict[str, str]) -> int:
        """A process that has what this one has imported already."""
        if pid := os.fork():
            return pid
        try:
            self._socket.close()
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            with Path(os.devnull).open("rb") as nothing:
                os.dup2(nothing.fileno(), 0)
            os.environ.update(environment)
            main(theirs.detach(), threads)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _begin(self, theirs: socket.socket, threads: int, environment: dict[str, str]) -> int:
        """A new process, as this one has threads."""
        paths = [str(_PACKAGES), *(path for path in sys.path if Path(path).is_absolute())]
        return subprocess.Popen(
            [sys.executable, "-c", _MAIN, str(theirs.fileno()), str(threads), *paths],
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the supervisor, which then tells the workers
        ).pid


def main(descriptor: int, threads: int) -> None:
    """Import everything, then fork a worker for each channel that comes, until the supervisor closes the socket."""
    # On a Mac, some libraries must not be used in a fork of a process that has loaded them.
    without_pandas()
    for name in _IMPORTED if sys.platform == "linux" else ():
        import_module(name)
    from retrieval.forking import compute_with

    compute_with(threads)
    gc.collect()
    gc.freeze()  # or collecting garbage in a worker would copy all that is shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: their channels tell when they end
    with socket.socket(fileno=descriptor) as supervisor:
        while True:
            asked, [*descriptors], _, _ = socket.recv_fds(supervisor, 1, 1)
            if not asked:
                return
            channel = socket.socket(fileno=descriptors[0])
            if not os.fork():
                supervisor.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                break
            channel.close()
    from retrieval.ui.server.several.worker import work

    work(channel)
