"""Large pictures are decoded few at a time in a server, so that searches with ordinary ones need not wait for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from retrieval.errors import ImageError


class Lane:
    """At most `at_once` large pictures are decoded, and `waiting` wait for that, at most `patience` seconds."""

    def __init__(self, at_once: int, waiting: int, patience: float = 20.0) -> None:
        self._places = threading.Semaphore(at_once + waiting)
        self._turns = threading.Semaphore(at_once)
        self._settings = at_once, waiting, patience

    def renewed(self) -> Lane:
        """The same, with nobody in it: for a forked child."""
        return Lane(*self._settings)

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """The turn of the picture called `name`, once it comes. Raises ImageError if too many are waiting."""
        if not self._places.acquire(blocking=False):
            raise _busy(name)
        try:
            if not self._turns.acquire(timeout=self._settings[2]):
                raise _busy(name)
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._places.release()


def _busy(name: str) -> ImageError:
    return ImageError(
        f"{name} was not decoded: too many other large pictures are waiting; try again in a few seconds, or with fewer "
        "pixels"
    )
