"""The workers of this process: started when they are needed, replaced when they are lost."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from PIL import Image

from retrieval.errors import ImageError, LookalikeError
from retrieval.files.system import cores
from retrieval.forking import in_child
from retrieval.images.door.files import File, name_of, parts_of
from retrieval.images.door.views import WHOLE, View
from retrieval.images.door.workers.lane import Lane
from retrieval.images.door.workers.memory import memory_file, write_all
from retrieval.images.door.workers.worker import LostError, StartError, Worker

_MOST = 16  # workers
_PICTURES = 5000  # that one worker decodes: a decoder may lose a little memory each time
_STARTS = 3  # for one picture
_PART = 2**20  # bytes


class Pool:
    """Up to `size` workers: as many as pictures are decoded at the same time.

    All threads may use it. A forked child must call `renew`, and then starts its own workers.
    """

    def __init__(self, size: int, start: Callable[[], Worker] = Worker, patience: float = 120.0) -> None:
        """`start` starts a worker; `patience` is how many seconds a picture waits for one."""
        self._size, self._start, self._patience = size, start, patience
        self.lane: Lane | None = None
        """For large pictures; without one, these are decoded like any other."""
        self._workers: set[Worker] = set()
        self.renew()

    def renew(self) -> None:
        """Forget all workers, without ending them: in a forked child, they are those of its parent."""
        for worker in self._workers:
            worker.disown()
        self._workers = set()
        self.lane = self.lane and self.lane.renewed()
        self._idle: list[Worker] = []
        self._count = 0  # of workers, and of those about to be started
        self._changed = threading.Condition()
        self._starts: SimpleQueue[Future[Worker] | None] | None = None

    def decode(self, source: File, at_least: int | None, views: Sequence[View] = (WHOLE,)) -> list[Image.Image]:
        """Views of the picture in a file. Raises ImageError, or LookalikeError if no worker can be started."""
        name = name_of(source)
        try:
            with memory_file() as given:
                size = 0
                for part in parts_of(source, _PART):
                    write_all(given, part)
                    size += len(part)
                wanted = name, given, size, at_least, views
                if self.lane is None:
                    return self._surely(*wanted, True) or []
                if (images := self._surely(*wanted, False)) is not None:
                    return images
                with self.lane.turn(name):
                    return self._surely(*wanted, True) or []
        except OSError as error:  # no descriptor left, or no memory for the file
            raise LookalikeError(f"{name} cannot be decoded: {error.strerror}") from error

    def _surely(self, *wanted: Any) -> list[Image.Image] | None:
        """As `_decoded`; a worker may be killed before it is ready."""
        for _ in range(_STARTS - 1):
            with suppress(StartError):
                return self._decoded(*wanted)
        return self._decoded(*wanted)

    def _decoded(
        self, name: str, given: int, size: int, at_least: int | None, views: Sequence[View], large: bool
    ) -> list[Image.Image] | None:
        worker = self._take(name)
        good = False
        try:
            images = worker.decode(name, given, size, at_least, views, large)
            good = True
            return images
        except ImageError as error:
            good = not isinstance(error, LostError)
            raise
        finally:
            self._give_back(worker, good)

    def share(self, processes: int) -> None:
        """Have from now on at most the share of one of so many processes, and at least two."""
        with self._changed:
            self._size = max(2, self._size // processes)

    def warm_up(self, count: int) -> None:
        """Start workers until there are `count`, without waiting until they are ready."""
        while True:
            with self._changed:
                if self._count >= min(count, self._size):
                    return
                self._count += 1
            self._enter(self._started())

    def close(self) -> None:
        """End all workers, whatever they do."""
        with self._changed:
            workers, self._workers, self._idle = self._workers, set(), []
            self._count = 0
            if self._starts is not None:
                self._starts.put(None)
            self._starts = None
        for worker in workers:
            worker.close()

    def _take(self, name: str) -> Worker:
        """A worker for one picture, the one that was used last."""
        deadline = time.monotonic() + self._patience
        with self._changed:
            while not self._idle and self._count >= self._size:
                if (left := deadline - time.monotonic()) <= 0:
                    raise ImageError(f"{name} was not decoded: too many other pictures are waiting; try again later")
                self._changed.wait(left)
            if not self._idle:
                self._count += 1
                worker = None
            else:
                worker = self._idle.pop()
        if worker is not None:
            if worker.alive:
                return worker
            self._end(worker)
        return self._started()

    def _give_back(self, worker: Worker, good: bool) -> None:
        """Keep a worker for the next picture, or end it and start another."""
        if good and worker.served < _PICTURES:
            self._enter(worker)
            return
        self._end(worker)
        if not worker.served:  # it never decoded: the next one might not, either
            self._leave()
            return
        with suppress(LookalikeError):  # the next picture tries again
            self._enter(self._started())

    def _enter(self, worker: Worker) -> None:
        with self._changed:
            self._idle.append(worker)
            self._changed.notify()

    def _leave(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def _end(self, worker: Worker) -> None:
        with self._changed:
            self._workers.discard(worker)
        worker.close()

    def _started(self) -> Worker:
        """A new worker, which is counted already. Raises LookalikeError."""
        future: Future[Worker] = Future()
        try:
            with self._changed:
                if self._starts is None:
                    starts: SimpleQueue[Future[Worker] | None] = SimpleQueue()
                    threading.Thread(target=_start_each, args=(starts, self._start), daemon=True).start()
                    self._starts = starts
                self._starts.put(future)
            worker = future.result()
        except BaseException as error:
            future.add_done_callback(_end_unwanted)
            self._leave()
            if isinstance(error, OSError | RuntimeError):
                raise LookalikeError(f"no picture can be decoded: no process can be started ({error})") from error
            raise
        with self._changed:
            self._workers.add(worker)
        return worker


def _start_each(starts: SimpleQueue[Future[Worker] | None], start: Callable[[], Worker]) -> None:
    """Start workers as long as this process lives: a worker ends with the thread that started it."""
    while (future := starts.get()) is not None:
        try:
            future.set_result(start())
        except BaseException as error:
            future.set_exception(error)


def _end_unwanted(future: Future[Worker]) -> None:
    if future.exception() is None:
        future.result().close()


# Two for each processor, so that a quick picture need not wait until a slow one has used up its time.
WORKERS = Pool(min(max(4, 2 * cores()), _MOST))
in_child(WORKERS.renew)
atexit.register(WORKERS.close)
