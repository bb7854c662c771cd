"""Choose the index type for a number of vectors, and tune how much of it a search visits.

Up to 50,000 rows a flat index, which is exact. Above that, an inverted file over 16-bit float vectors: its scores are
cosines to four digits, rows can be removed and restored without loss, and on 1,000,000 x 256 vectors it reaches higher
recall with 524 bytes per vector than a graph (HNSW32) over 8-bit vectors with 528. Above a gibibyte of these, a large
index (`retrieval.stores.large`), which is built in less time and in memory that hardly grows. `nprobe` is the smallest
value that reaches the wanted recall, measured on the given vectors.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import faiss
import numpy as np

from retrieval.arrays import Vectors
from retrieval.stores.base import others
from retrieval.stores.faiss import AUTO, FaissStore, IndexSettings
from retrieval.stores.large.store import REFINED, LargeStore
from retrieval.stores.open import new_store
from retrieval.stores.recall import nearest_rows, recall_at_k

FLAT_UP_TO = 50_000  # rows: a flat search of this many takes about as long as encoding one image
HALF_PRECISION_UP_TO = 2**30  # bytes of 16-bit vectors; above, they are not built in memory and searched by codes
WANTED_RECALL = 0.985  # measured with index rows as queries; the effort that reaches it is then doubled, for new images
_WORTH_DOUBLING = 0.002  # recall gain: 8-bit vectors may never reach the wanted recall, and a full scan would not help
_SAMPLE = 500  # rows used to measure recall
_K = 10  # recall@10
_LARGE_SAMPLE = 250  # the same for a large index: each is compared with all rows
_LARGE_EFFORTS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # lists visited
_TRAINING_ROWS_A_LIST = 40  # recommended for FAISS's k-means; more did not change the recall
_TRAINING_BYTES = 640 * 2**20  # those of 16,384 lists with 256 numbers


def choose_factory(rows: int, dim: int) -> str:
    """The FAISS factory string for this number of vectors and dimension."""
    if rows <= FLAT_UP_TO:
        return "Flat"
    lists = 2 ** round(math.log2(4 * math.sqrt(rows)))
    coarse = f"IVF{lists}_HNSW32" if lists >= 2**14 else f"IVF{lists}"  # this many centroids need an index of their own
    return f"{coarse},SQfp16" if rows * dim * 2 <= HALF_PRECISION_UP_TO else f"{coarse},RaBitQ"


def fit_index(vectors: Vectors, factory: str = AUTO, *, like: FaissStore | None = None) -> FaissStore:
    """Build an index that contains all the vectors, (N, D) float32 of unit length; they may be mapped from disk.

    A large index reads them again when it is saved.

    `like` is an index whose factory and training are reused, unless it was chosen by size and the choice would now be
    different. Raises StoreError for a factory string that FAISS does not know.
    """
    automatic = factory == AUTO if like is None else like.settings.chosen == AUTO
    wanted = choose_factory(*vectors.shape) if automatic else factory
    if like is not None and _serves(like.settings.factory, wanted):
        store = like.emptied()
    else:
        store = new_store(vectors.shape[1], IndexSettings(wanted, chosen=AUTO if automatic else "asked"))
        store.train(_training_sample(vectors, store.lists))
    store.add(vectors)
    return tuned(store, vectors)


def tuned(store: FaissStore, vectors: Vectors, wanted: float = WANTED_RECALL) -> FaissStore:
    """Set the smallest search effort that reaches the wanted recall@10, or stops improving it; stored in `settings`."""
    if isinstance(store, LargeStore):
        return _tuned_large(store, vectors, wanted)
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:_SAMPLE])
    [truth] = others(rows, faiss.knn(vectors[rows], vectors, _K + 1, faiss.METRIC_INNER_PRODUCT)[1])
    effort = store.effort

    def recall(value: int | None = None) -> float:
        if effort and value:
            store.settings = replace(store.settings, search={effort.name: min(value, effort.most)})
        return recall_at_k(others(rows, store.search(vectors[rows], _K + 1)[0])[0], truth)

    if effort is None:
        found = recall()
    else:
        value, found = effort.least, recall(effort.least)
        gained = 1.0
        while found < wanted and gained >= _WORTH_DOUBLING and value < effort.most:
            value, before = 2 * value, found
            found = recall(value)
            gained = found - before
        found = recall(2 * value)  # new images are further from the rows than the rows are from each other
    size = store.size_in_bytes() / len(vectors)
    store.settings = replace(store.settings, recall_at_10=round(found, 4), bytes_per_vector=round(size, 1))
    return store


def _tuned_large(store: LargeStore, vectors: Vectors, wanted: float) -> FaissStore:
    """The same for a large index, whose steps are smaller: twice the effort is twice the time of a search."""
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:_LARGE_SAMPLE])
    [truth] = others(rows, nearest_rows(vectors[rows], vectors, _K + 1))
    found = 0.0
    for nprobe in sorted({min(value, store.lists) for value in _LARGE_EFFORTS}):
        before = found
        store.settings = replace(store.settings, search={"nprobe": nprobe, "refine": REFINED * nprobe})
        found = recall_at_k(others(rows, store.search(vectors[rows], _K + 1)[0])[0], truth)
        if found >= wanted or (before and found - before < _WORTH_DOUBLING):
            break
    size = store.size_in_bytes() / len(vectors)
    store.settings = replace(store.settings, recall_at_10=round(found, 4), bytes_per_vector=round(size, 1))
    return store


def _training_sample(vectors: Vectors, lists: int) -> Vectors:
    """The vectors that the index is trained on, drawn at random: the first rows may all belong to one class."""
    most = max(lists, _TRAINING_BYTES // (4 * vectors.shape[1]))
    count = min(len(vectors), max(lists * _TRAINING_ROWS_A_LIST, 50_000), most)
    return vectors[np.sort(np.random.default_rng(0).permutation(len(vectors))[:count])]


def _serves(have: str, wanted: str) -> bool:
    """Whether an index of type `have` can replace `wanted`: the same type, with list counts within a factor of 4."""
    lists = [int(number) for factory in (have, wanted) for number in re.findall(r"IVF(\d+)", factory)]
    same = re.sub(r"IVF\d+", "IVF", have) == re.sub(r"IVF\d+", "IVF", wanted)
    return same and (not lists or max(lists) < 4 * min(lists))
