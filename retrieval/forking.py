"""Fork-safe primitives: a lock and a single-thread executor (`os.fork`, `multiprocessing`, DataLoader workers).

A forked child has only the thread that called fork. A lock held by another thread would stay locked for ever, and an
executor would wait for ever for a thread that does not exist. So both are recreated in the child.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")


_here: weakref.WeakSet[Lock | OneThread] = weakref.WeakSet()


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
        return self._executor.submit(work, *arguments).result()


def in_child(renew: Callable[[], None]) -> None:
    """Register `renew` to be called in every child process forked from now on."""
    if hasattr(os, "register_at_fork"):  # Windows has no fork
        os.register_at_fork(after_in_child=renew)


def _renew_all() -> None:
    for one in list(_here):
        one.renew()


in_child(_renew_all)
