"""Python processes that start at once: each is a fork of a preloaded one, which has imported all slow modules.

`Warm().start("-m", "retrieval", "verify", ...)` does what `python -m retrieval verify ...` does: the process has its
own environment, working directory, standard streams and exit status. Libraries such as the Hub's clients read the
environment at import; pass what they should find there to `Warm(environment)`, which imports them.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
IMPORTED = [
    "torchvision.transforms.v2",
    "gradio_client",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "scipy.stats",
    "sklearn.isotonic",
    "sklearn.linear_model",
    "uvicorn.protocols.http.auto",
    "retrieval.ui",
    "retrieval.bench.artifact",
    "retrieval.commands.change",
    "retrieval.commands.hub",
    "retrieval.commands.inspect",
    "retrieval.commands.search",
    "retrieval.commands.serve",
    "training.run",
    "training.__main__",
]
LIMIT = 300  # seconds to wait for a process


class Started:
    """A process that was started, with the part of the `subprocess.Popen` interface that the tests use."""

    def __init__(self, ears, streams):
        self.returncode, self._ears = None, ears
        self.stdin, self.stdout, self.stderr = streams
        self.pid = int(ears.recv(16))

    def wait(self, timeout=LIMIT):
        """Wait for the exit status, which is minus the signal if one ended the process; raises TimeoutError."""
        if self.returncode is None:
            self._ears.settimeout(timeout)
            self.returncode = int(self._ears.recv(16) or -signal.SIGKILL)
        return self.returncode

    def poll(self):
        """The exit status, None while it runs."""
        with suppress(BlockingIOError):
            self.wait(0)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.kill()
        if self.stdin:
            self.stdin.close()
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self._ears.close()


class Warm:
    """The preloaded process that is forked. It starts with the first command; `close` ends it."""

    def __init__(self, environment=None):
        self._environment, self._server, self._mouth = environment, None, None

    def _warm_up(self):
        self._mouth, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**(self._environment or os.environ), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._server = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()

    def start(self, *arguments, cwd=ROOT, env=None, stdin=None, stdout=None, stderr=None):
        """Start `python ARGUMENTS`: `-c CODE ...`, `-m MODULE ...` or `FILE ...`.

        The streams are text streams as for Popen, except that None means DEVNULL.
        """
        if self._server is None:
            self._warm_up()
        ours, theirs = [None] * 3, []
        with Path(os.devnull).open("r+b", buffering=0) as nothing:
            for number, stream in enumerate((stdin, stdout, stderr)):
                if stream == subprocess.PIPE:
                    ours[number], other = _pipe(number)
                elif stream == subprocess.STDOUT:
                    other = os.dup(theirs[1])
                else:
                    other = os.dup((nothing if stream in (None, subprocess.DEVNULL) else stream).fileno())
                theirs.append(other)
        ears, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.append(told.detach())
        environment = env or self._environment or os.environ
        job = {"arguments": [str(each) for each in arguments], "cwd": str(cwd), "env": dict(environment)}
        socket.send_fds(self._mouth, [json.dumps(job).encode()], theirs)
        for each in theirs:
            os.close(each)
        return Started(ears, ours)

    def run(self, *arguments, timeout=LIMIT, check=False, **options):
        """Run to the end; returns what `subprocess.run(..., capture_output=True, text=True)` does."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            with self.start(*arguments, stdout=out, stderr=err, **options) as process:
                process.wait(timeout)
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(list(arguments), process.returncode, out.read(), err.read())
        if check:
            done.check_returncode()
        return done

    def close(self):
        """End it, and every process that it has started."""
        if self._server is not None:
            self._mouth.close()
            self._server.wait(20)


def _pipe(number):
    """A pipe for a standard stream: our end as a file, and the descriptor of the other end."""
    read, write = os.pipe()
    if number == 0:
        return os.fdopen(write, "w", encoding="utf-8"), read
    return os.fdopen(read, "r", encoding="utf-8"), write


# In the process that is forked


def serve(commands):
    """Fork for each command received; returns the command in the fork, and None at the end."""
    running = {}  # pidfd -> process id, and the socket to report its end to
    with selectors.DefaultSelector() as selector:
        selector.register(commands, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not commands:
                    selector.unregister(key.fileobj)
                    _tell(key.fileobj, *running.pop(key.fileobj))
                    continue
                sent, descriptors, _, _ = socket.recv_fds(commands, 1 << 20, 4)
                if not sent:
                    for pid, _ in running.values():
                        os.kill(pid, signal.SIGKILL)
                    return None
                pid = os.fork()
                if not pid:
                    for number in range(3):
                        os.dup2(descriptors[number], number)
                    for each in (*descriptors, *running, *(told.fileno() for _, told in running.values())):
                        os.close(each)
                    commands.close()
                    return json.loads(sent)
                for each in descriptors[:3]:
                    os.close(each)
                told = socket.socket(fileno=descriptors[3])
                told.send(str(pid).encode())
                end = os.pidfd_open(pid)
                running[end] = pid, told
                selector.register(end, selectors.EVENT_READ)


def _tell(end, pid, told):
    """Report the exit status of a process to the one that started it."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(end)
    with told, suppress(OSError):  # there may be nobody waiting any more
        told.send(str(status).encode())


def become(job):
    """Do what a newly started Python would do with this job, then end the process."""
    status = 1
    try:
        _run(job)
        status = 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            status = end.code or 0
        else:
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    # End as Python does, but skip the seconds that freeing all imported modules takes.
    threading._shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _run(job):
    # A shell makes its background processes ignore Ctrl-C, and forks inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    tempfile.tempdir = None  # TMPDIR may have changed
    kind, *rest = job["arguments"]
    sys.path.remove(str(Path(__file__).parent))
    if kind == "-m":
        sys.argv, sys.path[:0] = rest, [job["cwd"]]
        sys.modules.pop(f"{rest[0]}.__main__", None)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[:0] = ["-c", *rest[1:]], [""]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        file = Path(kind).resolve()
        sys.argv, sys.path[:0] = [kind, *rest], [str(file.parent)]
        runpy.run_path(str(file), run_name="__main__")


if __name__ == "__main__":
    for module in IMPORTED:
        import_module(module)
    gc.freeze()  # so that garbage collection in a fork does not touch, and copy, all of this memory
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked:
        become(asked)
    os._exit(0)
