"""The memory of a process, as Linux tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Event, Thread

_EVERY = 0.05  # seconds between two looks


def memory_of(process: int | str = "self") -> dict[str, int]:
    """What /proc says of the memory of a process, in bytes: `RssAnon` is its own, `RssFile` pages of files.

    Empty where there is no /proc, as on macOS. Raises OSError if the process has ended.
    """
    status = Path(f"/proc/{process}/status")
    if not Path("/proc/self/status").exists():
        return {}
    lines = (line.split() for line in status.read_text().splitlines())
    return {line[0].rstrip(":"): 1024 * int(line[1]) for line in lines if line[-1:] == ["kB"]}


def anonymous_peak() -> AbstractContextManager[list[int]]:
    """The largest anonymous memory of this process during the block, in bytes; an empty list if that is not known."""
    return largest(lambda: memory_of()["RssAnon"]) if memory_of() else nullcontext([])


@contextmanager
def largest(look: Callable[[], int], every: float = _EVERY) -> Iterator[list[int]]:
    """The largest number that `look` gives during the block, as a list of one, which is final after the block."""
    peak, over = [look()], Event()

    def watch() -> None:
        while not over.wait(every):
            peak[0] = max(peak[0], look())

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
