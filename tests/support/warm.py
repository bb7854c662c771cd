"""Python processes that start at once: each is a fork of a preloaded one, which has imported all slow modules.

`Warm().start("-m", "retrieval", "verify", ...)` does what `python -m retrieval verify ...` does: the process has its
own environment, working directory, standard streams and exit status. Libraries such as the Hub's clients read the
environment at import; pass what they should find there to `Warm(environment)`, which imports them. Importing takes
seconds, so the processes that run the tests of one session share a preloaded one: `Warm(name=NAME)`.
"""

from __future__ import annotations

import atexit
import gc
import io
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
import uuid
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
    "uvicorn.protocols.http.auto",
    "retrieval.ui",
    "retrieval.bench.artifact",
    "retrieval.commands.change",
    "retrieval.commands.hub",
    "retrieval.commands.inspect",
    "retrieval.commands.search",
    "retrieval.commands.serve",
    "retrieval.encoders.engines.onnx",
    "retrieval.encoders.network.export",
    "retrieval.encoders.network.new",
    "retrieval.encoders.network.saved",
    "retrieval.hub.pull",
    "retrieval.search",
    "scipy.io",
    "training.results.compare",
    "training.run",
    "training.__main__",
]
LIMIT = 300  # seconds to wait for a process
_PROGRAM = """#!{python} -S
import os, sys
sys.path.insert(0, {folder!r})
from warm import Warm
warm = Warm(name={name!r})
options = dict(cwd=os.getcwd(), env=os.environ, stdout=sys.stdout, stderr=sys.stderr)
sys.exit(warm.start(*sys.argv[2:], **options).wait())
"""


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
    """The preloaded process that is forked. It starts with the first command, and ends with the last `close`."""

    def __init__(self, environment=None, name=None):
        self.name, self._shared = name or str(uuid.uuid4()), name is not None
        self._environment, self._server, self._mouth = environment, None, None

    def _warm_up(self):
        address = f"\0warm-{self.name}"  # abstract: it is free again when the process has ended
        while self._mouth is None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door, suppress(OSError):
                door.bind(address)
                door.listen()
                self._serve_at(door)
            mouth = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                mouth.connect(address)
                self._mouth = mouth
            except ConnectionRefusedError:  # it ends, or does not listen yet
                mouth.close()

    def _serve_at(self, door):
        environment = {**(self._environment or os.environ), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, __file__, str(door.fileno())]
        self._server = subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[door.fileno()])

    def start(self, *arguments, cwd=ROOT, env=None, stdin=None, stdout=None, stderr=None):
        """Start `python ARGUMENTS`: `-c CODE ...`, `-m MODULE ...` or `FILE ...`.

        The streams are text streams as for Popen, except that None means DEVNULL.
        """
        if self._mouth is None:
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

    def program(self, file):
        """Write a program that takes the arguments of `python -u` and runs in a fork; returns its path as a string.

        It is for launchers that start Python themselves, and only while this Warm is used.
        """
        file.write_text(_PROGRAM.format(python=sys.executable, folder=str(Path(__file__).parent), name=self.name))
        file.chmod(0o700)
        return str(file)

    def close(self):
        """End every process that was started here, and the preloaded one, unless somebody else uses it."""
        if self._mouth is not None:
            self._mouth.close()
        if self._server is not None and not self._shared:
            self._server.wait(20)


def _pipe(number):
    """A pipe for a standard stream: our end as a file, and the descriptor of the other end."""
    read, write = os.pipe()
    if number == 0:
        return os.fdopen(write, "w", encoding="utf-8"), read
    return os.fdopen(read, "r", encoding="utf-8"), write


# In the process that is forked


def serve(door):
    """Fork for each command received; returns the command in the fork, and None when nobody is connected any more."""
    running = {}  # pidfd -> process id, the socket to report its end to, and the connection that asked for it
    asking = {door.accept()[0]}
    with selectors.DefaultSelector() as selector:
        for each in (door, *asking):
            selector.register(each, selectors.EVENT_READ)
        while asking:
            for key, _ in selector.select():
                if key.fileobj is door:
                    connection = door.accept()[0]
                    asking.add(connection)
                    selector.register(connection, selectors.EVENT_READ)
                elif key.fileobj in running:
                    selector.unregister(key.fileobj)
                    _tell(key.fileobj, *running.pop(key.fileobj)[:2])
                elif job := _fork(key.fileobj, running, [door, *asking], selector):
                    return job
                elif key.fileobj.fileno() < 0:
                    asking.remove(key.fileobj)
    return None


def _fork(connection, running, sockets, selector):
    """Take the next command of a connection; returns it in the fork. At its end, end the processes it has started."""
    sent, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 4)
    if not sent:
        for pid, _, owner in running.values():
            if owner is connection:
                os.kill(pid, signal.SIGKILL)
        selector.unregister(connection)
        connection.close()
        return None
    pid = os.fork()
    if not pid:
        for number in range(3):
            os.dup2(descriptors[number], number)
        for each in (*descriptors, *running):
            os.close(each)
        for each in (*sockets, *(told for _, told, _ in running.values())):
            each.close()
        return json.loads(sent)
    for each in descriptors[:3]:
        os.close(each)
    told = socket.socket(fileno=descriptors[3])
    told.send(str(pid).encode())
    end = os.pidfd_open(pid)
    running[end] = pid, told, connection
    selector.register(end, selectors.EVENT_READ)
    return None


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


def _open_streams():
    """Open the standard streams anew, as the preloaded ones remember whether their old descriptors could seek."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        buffering = 0 if number and old.write_through else -1
        raw = open(number, "wb" if number else "rb", buffering, closefd=False)  # noqa: SIM115
        new = io.TextIOWrapper(raw, old.encoding, old.errors, None, old.line_buffering, old.write_through)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _run(job):
    _open_streams()
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
    gc.disable()  # there is no garbage to find among modules
    for module in IMPORTED:
        import_module(module)
    import_module("retrieval.images.door.workers.apart").share_workers(2)  # with the other forks
    gc.freeze()  # so that garbage collection in a fork does not touch, and copy, all of this memory
    gc.enable()
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked:
        become(asked)
    os._exit(0)
