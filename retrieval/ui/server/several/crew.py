"""The workers: started, watched, replaced when they end, and told to stop."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from retrieval.console import say
from retrieval.errors import LookalikeError
from retrieval.ui import strings
from retrieval.ui.server.several.job import Job
from retrieval.ui.server.several.nursery import Nursery
from retrieval.ui.server.several.passing.upstream import Connections
from retrieval.ui.server.several.pulse import until_silent

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 60.0  # seconds before a worker that has ended is replaced
_SETTLED = 30.0  # seconds after which a worker is no longer thought to end at once
_HOPELESS = 8  # starts in vain, one after the other, when no worker is left
_numbers = itertools.count()


class Worker:
    """One process that serves the page."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid, self.busy, self.counted = 0, 0, ""
        self.turns = {True: 0, False: 0}  # when it was last chosen for work, and for anything else
        self.ready = False
        self.about: dict[str, Any] = {}
        self.connections = Connections(0)
        self._reader, self._writer = reader, writer

    async def start(self, job: Job) -> None:
        """Wait until it serves. Raises LookalikeError, with its own sentence, if it cannot."""
        self.tell(job.to_json())
        while not self.ready:
            said = await self._heard()
            if said is None:
                raise LookalikeError(strings.WORKER_ENDED)
            if "error" in said:
                raise LookalikeError(said["error"])
            self.pid = said.get("pid", self.pid)
            if "port" in said:
                self.about, self.connections, self.ready = said, Connections(said["port"]), True

    async def ended(self) -> None:
        """Wait until the process has ended."""
        while await self._heard() is not None:
            pass
        self.lose()

    @contextmanager
    def busy_with(self, counts: bool) -> Iterator[None]:
        """Count a request that it answers, if that is work."""
        self.busy += counts
        try:
            yield
        finally:
            self.busy -= counts

    def lose(self) -> None:
        """Send it no request any more."""
        self.ready = False
        self.connections.close()

    def tell(self, line: str) -> None:
        """Send it a line."""
        self._writer.write(line.encode() + b"\n")

    def kill(self) -> None:
        """End it at once."""
        self.lose()
        if self.pid and not self._reader.at_eof():
            with suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        self._writer.close()

    async def _heard(self) -> dict[str, Any] | None:
        """The next thing that it says; None when the process has ended."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        return json.loads(line) if line.endswith(b"\n") else None


class Crew:
    """All workers. Only `kill` may be called from another thread than that of the event loop."""

    def __init__(self, job: Job, threads: int) -> None:
        self.workers: list[Worker] = []
        self.stopping = False
        self.failure: LookalikeError | None = None
        """Why no worker can be started any more."""
        self.on_end: Callable[[Worker], None] = lambda worker: None
        self.secret = job.secret
        self._job, self._threads = job, threads
        self._nursery = Nursery(threads)
        self._keepers: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()

    @property
    def ready(self) -> list[Worker]:
        """Those that take requests."""
        return [worker for worker in self.workers if worker.ready]

    def choose(self, work: bool) -> Worker | None:
        """The worker that has least to do, each in its turn; None if there is none. `work` is more than a file."""
        found = min(self.ready, key=lambda worker: (worker.busy, worker.turns[work]), default=None)
        if found is not None:
            found.turns[work] = next(_numbers)
        return found

    async def begin(self) -> None:
        """Start all. Raises LookalikeError if the first, or any other one, cannot be started."""
        # The first one checks the artifact, which need not be done again; and downloads it, if it is on the Hub.
        first = await self._started()
        if not self._job.shown.refresh:
            self._job = replace(self._job, commit=first.about["commit"])
        self._job = replace(self._job, first=False)
        rest = await asyncio.gather(*(self._started() for _ in range(self._job.workers - 1)))
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in (first, *rest)]

    async def stop(self) -> None:
        """Tell all to finish what they have, and wait until they have ended."""
        self.stopping = True
        for worker in self.workers:
            worker.tell("stop")
        self._stopped.set()
        if self._keepers:
            await asyncio.wait(self._keepers)

    def kill(self) -> None:
        """End all at once."""
        self.stopping = True
        for worker in list(self.workers):
            if worker.pid:
                with suppress(OSError):
                    os.kill(worker.pid, signal.SIGKILL)
        self._nursery.close()

    async def _keep(self, worker: Worker) -> None:
        """Replace a worker whenever it ends; the sooner it ends, the longer the pause before."""
        pause, vain = _FIRST_PAUSE, 0
        while True:
            begun = time.monotonic()
            watching = asyncio.create_task(self._end_when_silent(worker))
            await worker.ended()
            watching.cancel()
            self._drop(worker)
            if self.stopping:
                return
            say(strings.WORKER_REPLACED.format(pid=worker.pid))
            pause = _FIRST_PAUSE if time.monotonic() - begun > _SETTLED else min(4 * pause, _LONGEST_PAUSE)
            while not self.stopping:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), pause)
                    return
                try:
                    worker = await self._started()
                    break
                except (LookalikeError, OSError) as error:  # there may be no memory, or no process, left
                    vain, pause = vain + 1, min(4 * pause, _LONGEST_PAUSE)
                    if vain >= _HOPELESS and not self.ready:
                        self.failure = LookalikeError(str(error))
                        return
                    say(strings.WORKER_FAILED.format(why=error, seconds=round(pause)))
            vain = 0

    async def _end_when_silent(self, worker: Worker) -> None:
        await until_silent(worker.about["port"], self.secret)
        if not self.stopping:
            say(strings.WORKER_HANGS.format(pid=worker.pid))
            worker.kill()

    async def _started(self) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._nursery.fork(theirs)
            except OSError:  # it was ended by somebody
                self._nursery.close()
                self._nursery = Nursery(self._threads)
                self._nursery.fork(theirs)
        worker = Worker(*await asyncio.open_unix_connection(sock=ours))
        self.workers.append(worker)
        try:
            await worker.start(self._job)
        except BaseException:
            self._drop(worker)
            raise
        return worker

    def _drop(self, worker: Worker) -> None:
        self.workers.remove(worker)
        worker.kill()
        self.on_end(worker)
