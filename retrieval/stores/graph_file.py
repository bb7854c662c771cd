"""The graph (HNSW) in an index file: its links must lead to vectors that exist, on a level that they have."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.errors import IntegrityError

_MOST_LEVELS = 64
_AT_ONCE = 1 << 20  # links checked at a time


class Reader(Protocol):
    """The parts of an index file, from front to back."""

    def array(self, kind: str, wanted: int | None) -> npt.NDArray[Any]:
        """A vector of values of a NumPy type; `wanted` is the length that it must have, if it is known."""

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Numbers in a layout of `struct`."""

    def wrong(self, what: str) -> IntegrityError:
        """The error for a file that has, or declares, something else than it should."""


def check_graph(rows: int, file: Reader) -> None:
    """Pass the graph of an index of this many rows; raises IntegrityError if a search could leave it."""
    file.array("<f8", None)  # only used to add vectors
    widths = file.array("<i4", None)  # where the links of each level begin among those of a vector
    if not 1 <= len(widths) <= _MOST_LEVELS or widths[0] != 0 or (np.diff(widths) <= 0).any():
        raise file.wrong(f"has a graph of {len(widths)} levels")
    levels, starts = file.array("<i4", rows), file.array("<u8", rows + 1)
    if rows and not 1 <= levels.min() <= levels.max() < len(widths):
        raise file.wrong(f"has vectors on levels {levels.min()} to {levels.max()} of {len(widths)}")
    if starts[0] != 0 or (np.diff(starts) != widths[levels]).any():
        raise file.wrong("has a graph whose links do not follow each other")
    links = file.array("<i4", int(starts[-1]))
    entry, top, *_ = file.numbers("<5i")
    if (entry, top) != (-1, -1) if not rows else not (0 <= entry < rows and 0 <= top == levels[entry] - 1):
        raise file.wrong(f"has a graph that is entered at vector {entry:,} on level {top:,}")
    for first in range(0, len(links), _AT_ONCE):
        some = links[first : first + _AT_ONCE]
        if some.min() < -1 or some.max() >= rows:
            raise file.wrong(f"has links to vectors {some.min():,} to {some.max():,}, but {rows:,} vectors")
    for level in range(1, len(widths) - 1):
        high = np.flatnonzero(levels > level)
        places = starts[high].astype(np.int64)[:, None] + np.arange(widths[level], widths[level + 1])
        linked = links[places.ravel()]
        if (levels[linked[linked >= 0]] <= level).any():
            raise file.wrong(f"has links on level {level} to vectors that are not on it")
