"""Finds the near-duplicates of a gallery for all visitors, and caches them."""

from __future__ import annotations

from retrieval.evaluation.duplicates import Group
from retrieval.forking import Cache, Lock
from retrieval.search import Searcher, find_duplicates

_REMEMBERED = 8  # thresholds


class Finder:
    """Finds groups of near-duplicates, one search at a time, and caches those of the latest thresholds."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._found = Cache[float, list[Group]](_REMEMBERED)
        self._lock = Lock()  # a second visitor waits for the answer instead of computing it too

    def __call__(self, threshold: float) -> list[Group]:
        """The groups; raises QueryError as `find_duplicates` does."""
        key = round(float(threshold), 3)
        with self._lock:
            found = self._found.get(key)
            if found is None:
                found = find_duplicates(self._searcher, key)
                self._found.put(key, found)
            return found

    def known(self, threshold: float) -> list[Group] | None:
        """The groups if they are cached, without waiting; else None."""
        return self._found.get(round(threshold, 3))
