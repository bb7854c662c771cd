"""Near-duplicates in a gallery: the same picture, saved anew, resized, brightened or a little cropped.

Two rows are near-duplicates where the cosine of their embeddings reaches a threshold and `pictures` finds the same
picture in both. In the order of the rows, each joins the first leader before it that it is a near-duplicate of, or
becomes a leader: every member is like its leader, and no chain of small changes makes a group.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.arrays import Ids, Mask, Vectors
from retrieval.errors import QueryError
from retrieval.images.gallery import Gallery
from retrieval.stores.base import MISSING, Store
from retrieval.stores.faiss import FaissStore

THRESHOLD = 0.95
LEAST = 0.8  # below, a cosine says little, and most pairs of a gallery would have to be looked at
_ROUNDING = 2e-6  # of float32 sums
_AXES = 96  # of the bound
_SAMPLE = 512  # rows that the axes are those of
_BLOCK_BYTES = 2**25  # of scores at a time
_NEIGHBOURS = 33  # that are looked at in an index that does not look at all: the row itself and 32 others
_READ = 4096  # vectors at a time

Progress = Callable[[int, int], None]
Same = Callable[[int, Ids], Mask]
"""Which of N rows show the same picture as a row; `Pictures(gallery).same` tells by their thumbnails."""

_Near = Iterator[tuple[int, Ids]]  # a position, and those that may be near-duplicates of it, ascending


@dataclass(frozen=True)
class Group:
    """Rows that are near-duplicates of the first of them, which leads; the others ascend."""

    rows: list[int]
    scores: list[float]
    """The cosine of each row to the leader; 1 for the leader."""


def fold(rows: Ids, vectors: Vectors, same: Same, threshold: float = THRESHOLD) -> Ids:
    """Which hit each of some hits is folded into.

    `rows` (K,) are gallery rows, best first, and `vectors` (K, D) their float32 unit vectors. Returns (K,) int64: the
    position, in `rows`, of the leader of each, which is its own where it leads. Raises QueryError for a threshold
    outside [LEAST, 1].
    """
    check_threshold(threshold)
    rows = np.asarray(rows, np.int64)
    scores = vectors @ vectors.T
    near = np.triu(scores >= threshold - _ROUNDING, 1)
    leaders = np.arange(len(rows))
    _Leaders(leaders, lambda one, others: same(int(rows[one]), rows[others])).take(
        (int(position), np.flatnonzero(near[position])) for position in np.flatnonzero(near.any(axis=1))
    )
    return leaders


def find_groups(
    store: Store, same: Same, threshold: float = THRESHOLD, progress: Progress | None = None
) -> list[Group]:
    """The groups of near-duplicates of a gallery, the largest first, then by their leaders' rows.

    All pairs of rows are compared, in bounded memory, unless the index itself does not look at every vector: then a
    row is compared with the 32 that the index finds next to it, and with their leaders. `progress` is told rows done
    and rows in all. Raises QueryError for a threshold outside [LEAST, 1].
    """
    check_threshold(threshold)
    leaders = np.arange(len(store))

    def alike(one: int, others: Ids) -> Mask:
        close: Mask = _cosines(store, one, others) >= threshold - _ROUNDING
        close[close] = same(one, others[close])
        return close

    by_search = isinstance(store, FaissStore) and store.effort is not None
    candidates = _searched if by_search else _bounded
    _Leaders(leaders, alike).take(candidates(store, threshold, leaders, progress))
    return _groups(store, leaders)


def check_threshold(threshold: float) -> None:
    """Raise QueryError unless near-duplicates can be looked for with that threshold."""
    if not LEAST <= threshold <= 1:
        raise QueryError(f"the threshold of near-duplicates is a cosine, from {LEAST} to 1; it is {threshold}.")


def write_csv(groups: list[Group], gallery: Gallery, file: Path) -> None:
    """Write a line a row: the group's number from 1, its size, and the row's id, label, source and cosine."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["group", "size", "id", "label", "source", "cosine"])
        for number, group in enumerate(groups, 1):
            for row, score in zip(gallery.take(group.rows), group.scores, strict=True):
                writer.writerow([number, len(group.rows), row.id, row.label, row.source, f"{score:.4f}"])


