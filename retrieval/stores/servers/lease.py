"""One `index` at a time, in databases that have no locks: a mark that its holder renews, kept beside the collection.

Two that write their mark at the same moment see, a little later, whose was the last one. A holder that was killed
renews nothing, so its mark is taken over after a while. No clocks of different machines are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex
from threading import Event, Thread

from retrieval.errors import StoreError

RENEWED = 5.0  # seconds between two marks
ABANDONED = 20.0  # seconds without a new mark
SETTLED = 1.0  # seconds until a mark that another one wrote at the same time is seen
FREE = ""

Check = Callable[[], None]
"""Raises StoreError if the collection is no longer held."""


def busy(uri: str) -> StoreError:
    """The error for a collection that another process fills."""
    return StoreError(f"{uri} is being filled by another `index`: wait until it has ended, then run this one again.")


@contextmanager
def leased(uri: str, read: Callable[[], str], write: Callable[[str], None]) -> Iterator[Check]:
    """Hold a collection, whose mark `read` and `write` know; raises StoreError if another process holds it."""
    own, ended, lost = token_hex(8), Event(), Event()
    if (before := read()) != FREE:
        end = time.monotonic() + ABANDONED
        while time.monotonic() < end:
            time.sleep(min(1.0, ABANDONED / 4))
            if (now := read()) == FREE:
                break
            if now != before:
                raise busy(uri)
    write(own)
    time.sleep(SETTLED)
    if read() != own:
        raise busy(uri)

    def renew() -> None:
        count = 0
        while not ended.wait(RENEWED):
            count += 1
            with suppress(StoreError):  # the next one may get through
                if not read().startswith(own):
                    lost.set()
                    return
                write(f"{own} {count}")

    def check() -> None:
        if lost.is_set() or not read().startswith(own):
            raise busy(uri)

    thread = Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()
        with suppress(StoreError):
            if not lost.is_set() and read().startswith(own):
                write(FREE)
