"""Retrieval metrics: pure functions of vectors and labels, leave-one-out, in chunks (never an N x N matrix).

Every image is a query once; all the others are ranked by cosine; an image with the query's label is relevant. With
R the number of relevant images: R-precision and MAP@R as in Musgrave et al., "A Metric Learning Reality Check"
(arXiv:2003.08505), mAP over the whole ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.errors import QueryError

_CHUNK = 128  # queries ranked at a time, at most
_CELLS = 2**21  # of a query and an image ranked at a time, at about 30 bytes each: memory does not grow with the images
MAX_QUERIES = 20_000  # more images than this: so many are drawn as queries, and the count is stated
_MOST_PAIRS = 400_000_000  # of queries and images, some minutes on two cores: fewer queries where there are more images
_LEAST_QUERIES = 1_000

Relevance = npt.NDArray[np.bool_]


def hit_at_k(relevant: Relevance, k: int) -> npt.NDArray[np.float64]:
    """(Q, N) ranked relevance to (Q,): 1 where one of the first k is relevant, else 0.

    >>> hit_at_k(np.array([[False, True], [False, False]]), 2).tolist()
    [1.0, 0.0]
    """
    return np.asarray(relevant[:, :k].any(axis=1), np.float64)


def precision_at_k(relevant: Relevance, k: int) -> npt.NDArray[np.float64]:
    """(Q, N) ranked relevance to (Q,): the share of the first k that are relevant, in [0, 1].

    Divided by k also where fewer than k relevant images exist.

    >>> precision_at_k(np.array([[True, False, True, True]]), 4).tolist()
    [0.75]
    """
    return np.asarray(relevant[:, :k].sum(axis=1) / k, np.float64)


def r_precision(relevant: Relevance) -> npt.NDArray[np.float64]:
    """(Q, N) ranked relevance to (Q,): the share of the first R that are relevant, R being all that are.

    >>> r_precision(np.array([[True, False, True, False]])).tolist()
    [0.5]
    """
    total = relevant.sum(axis=1)
    within = np.arange(relevant.shape[1]) < total[:, None]
    return np.asarray((relevant & within).sum(axis=1) / np.maximum(total, 1), np.float64)


def average_precision(relevant: Relevance) -> npt.NDArray[np.float64]:
    """(Q, N) ranked relevance to (Q,): the mean, over the relevant ranks, of the precision at that rank.

    >>> average_precision(np.array([[True, False, True, False]])).round(4).tolist()
    [0.8333]
    """
    return _mean_precision(relevant, relevant.sum(axis=1))


def map_at_r(relevant: Relevance) -> npt.NDArray[np.float64]:
    """(Q, N) ranked relevance to (Q,): average precision with the ranks after R counted as misses.

    >>> map_at_r(np.array([[True, False, True, False]])).tolist()
    [0.5]
    """
    total = relevant.sum(axis=1)
    within = np.arange(relevant.shape[1]) < total[:, None]
    return _mean_precision(relevant & within, total)


def _mean_precision(relevant: Relevance, total: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    precision = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
    return np.asarray((precision * relevant).sum(axis=1) / np.maximum(total, 1), np.float64)


def leave_one_out(
    vectors: npt.NDArray[np.float32], labels: Sequence[str | None], *, seed: int = 0
) -> dict[str, float | int]:
    """Figures over all the images that have a label which another image has too.

    `vectors` (N, D) float32 unit rows. Returns hit@1, hit@5, P@1, P@5, P@10, mAP, MAP@R and R-precision, each in
    [0, 1], and how many `queries`, `images` and `labels` they are made from. Raises QueryError without such labels.
    """
    has_label = np.array([label is not None for label in labels], bool)
    codes = np.full(len(labels), -1)
    codes[has_label] = np.unique([label for label in labels if label is not None], return_inverse=True)[1]
    of_label = np.bincount(codes[has_label], minlength=1)
    queries = np.flatnonzero(has_label & (of_label[codes] > 1))
    if not len(queries):
        raise QueryError(
            "there is nothing to evaluate: no two images have the same label. Build with --label-column, or from "
            "a folder with one sub-folder a class."
        )
    most = min(MAX_QUERIES, max(_LEAST_QUERIES, _MOST_PAIRS // len(vectors)))
    if len(queries) > most:
        queries = np.sort(np.random.default_rng(seed).choice(queries, most, replace=False))
    sums = np.zeros(len(_FIGURES))
    step = max(1, min(_CHUNK, _CELLS // len(vectors)))
    for start in range(0, len(queries), step):
        chunk = queries[start : start + step]
        relevant = _ranked(vectors, codes, chunk)
        sums += [figure(relevant).sum() for figure in _FIGURES.values()]
    figures: dict[str, float | int] = dict(zip(_FIGURES, (sums / len(queries)).tolist(), strict=True))
    return {**figures, "queries": len(queries), "images": len(vectors), "labels": len(set(labels) - {None})}


_FIGURES: dict[str, Any] = {
    "hit@1": lambda relevant: hit_at_k(relevant, 1),
    "hit@5": lambda relevant: hit_at_k(relevant, 5),
    "P@1": lambda relevant: precision_at_k(relevant, 1),
    "P@5": lambda relevant: precision_at_k(relevant, 5),
    "P@10": lambda relevant: precision_at_k(relevant, 10),
    "mAP": average_precision,
    "MAP@R": map_at_r,
    "R-precision": r_precision,
}


def _ranked(
    vectors: npt.NDArray[np.float32], codes: npt.NDArray[np.int64], queries: npt.NDArray[np.int64]
) -> Relevance:
    """(Q, N - 1) bool: whether each of the other images, best first, has the label of the query."""
    scores = vectors[queries] @ vectors.T
    scores[np.arange(len(queries)), queries] = np.inf  # the query comes first, to be cut off
    order = np.argsort(-scores, axis=1, kind="stable")[:, 1:]
    return np.asarray(codes[order] == codes[queries, None], bool)


def recall_at_k(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """(Q, k) ids found and (Q, k) ids of the exact search to the share of the exact ones that were found.

    An id below 0 stands for none: where there are fewer than k to find, nothing is missed.

    >>> recall_at_k(np.array([[1, 2, 3]]), np.array([[3, 1, 7]])).__round__(4)
    0.6667
    """
    hits = [len(np.intersect1d(one, other[other >= 0])) for one, other in zip(found, truth, strict=True)]
    wanted = int((truth >= 0).sum())
    return float(np.sum(hits) / wanted) if wanted else 1.0
