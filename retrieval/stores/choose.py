"""Which index for how many vectors, and with what effort it is searched.

Flat, which is exact, up to 50,000 rows. Beyond, an inverted file over vectors in 16-bit floats: scores are the cosines
to four digits, rows can be taken out and put back without loss, and on 1,000,000 x 256 it finds more of the true
neighbours in 524 bytes a vector than a graph (HNSW32) with 8-bit vectors does in 528. Where that would still be too
much memory, 8-bit vectors. `nprobe` is as small as the wanted recall allows, measured on the vectors at hand.
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
from retrieval.stores.recall import recall_at_k

FLAT_UP_TO = 50_000  # rows: a flat search of them takes about as long as one image takes in the encoder
HALF_PRECISION_UP_TO = 8 * 2**30  # bytes of vectors in 16 bits; an index above that stores 8
WANTED_RECALL = 0.985  # of rows of the index as queries; the effort that gives it is then doubled for new pictures
_WORTH_DOUBLING = 0.002  # of recall: vectors in 8 bits may never give what is wanted, and a full scan would not help
_SAMPLE = 500  # rows that recall is measured with
_K = 10  # recall@10
_TRAINING_ROWS_A_LIST = 40  # what k-means of FAISS wants; more did not change the recall


def choose_factory(rows: int, dim: int) -> str:
    """The FAISS factory string for so many vectors of so many numbers."""
    if rows <= FLAT_UP_TO:
        return "Flat"
    lists = 2 ** round(math.log2(4 * math.sqrt(rows)))
    coarse = f"IVF{lists}_HNSW32" if lists >= 2**14 else f"IVF{lists}"  # so many centroids want an index of their own
    return f"{coarse},SQfp16" if rows * dim * 2 <= HALF_PRECISION_UP_TO else f"{coarse},SQ8"


def fit_index(vectors: Vectors, factory: str = AUTO, *, like: FaissStore | None = None) -> FaissStore:
    """An index with all the vectors, (N, D) float32, in it.

    `like` is an index whose factory and training are taken over, unless it was chosen by size and another one would
    be chosen now. Raises StoreError for a factory string that FAISS does not know.
    """
    automatic = factory == AUTO if like is None else like.settings.chosen == AUTO
    wanted = choose_factory(*vectors.shape) if automatic else factory
    if like is not None and _serves(like.settings.factory, wanted):
        store = like.emptied()
    else:
        store = FaissStore(vectors.shape[1], IndexSettings(wanted, chosen=AUTO if automatic else "asked"))
        store.train(_training_sample(vectors, store.lists))
    store.add(vectors)
    return tuned(store, vectors)


def tuned(store: FaissStore, vectors: Vectors, wanted: float = WANTED_RECALL) -> FaissStore:
    """The store with the least effort that gives the wanted recall@10, or what more would not add to; it is noted."""
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
        found = recall(2 * value)  # new pictures lie further from the rows than the rows from each other
    size = store.size_in_bytes() / len(vectors)
    store.settings = replace(store.settings, recall_at_10=round(found, 4), bytes_per_vector=round(size, 1))
    return store


def _training_sample(vectors: Vectors, lists: int) -> Vectors:
    """As many vectors as the index learns from, drawn at random: the first ones may all be of a kind."""
    count = min(len(vectors), max(lists * _TRAINING_ROWS_A_LIST, 50_000))
    return vectors[np.sort(np.random.default_rng(0).permutation(len(vectors))[:count])]


def _serves(have: str, wanted: str) -> bool:
    """Whether an index of one kind may go on where another would be made now: a few times too few lists do no harm."""
    lists = [int(number) for factory in (have, wanted) for number in re.findall(r"IVF(\d+)", factory)]
    same = re.sub(r"IVF\d+", "IVF", have) == re.sub(r"IVF\d+", "IVF", wanted)
    return same and (not lists or max(lists) < 4 * min(lists))
