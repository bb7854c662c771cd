"""The command `lookalike`: searching and training behind one door."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from retrieval.__main__ import GROUPS
from retrieval.commands.run import new_app, run_app
from training.commands import commands as training


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see `run_app`."""
    app = new_app(
        "Image-to-image search: build an artifact, search it, serve it, train an encoder for it.", *GROUPS, training
    )
    return run_app(app, argv, "lookalike", "run the same command again to continue (train: add --resume)")


if __name__ == "__main__":
    sys.exit(main())
