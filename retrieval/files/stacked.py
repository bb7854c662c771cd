"""Many vectors as one array: in memory if they are few, else in a file that is mapped, so that memory is bounded.

What is read of a mapped file is in the system's file cache, which it can drop at any time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from retrieval.arrays import Rows, Vectors
from retrieval.errors import ArtifactError
from retrieval.files.storing import storing

IN_MEMORY = 64 * 2**20  # bytes of vectors that are held in memory
_AT_ONCE = 8 * 2**20  # bytes copied at a time


def stacked(folder: Path, count: int, dim: int, parts: Iterable[Vectors]) -> Vectors:
    """(N, D) float32: the parts below each other, N rows in all; read-only if they are in a file.

    The file lies in `folder`, without a name where the system has such files, and ends with the array. Raises
    ArtifactError if there is no room for it.
    """
    if count * dim * 4 <= IN_MEMORY:
        vectors, at = np.empty((count, dim), np.float32), 0
        for part in parts:
            vectors[at : at + len(part)] = part
            at += len(part)
        return vectors
    needed = count * dim * 4
    with storing(folder / "vectors", ArtifactError, needed=needed), tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            file.write(np.ascontiguousarray(part, np.float32).data)
        file.flush()
        mapped = np.memmap(file, np.float32, "r", shape=(count, dim))
        return mapped.view(np.ndarray)  # an ordinary array, which keeps the file open


def taken(folder: Path, vectors: Vectors, rows: Rows) -> Vectors:
    """(M, D) float32: the vectors of these rows (M,), as `stacked` holds them."""
    step = rows_at_once(vectors.shape[1])
    pieces = (vectors[rows[at : at + step]] for at in range(0, len(rows), step))
    return stacked(folder, len(rows), vectors.shape[1], pieces)


def pieces(count: int, dim: int) -> Iterator[slice]:
    """Slices of `count` rows, each of some megabytes of vectors of this dimension."""
    step = rows_at_once(dim)
    return (slice(at, min(at + step, count)) for at in range(0, count, step))


def rows_at_once(dim: int) -> int:
    """How many vectors of this dimension are a few megabytes."""
    return max(1, _AT_ONCE // (4 * dim))
