"""Near-duplicates in a gallery: the same picture re-encoded, resized, brightened or slightly cropped.

Two rows are near-duplicates if the pixel comparison `same` agrees and the cosine similarity of their embeddings reaches
a threshold. The pixels decide: at the default threshold, GATE, the cosine only chooses the pairs worth comparing. Rows
are processed in order: each joins the first earlier leader that it is a near-duplicate of, or becomes a leader itself.
So every member matches its leader, and chains of small changes do not form a group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from retrieval.arrays import Ids, Mask, Vectors
from retrieval.console import Progress
from retrieval.errors import QueryError
from retrieval.stores.base import MISSING, Store
from retrieval.stores.faiss import FaissStore

GATE = 0.6
"""The least cosine similarity of a pair whose pixels are compared: hardly any copy that the pixels show is below it."""
CLOSE = (
    0.95  # cosine from which on slightly brighter, darker and cropped copies count too; below, the pixels must equal
)
_ROUNDING = 2e-6  # rounding error of float32 dot products
_AXES = 96  # dimensions of the projection for the upper bound
_SAMPLE = 512  # rows used to compute the projection
_BLOCK_BYTES = 2**25  # memory for a block of scores
_NEIGHBOURS = 33  # neighbours taken from an approximate index: the row itself and 32 others
_READ = 4096  # vectors read at a time


class Same(Protocol):
    """The comparison of pixels: `Pictures(gallery).same` compares thumbnails."""

    def __call__(self, row: int, others: Ids, strict: Mask, /) -> Mask:
        """(N,) bool: which of the other rows (N,) show the same picture as `row`; `strict` (N,): with equal tones."""


Likely = Callable[[Ids, slice, Mask], Mask]
"""(M, N) bool: which pairs of rows (M,) and others `Same` may accept; the mask (M, N): those not compared strictly."""
_Near = Iterator[tuple[int, Ids]]  # pairs of a position and its candidate near-duplicates, ascending


@dataclass(frozen=True)
class Group:
    """A group of near-duplicate rows: the leader first, then its near-duplicates in ascending order."""

    rows: list[int]
    scores: list[float]
    """Cosine similarity of each row to the leader, in [-1, 1]; 1 for the leader itself."""


def fold(rows: Ids, vectors: Vectors, same: Same, threshold: float = GATE) -> Ids:
    """Fold near-duplicate hits together: find the leader of each hit.

    `rows` (K,) are gallery rows, best first, and `vectors` (K, D) their float32 unit vectors. Returns (K,) int64: the
    position in `rows` of each hit's leader; a leader points to itself. Raises QueryError for a threshold outside
    [GATE, 1].
    """
    check_threshold(threshold)
    rows = np.asarray(rows, np.int64)
    scores = vectors @ vectors.T
    near = np.triu(scores >= threshold - _ROUNDING, 1)
    leaders = np.arange(len(rows))

    def alike(one: int, others: Ids) -> Mask:
        return agreeing(same, int(rows[one]), rows[others], scores[one, others], threshold)

    _Leaders(leaders, alike).take(
        (int(position), np.flatnonzero(near[position])) for position in np.flatnonzero(near.any(axis=1))
    )
    return leaders


def find_groups(
    store: Store,
    same: Same,
    threshold: float = GATE,
    progress: Progress | None = None,
    likely: Likely | None = None,
    pairs: Iterable[tuple[int, Ids]] = (),
) -> list[Group]:
    """Groups of near-duplicates in a gallery, sorted by size (largest first), then by leader row.

    With an exact index, all pairs of rows are compared in bounded memory. With an approximate one, each row is compared
    with its 32 nearest neighbours and their leaders. With `likely`, an exact search skips the other pairs cheaply.
    `pairs` are further near-duplicates: a row and others, in any order. `progress` gets the rows done and the total.
    Raises QueryError for a threshold outside [GATE, 1].
    """
    check_threshold(threshold)
    also = _both_ways(pairs)
    leaders = np.arange(len(store))

    def alike(one: int, others: Ids) -> Mask:
        found = agreeing(same, one, others, _cosines(store, one, others), threshold)
        return found | np.isin(others, also[one]) if one in also else found

    by_search = isinstance(store, FaissStore) and store.effort is not None
    look = _searched if by_search else _bounded
    near = look(store, threshold, leaders, progress, likely)
    _Leaders(leaders, alike).take((row, np.union1d(them, also[row]) if row in also else them) for row, them in near)
    return _groups(store, leaders)


def agreeing(same: Same, row: int, others: Ids, cosines: Vectors, threshold: float) -> Mask:
    """(N,) bool: which of the other rows (N,) are near-duplicates of `row`, given their cosine similarities (N,).

    Below CLOSE, `same` must agree strictly: there, many more pairs are compared.
    """
    found: Mask = cosines >= threshold - _ROUNDING
    if found.any():
        found[found] = same(row, others[found], cosines[found] < CLOSE - _ROUNDING)
    return found


def check_threshold(threshold: float) -> None:
    """Raise QueryError unless the near-duplicate threshold is in [GATE, 1]."""
    if not GATE <= threshold <= 1:
        raise QueryError(f"the near-duplicate threshold must be a cosine similarity from {GATE} to 1, not {threshold}.")


class _Leaders:
    """Greedy grouping: a row joins the first earlier leader that it matches; otherwise it becomes a leader."""

    def __init__(self, leaders: Ids, alike: Callable[[int, Ids], Mask]) -> None:
        """`leaders` (N,) initially holds 0..N-1 and is modified in place."""
        self._leaders = leaders
        self._alike = alike

    def take(self, near: _Near) -> None:
        """Process positions in ascending order; each pair must appear in the candidates of at least one of the two."""
        leaders = self._leaders
        for position, others in near:
            if not len(others) or leaders[position] != position:
                continue
            # Earlier candidates stand for their leaders, which may match even if they are not candidates themselves.
            # Of the later candidates, take only those that have not joined a group.
            before = np.unique(leaders[others[others < position]])
            after = others[(others > position) & (leaders[others] == others)]
            if len(before) and (like := before[self._alike(position, before)]).size:
                leaders[position] = like[0]
            elif len(after):
                leaders[after[self._alike(position, after)]] = position


def _both_ways(pairs: Iterable[tuple[int, Ids]]) -> dict[int, Ids]:
    """Row -> its partners, for each row of each pair."""
    partners: dict[int, set[int]] = defaultdict(set)
    for row, others in pairs:
        for other in others.tolist():
            partners[row].add(other)
            partners[other].add(row)
    return {row: np.array(sorted(others), np.int64) for row, others in partners.items()}


def _bounded(store: Store, threshold: float, leaders: Ids, progress: Progress | None, likely: Likely | None) -> _Near:
    """Candidates among all pairs, from an upper bound of the cosine similarity that costs a tenth as much.

    For an orthonormal projection P with residual r, Cauchy-Schwarz gives a.b = Pa.Pb + ra.rb <= Pa.Pb + |ra| |rb|,
    which is a dot product in _AXES + 1 dimensions. The bound misses no pair.
    """
    size = len(store)
    short = _shortened(store)
    block = int(np.clip(_BLOCK_BYTES // (4 * size), 16, 512)) if size else 1
    for start in range(0, size, block):
        mine = start + np.flatnonzero(leaders[start : start + block] == np.arange(start, min(start + block, size)))
        if len(mine):
            cosines = short[mine] @ short[start:].T
            near = cosines >= threshold - _ROUNDING
            if likely:
                near &= likely(mine, slice(start, size), cosines >= CLOSE - _ROUNDING)
            at, others = np.divmod(np.flatnonzero(near), near.shape[1])  # faster than `nonzero` of a matrix
            others += start
            later = (others > mine[at]) & (leaders[others] == others)
            at, others = at[later], others[later]
            yield from zip(mine.tolist(), np.split(others, np.searchsorted(at, np.arange(1, len(mine)))), strict=True)
        if progress:
            progress(min(start + block, size), size)


def _searched(
    store: Store, threshold: float, leaders: Ids, progress: Progress | None, _: Likely | None = None
) -> _Near:
    """Candidates among the nearest neighbours in the index."""
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
    """(N, _AXES + 1) float32: each vector's projection on the leading axes of a sample, and its residual norm."""
    size = len(store)
    sample = store.vectors(np.sort(np.random.default_rng(0).permutation(size)[:_SAMPLE]))
    _, mix = np.linalg.eigh(sample @ sample.T)
    # The bound needs orthonormal axes, but axes of near-zero eigenvalues are not accurate enough: hence QR.
    axes = np.linalg.qr(sample.T @ mix[:, ::-1][:, :_AXES])[0]
    short = np.empty((size, axes.shape[1] + 1), np.float32)
    for start in range(0, size, _READ):
        vectors = store.vectors(np.arange(start, min(start + _READ, size)))
        short[start : start + _READ, :-1] = on_axes = vectors @ axes
        left = vectors - on_axes @ axes.T
        short[start : start + _READ, -1] = np.sqrt(np.einsum("ij,ij->i", left, left))
    return short


def _cosines(store: Store, row: int, others: Ids) -> Vectors:
    """(N,) float32 cosine similarities between a row and others."""
    mine = store.vectors(np.array([row]))[0]
    parts = [store.vectors(others[at : at + _READ]) @ mine for at in range(0, len(others), _READ)]
    cosines: Vectors = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return cosines


def _groups(store: Store, leaders: Ids) -> list[Group]:
    """The groups with at least two members."""
    order = np.argsort(leaders, kind="stable")  # stable, so each leader comes first in its group
    starts = np.flatnonzero(np.diff(leaders[order], prepend=-1))
    groups = []
    for rows in np.split(order, starts[1:]):
        if len(rows) > 1:
            cosines = np.clip(_cosines(store, int(rows[0]), rows[1:]), -1, 1)
            groups.append(Group(rows.tolist(), [1.0, *cosines.tolist()]))
    return sorted(groups, key=lambda group: (-len(group.rows), group.rows[0]))
