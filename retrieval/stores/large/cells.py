"""Clusters for a large index, in two levels: thousands of centres are trained and found through a few coarse cells.

FAISS compares each vector with each centre. Here a vector is compared only with the centres in the cells nearest to it,
by numpy, whose matrix products are several times as fast as those of FAISS's wheel.
"""

from __future__ import annotations

import math

import numpy as np

from retrieval.arrays import Ids, Vectors

_NEAREST = 4  # cells whose centres a vector is compared with
_COARSE_STEPS, _FINE_STEPS, _LAST_STEPS = 8, 5, 3  # of Lloyd's algorithm
_A_CELL = 256  # vectors that train a cell
AT_ONCE = 16_384  # vectors


class Cells:
    """Centres of unit length, (L, D) float32, grouped into cells, which have centres of unit length of their own."""

    def __init__(self, centres: Vectors, coarse: Vectors) -> None:
        self.coarse = coarse
        self.centres = centres
        self._group()

    @classmethod
    def of(cls, centres: Vectors) -> Cells:
        """Group centres that were trained before."""
        count = _coarse_count(len(centres))
        return cls(centres, _means(centres, count, _COARSE_STEPS, np.random.default_rng(0)))

    @classmethod
    def trained(cls, sample: Vectors, lists: int) -> Cells:
        """Train so many centres on a sample, (N, D) float32 of unit length, N at least `lists`."""
        rng = np.random.default_rng(0)
        count = _coarse_count(lists)
        few = sample[np.sort(rng.permutation(len(sample))[: _A_CELL * count])]
        coarse = _means(few, count, _COARSE_STEPS, rng)
        cell = np.concatenate(
            [(sample[at : at + AT_ONCE] @ coarse.T).argmax(axis=1) for at in range(0, len(sample), AT_ONCE)]
        )
        order = np.argsort(cell, kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(cell, minlength=count))[:-1])
        shares = _shares(np.array([len(each) for each in rows]), lists)
        parts = [_means(sample[own], share, _FINE_STEPS, rng) for own, share in zip(rows, shares, strict=True) if share]
        cells = cls(np.concatenate(parts), coarse)
        for _ in range(_LAST_STEPS):
            near = [cells.nearest(sample[at : at + AT_ONCE]) for at in range(0, len(sample), AT_ONCE)]
            cells.centres = _moved(cells.centres, sample, np.concatenate(near))
            cells._group()
        return cells

    def nearest(self, vectors: Vectors) -> Ids:
        """The number of the nearest centre of each vector, (N,) int64, as far as the nearest cells hold it."""
        scores = vectors @ self.coarse.T
        near = min(_NEAREST, len(self.coarse))
        cells = np.argpartition(-scores, near - 1, axis=1)[:, :near] if near < len(self.coarse) else None
        best, found = np.full(len(vectors), -np.inf, np.float32), np.zeros(len(vectors), np.int64)
        if cells is None:
            return np.asarray((vectors @ self.centres.T).argmax(axis=1), np.int64)
        flat = cells.ravel()
        order = np.argsort(flat, kind="stable")
        ends = np.cumsum(np.bincount(flat, minlength=len(self.coarse)))
        rows = order // near
        for number, (first, last) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
            members, centres = self._members[number], self._grouped[number]
            if first == last or not len(members):
                continue
            own = rows[first:last]
            products = vectors[own] @ centres.T
            places = products.argmax(axis=1)
            values = products[np.arange(len(own)), places]
            better = values > best[own]
            best[own[better]], found[own[better]] = values[better], members[places[better]]
        return np.asarray(found, np.int64)

    def _group(self) -> None:
        cell = (self.centres @ self.coarse.T).argmax(axis=1)
        self._members = [np.flatnonzero(cell == number) for number in range(len(self.coarse))]
        self._grouped = [np.ascontiguousarray(self.centres[own]) for own in self._members]


def _coarse_count(lists: int) -> int:
    return max(1, round(math.sqrt(lists)))


def _shares(sizes: Ids, lists: int) -> Ids:
    """How many centres each cell gets: by its size, at most one a vector, `lists` in all."""
    exact = sizes * (lists / int(sizes.sum()))
    shares = np.minimum(np.floor(exact).astype(np.int64), sizes)
    for place in np.argsort(shares - exact, kind="stable"):
        if shares.sum() == lists:
            break
        shares[place] += shares[place] < sizes[place]
    while shares.sum() < lists:  # cells of few vectors are full
        shares[np.argmax(sizes - shares)] += 1
    return np.asarray(shares, np.int64)


def _means(vectors: Vectors, count: int, steps: int, rng: np.random.Generator) -> Vectors:
    """Spherical k-means over all pairs, started at vectors that are drawn."""
    centres = vectors[np.sort(rng.permutation(len(vectors))[:count])].copy()
    for _ in range(steps if count > 1 else 1):
        nearest = np.concatenate(
            [(vectors[at : at + AT_ONCE] @ centres.T).argmax(axis=1) for at in range(0, len(vectors), AT_ONCE)]
        )
        centres = _moved(centres, vectors, nearest)
    return centres


def _moved(centres: Vectors, vectors: Vectors, nearest: Ids) -> Vectors:
    """Each centre moved to the direction of the mean of its vectors; one without any stays."""
    order = np.argsort(nearest, kind="stable")
    numbers, starts = np.unique(nearest[order], return_index=True)
    moved = centres.copy()
    for at in range(0, len(numbers), _A_CELL):  # sums in pieces: a sorted copy of all vectors would take their memory
        own = numbers[at : at + _A_CELL]
        last = starts[at + _A_CELL] if at + _A_CELL < len(numbers) else len(order)
        sums = np.add.reduceat(vectors[order[starts[at] : last]], starts[at : at + _A_CELL] - starts[at], axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        moved[own] = np.where(lengths > 0, sums / np.maximum(lengths, 1e-30), centres[own])
    return moved
