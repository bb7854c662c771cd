"""Near-duplicates between two galleries, such as the images of a test set that are in the training set too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.arrays import Ids, Mask
from retrieval.console import Progress
from retrieval.evaluation.duplicates import GATE, agreeing
from retrieval.evaluation.variants import changed_pairs
from retrieval.images.compare import Look, Pictures
from retrieval.stores.base import Store

_BLOCK = 256  # rows compared at once
_READ = 4096  # vectors of the reference read at once


@dataclass(frozen=True)
class Copy:
    """A row, the row of the reference that shows the same picture, and their cosine similarity in [-1, 1]."""

    row: int
    other: int
    score: float


@dataclass(frozen=True)
class Side:
    """The vectors and the thumbnails of one of the galleries."""

    store: Store
    pictures: Pictures


def copies_between(
    mine: Side, theirs: Side, threshold: float = GATE, also: Sequence[str] = (), progress: Progress | None = None
) -> list[Copy]:
    """All pairs of near-duplicates, by row, then by score; `also` as in `changed_pairs`."""
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(mine.store), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(mine.store)))
        found |= _copies_of(rows, mine, theirs, threshold)
        if progress:
            progress(int(rows[-1]) + 1, len(mine.store))
    for row, others in changed_pairs(mine.pictures, theirs.pictures, also, progress):
        for other in others.tolist():
            if (row, other) not in found:
                pair = mine.store.vectors(np.array([row]))[0] @ theirs.store.vectors(np.array([other]))[0]
                found[row, other] = float(pair)
    copies = [Copy(row, other, float(np.clip(score, -1, 1))) for (row, other), score in found.items()]
    return sorted(copies, key=lambda copy: (copy.row, -copy.score, copy.other))


def _copies_of(rows: Ids, mine: Side, theirs: Side, threshold: float) -> dict[tuple[int, int], float]:
    """(row, row of the reference) -> cosine similarity, for a block of rows."""
    found: dict[tuple[int, int], float] = {}
    vectors = mine.store.vectors(rows)
    for start in range(0, len(theirs.store), _READ):
        block = np.arange(start, min(start + _READ, len(theirs.store)))
        cosines = vectors @ theirs.store.vectors(block).T
        for row, near in zip(rows.tolist(), cosines, strict=True):
            candidates = np.flatnonzero(near >= threshold - 2e-6)
            look = mine.pictures.look(row)

            def same(_: int, others: Ids, strict: Mask, look: Look = look) -> Mask:
                return theirs.pictures.same_as(look, others, strict)

            agree = agreeing(same, row, block[candidates], near[candidates], threshold)
            found |= {(row, int(block[at])): float(near[at]) for at in candidates[agree]}
    return found