class _Leaders:
    """The rule: whoever is alike a leader before it joins the first such; whoever is not leads."""

    def __init__(self, leaders: Ids, alike: Callable[[int, Ids], Mask]) -> None:
        """`leaders` (N,), at first each its own, is filled in place."""
        self._leaders = leaders
        self._alike = alike

    def take(self, near: _Near) -> None:
        """Go through positions in their order; a pair has to be among the candidates of one of its two."""
        leaders = self._leaders
        for position, others in near:
            if leaders[position] != position:
                continue
            # Of those before it the leaders, whose members it may be like without having been found like them; of
            # those after it such as nobody has led yet.
            before = np.unique(leaders[others[others < position]])
            after = others[(others > position) & (leaders[others] == others)]
            if len(before) and (like := before[self._alike(position, before)]).size:
                leaders[position] = like[0]
            elif len(after):
                leaders[after[self._alike(position, after)]] = position


def _bounded(store: Store, threshold: float, leaders: Ids, progress: Progress | None) -> _Near:
    """Candidates among all pairs, by an upper bound of the cosine that costs a tenth of it.

    With orthonormal axes P and what they leave of a vector, r: a.b = Pa.Pb + ra.rb <= Pa.Pb + |ra| |rb| (Cauchy and
    Schwarz), an inner product of as many numbers as there are axes, and one. It misses no pair.
    """
    size = len(store)
    short = _shortened(store)
    block = int(np.clip(_BLOCK_BYTES // (4 * size), 16, 512)) if size else 1
    for start in range(0, size, block):
        free = start + np.flatnonzero(leaders[start:] == np.arange(start, size))
        mine = free[: np.searchsorted(free, start + block)]
        if len(mine):
            near = short[mine] @ short[free].T >= threshold - _ROUNDING
            near &= free > mine[:, None]
            yield from ((int(row), free[found]) for row, found in zip(mine, near, strict=True))
        if progress:
            progress(min(start + block, size), size)


def _searched(store: Store, threshold: float, leaders: Ids, progress: Progress | None) -> _Near:
    """Candidates among the nearest that the index finds."""
    size, block = len(store), 256
    for start in range(0, size, block):
        mine = start + np.flatnonzero(leaders[start : start + block] == np.arange(start, min(start + block, size)))
        if len(mine):
            ids, scores = store.search(store.vectors(mine), min(_NEIGHBOURS, size))
            near = (scores >= threshold - _ROUNDING) & (ids != MISSING) & (ids != mine[:, None])
            yield from ((int(row), np.sort(found[kept])) for row, found, kept in zip(mine, ids, near, strict=True))
        if progress:
            progress(min(start + block, size), size)


def _shortened(store: Store) -> Vectors:
    """(N, _AXES + 1) float32: each vector on the leading axes of a sample, and the length of what they leave of it."""
    size = len(store)
    sample = store.vectors(np.sort(np.random.default_rng(0).permutation(size)[:_SAMPLE]))
    _, mix = np.linalg.eigh(sample @ sample.T)
    # Any orthonormal axes make the bound a bound; QR because those of eigenvalues near zero are hardly that.
    axes = np.linalg.qr(sample.T @ mix[:, ::-1][:, :_AXES])[0]
    short = np.empty((size, axes.shape[1] + 1), np.float32)
    for start in range(0, size, _READ):
        vectors = store.vectors(np.arange(start, min(start + _READ, size)))
        short[start : start + _READ, :-1] = on_axes = vectors @ axes
        left = vectors - on_axes @ axes.T
        short[start : start + _READ, -1] = np.sqrt(np.einsum("ij,ij->i", left, left))
    return short


def _cosines(store: Store, row: int, others: Ids) -> Vectors:
    """(N,) of a row with others."""
    mine = store.vectors(np.array([row]))[0]
    parts = [store.vectors(others[at : at + _READ]) @ mine for at in range(0, len(others), _READ)]
    cosines: Vectors = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return cosines


def _groups(store: Store, leaders: Ids) -> list[Group]:
    """The groups of two and more."""
    order = np.argsort(leaders, kind="stable")  # a leader is the first of its own
    starts = np.flatnonzero(np.diff(leaders[order], prepend=-1))
    groups = []
    for rows in np.split(order, starts[1:]):
        if len(rows) > 1:
            cosines = np.clip(_cosines(store, int(rows[0]), rows[1:]), -1, 1)
            groups.append(Group(rows.tolist(), [1.0, *cosines.tolist()]))
    return sorted(groups, key=lambda group: (-len(group.rows), group.rows[0]))
