"""`sync --watch`: follow a local source until interrupted."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.commands.printing import Bar, print_sync
from retrieval.console import say
from retrieval.errors import SourceError
from retrieval.sources.archives.patterns import is_pattern

if TYPE_CHECKING:
    from retrieval.build.sync import SyncReport
    from retrieval.sources.base import Source


def watch_source(artifact: Path, source: str, opened: Callable[[], Source]) -> None:
    """Sync with a local source until interrupted."""
    place = Path(source).expanduser()
    if not place.exists():
        what = "a pattern: name its folder, or" if is_pattern(source) else "on the Hub:"
        raise SourceError(f"--watch needs a folder or a file, but {source} is {what} sync again when it changes.")
    from retrieval.build.watch import Follower, watch

    def told(report: SyncReport) -> None:
        print_sync(report, dry_run=False)
        sys.stdout.flush()

    ended = []

    def end(*_: object) -> None:
        ended.append(True)
        sys.exit(0)

    # A service manager stops it with SIGTERM: an unfinished step leaves the artifact before it.
    before = signal.signal(signal.SIGTERM, end)
    say(f"watching {source}; Ctrl-C stops")
    try:
        watch(Follower(artifact, place, opened, Bar), place, told)
    except KeyboardInterrupt:  # watchfiles turns whatever a signal raises while it waits into this
        if not ended:
            raise
        sys.exit(0)
    finally:
        signal.signal(signal.SIGTERM, before)
