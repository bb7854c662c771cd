"""Which rows of a source a part has, and reading only these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from retrieval.console import say
from retrieval.errors import SourceError
from retrieval.sources.base import RawImage, Source


@dataclass(frozen=True)
class Share:
    """One of several parts of a source: rows that follow each other."""

    source: Source
    """The source from the first row of the part on; what the whole source leaves out is not repeated."""
    limit: int | None
    """How many rows the part has; None for the last part, which goes on to the end."""
    total: int
    """The number of rows of all parts."""


def share_of(source: Source, index: int, count: int, limit: int | None) -> Share:
    """The part `index`, from 0, of `count` parts of the first `limit` rows of a source; sizes differ by at most one.

    A source that does not tell how many rows it has is read once to count them; nothing is decoded. Raises SourceError
    unless 0 <= index < count.
    """
    if not 0 <= index < count:
        raise SourceError(f"there is no part {index} of {count}: parts are counted from 0, so the last is {count - 1}.")
    total = source.total if source.total is not None else _counted(source, limit)
    total = total if limit is None else min(total, limit)
    start, stop = (total * number // count for number in (index, index + 1))
    is_open = index == count - 1 and limit is None  # a dataset card may state too few rows
    own = replace(source, rows=_Rows(source, start), total=stop - start, left_out=())
    return Share(own, None if is_open else stop - start, total)


@dataclass(frozen=True)
class _Rows:
    """The rows of a source from `start` on, or after a later position."""

    source: Source
    start: int

    def __call__(self, position: Any = None) -> Iterator[RawImage]:
        between = 0
        if position is None:
            position, between = self.source.seek(self.start) if self.source.seek else (None, self.start)
        rows = self.source.rows() if position is None else self.source.rows(position)
        return islice(rows, between, None)


def _counted(source: Source, limit: int | None) -> int:
    if source.count and (found := source.count()) is not None:
        return found
    say("counting the rows of the source, which does not state how many it has")
    return sum(1 for _ in islice(source.rows(), limit))
