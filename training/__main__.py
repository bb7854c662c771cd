"""The command line: python -m training RECIPE --out DIR | --list | compare DIR... | bench [RECIPE]."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from retrieval.commands.run import HELP, new_app, run_app
from training.commands import commands

_OTHERS = {"compare": "compare", "recipes": "recipes", "bench": "bench-training", "bench-training": "bench-training"}
INTERRUPTED = "run the same command with --resume to continue from the last checkpoint"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the default is `train`. Returns the exit status; see `run_app`."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in _OTHERS:
        words[0] = _OTHERS[words[0]]
    elif not words or words[0] not in (*HELP, "--version", "train"):
        words.insert(0, "train")
    app = new_app("Fine-tune an encoder and build its artifact; compare finished runs; measure speed.", commands)
    return run_app(app, words, "python -m training", INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
