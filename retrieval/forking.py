"""What keeps working in a forked child (`os.fork`, `multiprocessing`, a DataLoader's workers): locks, and one thread.

A child has only the thread that forked. A lock that another thread held stays locked there for ever, and an executor
waits for ever for a thread that does not exist. Both are made anew in the child.
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
    """A lock that is free in a forked child, whoever held it in the parent."""

    def __init__(self) -> None:
        self.renew()
        _here.add(self)

    def renew(self) -> None:
        """Begin unlocked."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class OneThread:
    """Runs all its work on one thread, one thing after the other; a forked child has a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.renew()
        _here.add(self)

    def renew(self) -> None:
        """Begin without a thread: it starts with the first work."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=self._name)

    def run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """What `work` returns; its errors are raised here."""
        return self._executor.submit(work, *arguments).result()


def in_child(renew: Callable[[], None]) -> None:
    """Have `renew` called in every child that is forked from now on."""
    if hasattr(os, "register_at_fork"):  # there is no fork on Windows
        os.register_at_fork(after_in_child=renew)


def _renew_all() -> None:
    for one in list(_here):
        one.renew()


in_child(_renew_all)
