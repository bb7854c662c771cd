"""Which artifact the app serves: replaced by its next version between two answers.

An event takes `Live.now` once and answers from that, so no answer mixes two versions. Rows are numbers of one version:
a page names the version its rows belong to, and `Served.row` finds the same image in the version of today.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.load import Artifact
from retrieval.artifact.parts.map import PCA, pca
from retrieval.errors import ArtifactError, QueryError
from retrieval.forking import Lock
from retrieval.images.door.workers.apart import serve_many
from retrieval.search import Searcher
from retrieval.ui import strings
from retrieval.ui.originals import Originals
from retrieval.ui.pieces.cards import Cards, revision_of
from retrieval.ui.pieces.finder import Finder
from retrieval.ui.pieces.thumbnails import PictureFolder, ThumbnailFiles
from retrieval.ui.server.watched.metrics import METRICS
from retrieval.ui.visit import Visit, carried

_POINTS = 50_000  # of the map: as many as a browser draws smoothly
# Earlier versions whose rows are still understood: at least so many, and more as long as they have few rows in all.
_REMEMBERED, _REMEMBERED_ROWS = 8, 1_000_000
_LEAST_ROWS = 1_000  # that a version counts for, as small ones need memory too


class Served:
    """One version of an artifact, with the pieces of the page that belong to it.

    `earlier` maps earlier versions to their ids in row order, as a column of Arrow.
    """

    def __init__(
        self, searcher: Searcher, folder: PictureFolder, originals: Originals, earlier: dict[str, Any]
    ) -> None:
        if searcher.artifact is None:
            raise ArtifactError("the page needs an artifact: create the Searcher with Searcher.open or Searcher.of.")
        self.searcher = searcher
        searcher.stage = METRICS.stage
        self.artifact: Artifact = searcher.artifact
        self.revision = revision_of(searcher)
        self.thumbnails = ThumbnailFiles(searcher.gallery, folder)
        self.originals = originals
        self.cards = Cards(searcher, self.thumbnails, originals)
        self.find_groups = Finder(searcher)
        self.earlier = earlier
        self._map: tuple[Ids, Vectors] | None = None
        self._lock = Lock()

    def row(self, of: str, row: int) -> int:
        """The row of the image that was `row` in the version `of`.

        Raises QueryError if this version does not have the image any more, or if `of` is unknown.
        """
        if of == self.revision:
            return row
        ids = self.earlier.get(of)
        if ids is None or not 0 <= row < len(ids):
            raise QueryError(strings.UPDATED)
        found = self._row_of(ids[row].as_py())
        if found is None:
            raise QueryError(strings.NO_LONGER)
        return found

    def carried(self, visit: Visit, of: str) -> Visit:
        """A visit to the version `of` in this version, without what this one no longer has."""
        if of == self.revision:
            return visit
        ids = self.earlier.get(of)
        return carried(
            visit, lambda row: None if ids is None else self._row_of(ids[row].as_py()), self.searcher.gallery
        )

    @property
    def map(self) -> tuple[Ids, Vectors]:
        """The rows on the map, and their places (N, 2): all rows, or of a very large gallery an even sample."""
        with self._lock:  # the first visitor computes it; the others wait
            if self._map is None:
                count, stored = len(self.searcher.gallery), self.searcher.map
                rows = np.arange(0, count, -(-count // _POINTS))
                self._map = rows, pca(self.searcher.store.vectors(rows)) if stored is None else stored[rows]
            return self._map

    @property
    def map_method(self) -> str:
        """How the map was made: by the method in the artifact's manifest, or else by PCA."""
        return str(self.artifact.manifest.get("map", {}).get("method", PCA))

    def _row_of(self, image_id: str) -> int | None:
        try:
            return self.searcher.gallery.row_of(image_id)
        except QueryError:
            return None


class Live:
    """The version that is served now, and how it is replaced."""

    def __init__(
        self, searcher: Searcher, originals: Originals | None = None, pictures: Path | str | None = None
    ) -> None:
        """`pictures` is a folder for the pictures of the page, which several processes may share."""
        serve_many()
        self._folder, self.originals = PictureFolder(pictures), originals or Originals()
        self.now = Served(searcher, self._folder, self.originals, {})
        self._followers: list[Callable[[Served], Callable[[], None]]] = []

    @property
    def pictures(self) -> PictureFolder:
        """Where the pictures that the page shows are written."""
        return self._folder

    def on_change(self, prepare: Callable[[Served], Callable[[], None]]) -> None:
        """Call `prepare` with each next version, and what it returns as soon as that version is served."""
        self._followers.append(prepare)

    def replace(self, searcher: Searcher) -> None:
        """Serve another version from the next event on; answers that have begun are finished by the earlier one.

        All that is slow, such as counting values and writing thumbnails, is done before.
        """
        old = self.now
        served = Served(searcher, self._folder, self.originals, _remembered(old))
        warm_up(searcher)
        swap = [prepare(served) for prepare in self._followers]
        self.now = served
        for each in swap:
            each()


def _remembered(last: Served) -> dict[str, Any]:
    """The ids of the last version and of those before it, oldest first, without the ones that are too long ago."""
    kept: dict[str, Any] = {}
    rows = 0
    for of, ids in [(last.revision, last.searcher.gallery.table["id"]), *reversed(last.earlier.items())]:
        rows += max(len(ids), _LEAST_ROWS)
        if len(kept) < _REMEMBERED or rows <= _REMEMBERED_ROWS:
            kept.setdefault(of, ids)
    return dict(reversed(kept.items()))


def warm_up(searcher: Searcher) -> None:
    """Pay what the first search costs before anybody waits for it."""
    picture = searcher.gallery.thumbnail(0)
    searcher.search(picture, k=min(10, len(searcher.gallery)), fold=True)
