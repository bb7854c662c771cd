"""Hot reload: look whether the artifact has changed, open its next version, and serve that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import read_manifest
from retrieval.console import say
from retrieval.errors import LookalikeError, StoreError, first_line
from retrieval.hub.download import resolve
from retrieval.hub.references import is_reference, parse_reference
from retrieval.search import Searcher
from retrieval.ui.serving import Live

LOOK = 1.0  # seconds between two looks at the files
_STORE_AGAIN = 10.0  # seconds until a vector database is asked again for a version

Stamp = tuple[tuple[str, int, int, int], ...]


class Reloader:
    """Keeps `live` up to date with the artifact named `name`, a folder or `owner/name[@revision]`.

    A folder is looked at with `look_at_folder`, the Hub with `look_at_hub`. A version that cannot be opened is reported
    once on standard error, and the earlier one goes on serving; so is one that `sha256` does not pin.
    """

    def __init__(self, live: Live, name: str | Path, sha256: str | None = None) -> None:
        self._live, self._name, self._sha256 = live, str(name), sha256
        self._seen: Stamp | None = None  # at the last look
        self._done: Stamp | None = None  # what is served, or could not be
        self._said = ""
        self._again: float | None = None  # when to try a version again that a vector database did not hold yet

    @property
    def is_on_hub(self) -> bool:
        """Whether the artifact comes from the Hub, whose files in the cache never change."""
        return self._live.now.artifact.commit is not None

    @property
    def can_refresh(self) -> bool:
        """Whether the Hub may have a newer version: not of a commit."""
        return self.is_on_hub and is_reference(self._name) and not parse_reference(self._name).pinned

    def look_at_folder(self) -> bool:
        """Serve what the folder holds now, if that has changed and is not changing any more; whether it did.

        Files that are copied one by one change from look to look: only what two looks have in common is opened.
        """
        folder = self._live.now.artifact.folder
        before, self._seen = self._seen, _stamp(folder)
        if self._again is not None and time.monotonic() > self._again:
            self._done = None
        if self._seen == self._done or self._seen != before:
            return False
        self._done = self._seen
        try:
            if read_manifest(folder)["manifest_sha256"] == self._live.now.revision:
                self._said = ""
                return False
        except (LookalikeError, OSError) as error:
            self._report(error)
            return False
        return self._serve()

    def look_at_hub(self) -> bool:
        """Serve the commit that the branch means now, if it is another one; whether it did."""
        try:
            if resolve(parse_reference(self._name), LAYOUT.manifest) == self._live.now.artifact.commit:
                self._said = ""
                return False
        except LookalikeError as error:
            self._report(error)
            return False
        return self._serve()

    def _serve(self) -> bool:
        try:
            self._again = None
            searcher = Searcher.open(self._name, sha256=self._sha256)
            self._live.replace(searcher)
        except Exception as error:  # whatever is wrong with the new one, the old one goes on
            self._again = time.monotonic() + _STORE_AGAIN if isinstance(error, StoreError) else None
            self._report(error)
            return False
        self._said = ""
        say(f"{self._name} was updated: {len(searcher.gallery):,} images, revision {self._live.now.revision[:12]}")
        return True

    def _report(self, error: Exception) -> None:
        if (said := first_line(error)) != self._said:
            self._said = said
            say(f"{self._name} has changed but cannot be opened, so the version before is served: {said}")


@contextmanager
def reloading(live: Live, name: str | Path, refresh: float | None = None, sha256: str | None = None) -> Iterator[None]:
    """Follow an artifact in a thread until the block ends; on the Hub only with `refresh`, in minutes."""
    reloader, stopped = Reloader(live, name, sha256), Event()
    if reloader.is_on_hub and not (refresh and reloader.can_refresh):
        yield
        return

    def follow() -> None:
        on_hub = reloader.is_on_hub
        while not stopped.wait(refresh * 60 if on_hub and refresh else LOOK):
            reloader.look_at_hub() if on_hub else reloader.look_at_folder()

    thread = Thread(target=follow, name="reload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()


def _stamp(folder: Path) -> Stamp:
    """Inode, size and time of each file of an artifact: other ones mean another content, as good as always."""
    found = []
    for name in dict.fromkeys([*LAYOUT.names(), *LAYOUT.gallery_in(folder), *LAYOUT.extras_in(folder)]):
        try:
            stat = (folder / name).stat()
        except OSError:
            continue
        found.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)
