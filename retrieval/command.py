"""What the command lines have in common."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from retrieval.errors import LookalikeError


def run_command(task: Callable[[], None], interrupted: str) -> int:
    """Run a command to its exit status: 0 if it worked, 1 with one line on standard error if it did not.

    130 after Ctrl-C, with what is said in `interrupted`. Keeps `datasets` from drawing bars of its own.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("datasets").setLevel(logging.ERROR)
    try:
        task()
    except (LookalikeError, OSError, KeyboardInterrupt) as error:
        if _is_interrupt(error):
            print(f"interrupted; {interrupted}", file=sys.stderr)
            return 130
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or came up on the way out after it, as when a file was just being closed."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
