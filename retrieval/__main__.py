"""The command line: python -m retrieval build | search | serve | push and more; see --help."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from retrieval.commands import change, encoders, hub, inspect, search, serve
from retrieval.commands.changing import merging
from retrieval.commands.run import new_app, run_app

GROUPS = tuple(each.commands for each in (change, merging, encoders, search, inspect, serve, hub))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see `run_app`."""
    app = new_app("Image-to-image search.", *GROUPS)
    return run_app(
        app,
        argv,
        "python -m retrieval",
        "a build, add, sync or pull continues where it was if the same command is run again",
    )


if __name__ == "__main__":
    sys.exit(main())
