"""Synthetic vectors drawn around real embeddings, to benchmark an index with more rows than there are images.

White noise on the sphere is a bad test: all neighbours are equally far, so no index can skip anything. Noisy copies of
real vectors are bad in the opposite way: the neighbours of a copy are the other copies of the same vector. Here a row
starts at a real vector and moves by a random Gaussian combination of the differences to its near neighbours, that is,
by a draw from the local covariance (dense regions stay dense), plus a small draw from the global covariance.
_SPREAD and _HAZE were chosen by drawing as many rows as there are real vectors: the cosines to the first and the tenth
neighbour, and the local intrinsic dimension, then come out close to those of the real vectors.
"""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np

from retrieval.arrays import Ids, Vectors

_NEIGHBOURS = 32
_MIXED = 8
_SPREAD = 0.7
_HAZE = 0.35
_CHUNK = 32_768


class Cloud:
    """Draws unit vectors of dimension `dim` around real ones, (N, D) float32, N at least 2."""

    def __init__(self, real: Vectors, dim: int) -> None:
        self._base = project(real, dim)
        self._spread = self._base.std(axis=0)
        count = min(_NEIGHBOURS, len(real) - 1)
        nearest: Ids = faiss.knn(self._base, self._base, count + 1, faiss.METRIC_INNER_PRODUCT)[1]
        self._near = nearest[:, 1:]

    def draw(self, rows: int, seed: int) -> Vectors:
        """(rows, dim) float32 unit vectors, reproducible by seed."""
        drawn = np.empty((rows, self._base.shape[1]), np.float32)
        self.draw_into(drawn, seed)
        return drawn

    def draw_into(self, drawn: Vectors, seed: int) -> Ids:
        """Fill (N, dim) float32, also on disk, with the same; returns the real vector that each started at, (N,)."""
        starts, at = np.empty(len(drawn), np.int64), 0
        for vectors, places in self.pieces(len(drawn), seed):
            chunk = slice(at, at := at + len(vectors))
            drawn[chunk], starts[chunk] = vectors, places
        return starts

    def pieces(self, rows: int, seed: int) -> Iterator[tuple[Vectors, Ids]]:
        """What `draw` gives, in pieces, with the numbers of the real vectors that the rows started at."""
        rng = np.random.default_rng(seed)
        for at in range(0, rows, _CHUNK):
            yield self._draw(min(_CHUNK, rows - at), rng)

    def _draw(self, rows: int, rng: np.random.Generator) -> tuple[Vectors, Ids]:
        start = rng.integers(len(self._base), size=rows)
        weights = rng.standard_normal((rows, _MIXED), np.float32) * np.float32(_SPREAD / np.sqrt(_MIXED))
        vectors = self._base[start] * (1 - weights.sum(axis=1, keepdims=True))
        for column in range(_MIXED):
            neighbour = self._near[start, rng.integers(self._near.shape[1], size=rows)]
            vectors += weights[:, column : column + 1] * self._base[neighbour]
        vectors += rng.standard_normal(vectors.shape, np.float32) * self._spread * np.float32(_HAZE)
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit, start


def project(real: Vectors, dim: int) -> Vectors:
    """Project vectors to their `dim` leading axes and renormalise (not centred, which preserves cosines best).

    Shorter vectors are padded with zeros, which preserves cosines exactly.
    """
    if real.shape[1] <= dim:
        return np.pad(real, ((0, 0), (0, dim - real.shape[1])))
    _, axes = np.linalg.eigh((real.T @ real).astype(np.float64))
    projected = real @ axes[:, ::-1][:, :dim].astype(np.float32)
    unit: Vectors = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    return unit
