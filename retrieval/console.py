"""Shared parts of the command-line programs: exit statuses, progress bars, messages, and signals."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from retrieval.errors import LookalikeError
from retrieval.installed import is_installed

Progress = Callable[[int, int | None], None]
"""Called with the number of images, or rows, done and their total, or None if the total is unknown."""

# Commands that a checkout of the project starts in another way than `python -m retrieval NAME`.
_IN_A_CHECKOUT = {
    "serve": "python app.py",
    "train": "python -m training",
    "compare": "python -m training compare",
}

WHOLE = 10.0
"""Seconds from the signal to the end of the process."""
_SIGNALS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]


def run_command(task: Callable[[], None], interrupted: str) -> int:
    """Run a command; returns its exit status: 0 on success, 1 after an error (one line on standard error).

    130 after Ctrl-C, with the message `interrupted`. Disables the progress bars of `datasets`.
    """
    _make_streams_safe()
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        task()
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe; discard the rest, including what Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LookalikeError, OSError, KeyboardInterrupt) as error:
        if _is_interrupt(error):
            print(f"interrupted; {interrupted}", file=sys.stderr)
            return 130
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def writes_all() -> bool:
    """Whether standard output can write every character; a console of Windows, or LANG=C, cannot."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")


def progress_bar(**options: Any) -> Any:
    """A tqdm bar on standard error: redrawn in place, or a line every 10 seconds without a terminal."""
    from tqdm import tqdm

    patience = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(mininterval=patience, maxinterval=patience, **options)


def say(text: str) -> None:
    """Print a status message to standard error at once; results go to standard output."""
    print(text, file=sys.stderr, flush=True)


def command(line: str) -> str:
    """What to type for the command `line`, for messages: where the package is not installed, there is no `lookalike`.

    `serve --artifact DIR` is `lookalike serve --artifact DIR`, or `python app.py --artifact DIR` in a checkout.
    """
    if is_installed():
        return f"lookalike {line}"
    name, space, rest = line.partition(" ")
    return f"{_IN_A_CHECKOUT.get(name, f'python -m retrieval {name}')}{space}{rest}"


def _make_streams_safe() -> None:
    """Let every text be printed: what the encoding of a console lacks, such as cp1252 or ASCII, is escaped.

    Standard streams that are closed are opened on the null device: the next file or socket would take their numbers,
    and get what native libraries print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether the error is Ctrl-C, or was raised during its cleanup, for example while closing a file."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


class Stopping:
    """What SIGTERM and Ctrl-C do, from the start of the command on.

    Until something is served, they end the process in order: SIGTERM with status 0, Ctrl-C as an interruption. After
    `serving`, the first one sets `asked`; the second one, or ten seconds, ends the process at once. Outside the main
    thread, which alone can handle signals, nothing happens.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._clean: Callable[[], None] | None = None
        self._said = ""
        self._before: list[dict[int, Any]] = []  # for each block inside which it is entered

    def __enter__(self) -> Self:
        """Handle the signals until the end of the block; blocks may be nested."""
        main = threading.current_thread() is threading.main_thread()
        first = main and not any(self._before)
        self._before.append({number: signal.signal(number, self._handle) for number in _SIGNALS} if first else {})
        return self

    def __exit__(self, *_: object) -> None:
        before = self._before.pop()
        if not self.asked.is_set():
            for number, handler in before.items():
                signal.signal(number, handler)

    def serving(self, clean: Callable[[], None], said: str) -> None:
        """From now on, what has begun is finished first, and the sentence `said` says so; `clean` removes what must not
        stay behind."""
        self._clean, self._said = clean, said

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._clean is None:
            if number == signal.SIGTERM:
                sys.exit(0)  # a normal exit deletes temporary files
            raise KeyboardInterrupt
        if self.asked.is_set():
            self._end(128 + number)
        self.asked.set()
        with suppress(OSError, ValueError):  # nobody reads standard error any more
            if self._said:
                say(self._said)
        late = threading.Timer(WHOLE - 0.5, self._end, [0])
        late.daemon = True
        late.start()

    def _end(self, status: int) -> None:
        try:
            if self._clean is not None:
                self._clean()
        finally:
            os._exit(status)  # threads that compute would be waited for
