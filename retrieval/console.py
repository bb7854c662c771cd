"""Shared parts of the command-line programs: exit statuses, progress bars and messages."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from retrieval.errors import LookalikeError

Progress = Callable[[int, int | None], None]
"""Called with the number of images, or rows, done and their total, or None if the total is unknown."""

# Commands that a checkout of the project starts in another way than `python -m retrieval NAME`.
_IN_A_CHECKOUT = {
    "serve": "python app.py",
    "train": "python -m training",
    "compare": "python -m training compare",
}


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
    if _is_installed():
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


@cache
def _is_installed() -> bool:
    """Whether the distribution is installed; a wheel built in a checkout leaves metadata there, but no RECORD."""
    from importlib.metadata import distributions

    return any(found.read_text("RECORD") for found in distributions(name="lookalike"))


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether the error is Ctrl-C, or was raised during its cleanup, for example while closing a file."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
