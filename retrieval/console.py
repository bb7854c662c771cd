"""What the command lines have in common."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from retrieval.errors import LookalikeError


def run_command(task: Callable[[], None], interrupted: str) -> int:
    """Run a command to its exit status: 0 if it worked, 1 with one line on standard error if it did not.

    130 after Ctrl-C, with what is said in `interrupted`. Keeps `datasets` from drawing bars of its own.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        task()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has read enough, as `head` has; what is left is not written when Python ends, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LookalikeError, OSError, KeyboardInterrupt) as error:
        if _is_interrupt(error):
            print(f"interrupted; {interrupted}", file=sys.stderr)
            return 130
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def progress_bar(**options: Any) -> Any:
    """A tqdm bar on standard error: one line that moves, or a line now and then where it is no terminal."""
    from tqdm import tqdm

    patience = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(mininterval=patience, maxinterval=patience, **options)


def say(text: str) -> None:
    """A line on standard error, at once: how something goes, and not what it gives."""
    print(text, file=sys.stderr, flush=True)


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or came up on the way out after it, as when a file was just being closed."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
