"""Watch a source, and sync its artifact in small steps: each takes over what has changed, as a whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event

import watchfiles

from retrieval.build.sync import Hashes, SyncReport, sync_artifact
from retrieval.console import Progress, say
from retrieval.errors import LookalikeError, SourceError
from retrieval.sources.archives.files import PICTURES, as_text
from retrieval.sources.base import Source
from retrieval.sources.folders.walk import walk

SETTLED = 2.0  # seconds for which a file has to stay the same, or it may still be written
_LOOK = 1.0  # seconds between two looks while something is to be done
_RETRY = 10.0  # seconds from an error to the next try, if nothing changes
_ANYWAY = 30.0  # seconds after which to look without an event: not every file system tells of its changes

Stamps = dict[str, tuple[int, int, int]]
"""Source of each file -> inode, size, and time of the last change in nanoseconds."""


class Follower:
    """Syncs an artifact with a folder or file `source`, once for each change that has settled.

    `opened` opens the source, `bar` shows the progress of a sync.
    """

    def __init__(
        self,
        folder: Path,
        source: Path,
        opened: Callable[[], Source],
        bar: Callable[[], AbstractContextManager[Progress]],
    ) -> None:
        self._folder, self._source, self._opened, self._bar = folder, source.resolve(), opened, bar
        self._hashes: Hashes = {}
        self._stamps: Stamps | None = None  # at the last look
        self._since: dict[str, float] = {}  # when each file got its stamp
        self._done: Stamps | None = None  # what the artifact was synced with
        self._failed: Stamps | None = None  # what it could not be synced with
        self._again = 0.0  # when to try that again
        self.pending = True
        """Whether there is something to do that has not settled or has failed."""

    def look(self, now: float) -> SyncReport | None:
        """Sync what has settled; None if there was nothing to do. `now` is the time in seconds since 1970.

        A file that is still being written waits: what the artifact has of it stays. Raises SourceError if the source
        cannot be read, or has none of the artifact's images any more, and the errors of `sync_artifact`; the artifact
        is then unchanged, and the same is tried again at a look 10 seconds later or after the next change.
        """
        found = _stamps_of(self._source)
        self._note(found, now)
        waiting = {name for name in found if now - self._since[name] < SETTLED}
        settled = {name: stamp for name, stamp in found.items() if name not in waiting}
        self.pending = bool(waiting) or settled != self._done
        if settled == self._done or (settled == self._failed and now < self._again) or (waiting and not settled):
            return None
        # A table or an archive describes other files: they cannot be read without it.
        if any(Path(name).suffix.lower() not in PICTURES or name.startswith(("zip://", "tar://")) for name in waiting):
            return None
        self._failed, self._again = settled, now + _RETRY
        report = self._synced(waiting)
        self._failed, self._done, self.pending = None, settled, bool(waiting)
        return None if report.is_empty else report

    def _note(self, found: Stamps, now: float) -> None:
        """Remember since when each file is what it is now; a renamed one is not new."""
        known = set((self._stamps or {}).values())
        since = {}
        for name, stamp in found.items():
            if self._stamps is None:
                since[name] = min(stamp[2] / 1e9, now)
            elif self._stamps.get(name) == stamp:
                since[name] = self._since[name]
            else:
                since[name] = 0.0 if stamp in known and name not in self._stamps else now
        self._stamps, self._since = found, since

    def _synced(self, waiting: set[str]) -> SyncReport:
        if not self._source.exists():
            raise SourceError(f"{self._source} is not there at the moment.")
        source = self._opened()
        for left in source.left_out:
            if "cannot be listed" in left.reason:  # a removed disk, for example
                raise SourceError(f"{left.name}: {left.reason}")
        plan = sync_artifact(self._folder, source, dry_run=True, waiting=waiting, hashes=self._hashes)
        if plan.is_empty:
            return plan
        if not (plan.unchanged or plan.changed):
            raise SourceError(
                f"{self._source} has none of the images of {self._folder} any more, so nothing was changed; if this is "
                "right, sync once without --watch."
            )
        with self._bar() as bar:
            return sync_artifact(self._folder, source, progress=bar, waiting=waiting, hashes=self._hashes)


def watch(follower: Follower, source: Path, told: Callable[[SyncReport], None], stopped: Event | None = None) -> None:
    """Look whenever the source changes, until `stopped` is set; `told` gets the report of each sync.

    Errors are printed to standard error, each once until something works again.
    """
    said, last = "", 0.0
    for changed in _ticks(source, stopped or Event()):
        now = time.time()
        if not (changed or follower.pending or now - last > _ANYWAY):
            continue
        last = now
        try:
            report = follower.look(now)
        except (LookalikeError, OSError) as error:
            if str(error) != said:
                said = str(error)
                say(f"error: {said}")
                say("still watching; the artifact is unchanged")
            continue
        if report:
            said = ""
            told(report)


def _ticks(source: Path, stopped: Event) -> Iterator[bool]:
    """Whether the source has changed, at once or else every second. It may vanish and come back."""
    yield True
    while not stopped.is_set():
        try:
            place = source.stat().st_ino
            ticks = watchfiles.watch(
                source if source.is_dir() else source.parent,
                watch_filter=None,
                stop_event=stopped,
                rust_timeout=int(_LOOK * 1000),
                yield_on_timeout=True,
                ignore_permission_denied=True,
            )
            for changes in ticks:
                yield bool(changes)
                if source.stat().st_ino != place:
                    break
        except (OSError, RuntimeError):  # it is gone, or the system watches no more files
            stopped.wait(_LOOK)
            yield True


def _stamps_of(source: Path) -> Stamps:
    """The files of a folder that is watched, or the file itself; empty if there is nothing."""
    if not source.is_dir():
        files = [(source.name, source)] if source.is_file() else []
    else:
        files = [(as_text(file.source), Path(file.path.rpartition("::")[2])) for file in walk(source).files]
    found = {}
    for name, path in files:
        try:
            stat = path.stat()
        except OSError:  # removed just now
            continue
        found[name] = stat.st_ino, stat.st_size, stat.st_mtime_ns
    return found
