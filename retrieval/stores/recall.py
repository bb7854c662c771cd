"""Recall and latency of an index, compared with exact search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np

from retrieval.arrays import Ids, Rows, Vectors
from retrieval.stores.base import others
from retrieval.stores.faiss import FaissStore

_QUERIES = 50
_AT_ONCE = 16_384  # vectors
Figures = dict[str, Any]


def recall_at_k(found: Rows, truth: Rows) -> float:
    """Recall@k: the share of the exact (Q, k) ids `truth` that are among the (Q, k) ids `found`, in [0, 1].

    Ids below 0 are padding: if there are fewer than k vectors to find, nothing counts as missed.

    >>> recall_at_k(np.array([[1, 2, 3]]), np.array([[3, 1, 7]])).__round__(4)
    0.6667
    """
    hits = [len(np.intersect1d(one, other[other >= 0])) for one, other in zip(found, truth, strict=True)]
    wanted = int((truth >= 0).sum())
    return float(np.sum(hits) / wanted) if wanted else 1.0


def nearest_rows(queries: Vectors, vectors: Vectors, k: int) -> Rows:
    """The k nearest of (N, D) vectors to each query, best first, by numpy: (Q, k) ids; vectors may lie on disk."""
    k = min(k, len(vectors))
    ids, best = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for at in range(0, len(vectors), _AT_ONCE):
        scores = queries @ vectors[at : at + _AT_ONCE].T
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k] if k < scores.shape[1] else np.indices(scores.shape)[1]
        ids = np.concatenate([ids, top + at], axis=1)
        best = np.concatenate([best, np.take_along_axis(scores, top, axis=1)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        ids, best = np.take_along_axis(ids, order, axis=1), np.take_along_axis(best, order, axis=1)
    return ids


def against_exact(store: FaissStore, vectors: Vectors, queries: Vectors, own: Ids | None = None) -> Figures:
    """Recall@10 of a store against exact search of its (N, D) vectors, and the latency of both.

    `queries` are (Q, D) float32 unit rows; `own` (Q,) is the store row of each query, which is not counted, or -1 for
    none. Times are in milliseconds per query, one query at a time on one core.
    """
    own = np.full(len(queries), -1) if own is None else own
    truth = faiss.knn(queries, vectors, min(11, len(vectors)), faiss.METRIC_INNER_PRODUCT)[1]
    with _one_core():
        p50, p95 = latency(lambda query: store.search(query[None], 10), list(queries))
        flat = FaissStore(store.dim)
        flat.add(vectors)
        flat_p50, _ = latency(lambda query: flat.search(query[None], 10), list(queries[:_QUERIES]))
    return {
        "recall@10": recall_at_k(others(own, store.search(queries, 11)[0])[0], others(own, truth)[0]),
        "p50 ms": p50,
        "p95 ms": p95,
        "flat p50 ms": flat_p50,
        "flat p50 / p50": flat_p50 / p50,
    }


def latency(call: Callable[[Any], Any], arguments: list[Any]) -> tuple[float, float]:
    """Median and 95th percentile of the latency in milliseconds, after a warm-up."""
    for argument in arguments[:5]:
        call(argument)
    times = []
    for argument in arguments[:1000]:
        started = time.perf_counter()
        call(argument)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.percentile(times, 50)), float(np.percentile(times, 95))


@contextmanager
def _one_core() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
