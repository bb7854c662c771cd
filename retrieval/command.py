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
    except (LookalikeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return 130
    return 0
