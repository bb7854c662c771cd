"""Python processes that start at once: each is a fork of one that has imported everything that is slow to import.

`Warm().start("-m", "retrieval", "verify", ...)` does what `python -m retrieval verify ...` does: the process has an
environment, a folder, standard streams and an exit status of its own. Libraries such as the Hub's clients read the
environment when they are imported: what they are to find there is given to `Warm(environment)`, which imports them.
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
    "gradio",
    "gradio_client",
    "matplotlib.backends.backend_agg",
    "retrieval.ui",
    "retrieval.bench.artifact",
    "training.run",
    "training.__main__",
]
LIMIT = 300  # seconds for a process that somebody waits for


class Started:
    """A process that was started, as `subprocess.Popen` has it, as far as the tests need."""

    def __init__(self, ears, streams):
        self.args, self.returncode, self._ears, self.stdin, self.stdout, self.stderr = None, None, ears, *streams
        self.pid = int(ears.recv(16))

    def wait(self, timeout=LIMIT):
        """Its exit status, minus the signal where one ended it; raises TimeoutError."""
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

    def terminate(self):
        self.send_signal(signal.SIGTERM)

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
    """The process that is forked. It starts with the first command; `close` ends it."""

    def __init__(self, environment=None):
        self._environment, self._server, self._mouth = environment, None, None

    def _warm_up(self):
        self._mouth, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**(self._environment or os.environ), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, str(theirs.fileno())]
        self._server = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()

    def start(self, *arguments, cwd=ROOT, env=None, stdin=None, stdout=None, stderr=None):
        """Start `python ARGUMENTS`: `-c CODE ...`, `-m MODULE ...` or `FILE ...`; streams are as for Popen, in text."""
        if self._server is None:
            self._warm_up()
        ours, theirs, kept = [None] * 3, [], []
        for number, stream in enumerate((stdin, stdout, stderr)):
            if stream == subprocess.PIPE:
                read, write = os.pipe()
                mine, other = (write, read) if number == 0 else (read, write)
                ours[number] = os.fdopen(mine, "w" if number == 0 else "r", encoding="utf-8")
                theirs.append(other)
                kept.append(other)
            elif stream == subprocess.STDOUT:
                theirs.append(theirs[1])
            elif stream is None or stream == subprocess.DEVNULL:
                kept.append(os.open(os.devnull, os.O_RDWR))
                theirs.append(kept[-1])
            else:
                theirs.append(stream.fileno())
        ears, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = env or self._environment or os.environ
        job = {"arguments": [str(each) for each in arguments], "cwd": str(cwd), "env": dict(environment)}
        socket.send_fds(self._mouth, [json.dumps(job).encode()], [*theirs, told.fileno()])
        told.close()
        for each in kept:
            os.close(each)
        return Started(ears, ours)

    def run(self, *arguments, timeout=LIMIT, check=False, **options):
        """Run it to its end: what `subprocess.run(..., capture_output=True, text=True)` gives."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            with self.start(*arguments, stdout=out, stderr=err, **options) as process:
                try:
                    process.wait(timeout)
                except TimeoutError:
                    process.kill()
                    raise
            out.seek(0), err.seek(0)
            done = subprocess.CompletedProcess(list(arguments), process.returncode, out.read(), err.read())
        if check:
            done.check_returncode()
        return done

    def close(self):
        if self._server is not None:
            self._mouth.close()
            self._server.wait(20)


# In the process that is forked


def serve(commands):
    """Fork for each command that comes in; returns the command in the fork, and None at the end."""
    running = {}  # by what tells of its end: the id, and whom to tell
    with selectors.DefaultSelector() as selector:
        selector.register(commands, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not commands:
                    pid, told = running.pop(key.fileobj)
                    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with suppress(OSError):  # nobody waits any more
                        told.send(str(status).encode())
                    selector.unregister(key.fileobj)
                    os.close(key.fileobj)
                    told.close()
                    continue
                sent, descriptors, _, _ = socket.recv_fds(commands, 1 << 20, 4)
                if not sent:
                    for pid, _ in running.values():
                        os.kill(pid, signal.SIGKILL)
                    return None
                pid = os.fork()
                if not pid:
                    commands.close()
                    for number in range(3):
                        os.dup2(descriptors[number], number)
                    for each in {*descriptors, *running, *(told.fileno() for _, told in running.values())}:
                        os.close(each)
                    return json.loads(sent)
                told = socket.socket(fileno=descriptors[3])
                told.send(str(pid).encode())
                for each in set(descriptors[:3]):
                    os.close(each)
                end = os.pidfd_open(pid)
                running[end] = pid, told
                selector.register(end, selectors.EVENT_READ)


def become(job):
    """Do what Python would do with these arguments, started from there; ends the process."""
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
    # As Python ends, but for the seconds that it takes to forget all that was imported.
    threading._shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _run(job):
    for number in (signal.SIGINT, signal.SIGTERM):  # whatever the shell of the tests had it do with them
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
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
    gc.freeze()  # so that a fork does not copy all of it to look for what it can forget
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked:
        become(asked)
    os._exit(0)
