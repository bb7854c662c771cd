"""Fork-safe primitives: a lock, a cache, a single-thread executor, and batches of what many threads want from it.

A child of `os.fork` (`multiprocessing`, DataLoader workers) has only the thread that called it. A lock held by another
thread would stay locked for ever, and an executor would wait for ever for a thread that does not exist. So both are
recreated in the child.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_Key = TypeVar("_Key", bound=Hashable)
_Item = TypeVar("_Item")

_threads = 1
_here: weakref.WeakSet[Lock | OneThread | Batches[Any, Any]] = weakref.WeakSet()


class Lock:
    """A lock that is always free in a forked child, even if it was held in the parent."""

    def __init__(self) -> None:
        self.renew()
        _here.add(self)

    def renew(self) -> None:
        """Replace the lock with a new, unlocked one."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Cache(Generic[_Key, _T]):
    """The most recently used values, at most `size` of them. Thread-safe; no value may be None."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[_Key, _T] = OrderedDict()
        self._lock = Lock()

    def get(self, key: _Key) -> _T | None:
        """The value of a key; None if it is not cached (any more)."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: _Key, value: _T) -> None:
        """Cache a value; the least recently used one is dropped if there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)


class OneThread:
    """Runs all its calls on one thread, one after the other; a forked child gets its own thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.renew()
        _here.add(self)

    def renew(self) -> None:
        """Replace the executor; its thread starts with the first call."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=self._name)

    def run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Call `work` on the thread and wait; returns its result or raises its error."""
        return self.submit(work, *arguments).result()

    def submit(self, work: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Call `work` on the thread, without waiting for it."""
        return self._executor.submit(work, *arguments)


class Batches(Generic[_Item, _T]):
    """Computes single items on a thread, in batches of those that come while it is busy; one alone never waits.

    `work` turns a list of items into as many results. An item that it fails with does not affect the others: if a batch
    raises, each of its items is computed alone. In a forked child, no item is waiting.
    """

    def __init__(self, thread: OneThread, work: Callable[[list[_Item]], Iterable[_T]], most: int) -> None:
        """`most` is the largest number of items in a batch."""
        self._thread, self._work, self._most = thread, work, most
        self.renew()
        _here.add(self)

    def renew(self) -> None:
        """Forget the items that are waiting."""
        self._waiting: deque[tuple[_Item, Future[_T]]] = deque()

    def run(self, item: _Item) -> _T:
        """Compute the result of an item; returns it, or raises the error of `work` for this item."""
        future: Future[_T] = Future()
        self._waiting.append((item, future))
        try:
            # A call for each item, so that others have their turn on the thread; after a batch, some find nothing left.
            self._thread.submit(self._next)
            return future.result()
        except BaseException:
            future.cancel()  # nobody waits for it any more
            raise

    def _next(self) -> None:
        waiting = self._waiting
        taken = [waiting.popleft() for _ in range(min(len(waiting), self._most))]  # only this thread takes any away
        if batch := [(item, future) for item, future in taken if future.set_running_or_notify_cancel()]:
            self._compute(batch)

    def _compute(self, batch: list[tuple[_Item, Future[_T]]]) -> None:
        try:
            done = list(zip(batch, self._work([item for item, _ in batch]), strict=True))
        except BaseException as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for one in batch:
                    self._compute([one])
            return
        for (_, future), result in done:
            future.set_result(result)


def compute_with(threads: int) -> None:
    """Let children that are forked from now on compute with so many threads, instead of one.

    Only for a process that has never computed anything itself: threads that it has had do not exist in the child.
    """
    global _threads
    _threads = threads


def threads_in_child() -> int:
    """How many threads a forked child may compute with."""
    return _threads


def in_child(renew: Callable[[], None]) -> None:
    """Register `renew` to be called in every child process forked from now on."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=renew)


def _renew_all() -> None:
    for one in list(_here):
        one.renew()


in_child(_renew_all)
