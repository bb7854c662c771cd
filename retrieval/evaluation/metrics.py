"""Retrieval metrics: pure functions of vectors and labels, computed in chunks (never an N x N matrix).

A query ranks the gallery by cosine similarity; images of the same class are relevant. In leave-one-out evaluation,
every image is a query once and all the others are the gallery. R is the number of relevant images. R-precision and
MAP@R follow Musgrave et al., "A Metric Learning Reality Check" (arXiv:2003.08505); mAP covers the whole ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.arrays import Mask, Numbers, Rows, Vectors
from retrieval.errors import QueryError
from retrieval.evaluation.large.labels import Labels, sample

_CHUNK = 128  # most queries ranked at a time
_CELLS = 2**21  # most query-image pairs ranked at a time, at about 30 bytes each: memory does not grow with the gallery
MAX_QUERIES = 20_000  # of more images, this many are sampled as queries, and the count is reported
_MOST_PAIRS = 400_000_000  # most query-image pairs, some minutes on two cores: a larger gallery gets fewer queries
_LEAST_QUERIES = 1_000
MOST_IMAGES = 400_000  # of more, a sample is evaluated
_SAMPLED, _SAMPLED_BYTES = 100_000, 128 * 2**20  # images of the sample, at most, and bytes of their vectors
LADDER = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # values of k in the hit@k and recall@k curves
_RESAMPLES_AT_ONCE = 100  # bootstrap resamples per batch, each with 8 bytes per query


def hit_at_k(relevant: Mask, k: int) -> Numbers:
    """(Q, N) ranked relevance to (Q,): 1 if any of the first k is relevant, else 0.

    >>> hit_at_k(np.array([[False, True], [False, False]]), 2).tolist()
    [1.0, 0.0]
    """
    return np.asarray(relevant[:, :k].any(axis=1), np.float64)


def precision_at_k(relevant: Mask, k: int) -> Numbers:
    """(Q, N) ranked relevance to (Q,): the share of the first k that are relevant, in [0, 1].

    The divisor is k even if fewer than k images are relevant.

    >>> precision_at_k(np.array([[True, False, True, True]]), 4).tolist()
    [0.75]
    """
    return np.asarray(relevant[:, :k].sum(axis=1) / k, np.float64)


def r_precision(relevant: Mask) -> Numbers:
    """(Q, N) ranked relevance to (Q,): precision at R, in [0, 1], where R is the number of relevant images.

    >>> r_precision(np.array([[True, False, True, False]])).tolist()
    [0.5]
    """
    total = relevant.sum(axis=1)
    within = np.arange(relevant.shape[1]) < total[:, None]
    return np.asarray((relevant & within).sum(axis=1) / np.maximum(total, 1), np.float64)


def average_precision(relevant: Mask) -> Numbers:
    """(Q, N) ranked relevance to (Q,): the mean precision at the ranks of the relevant images, in [0, 1].

    >>> average_precision(np.array([[True, False, True, False]])).round(4).tolist()
    [0.8333]
    """
    return _mean_precision(relevant, relevant.sum(axis=1))


def map_at_r(relevant: Mask) -> Numbers:
    """(Q, N) ranked relevance to (Q,): average precision with ranks beyond R counted as misses, in [0, 1].

    >>> map_at_r(np.array([[True, False, True, False]])).tolist()
    [0.5]
    """
    total = relevant.sum(axis=1)
    within = np.arange(relevant.shape[1]) < total[:, None]
    return _mean_precision(relevant & within, total)


def _mean_precision(relevant: Mask, total: Rows) -> Numbers:
    precision = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
    return np.asarray((precision * relevant).sum(axis=1) / np.maximum(total, 1), np.float64)


FIGURES: dict[str, Any] = {
    "hit@1": lambda relevant: hit_at_k(relevant, 1),
    "hit@5": lambda relevant: hit_at_k(relevant, 5),
    "hit@10": lambda relevant: hit_at_k(relevant, 10),
    "P@1": lambda relevant: precision_at_k(relevant, 1),
    "P@5": lambda relevant: precision_at_k(relevant, 5),
    "P@10": lambda relevant: precision_at_k(relevant, 10),
    "mAP": average_precision,
    "MAP@R": map_at_r,
    "R-precision": r_precision,
}
"""Metric name -> function from (Q, N) ranked relevance to (Q,) values."""


def leave_one_out(vectors: Vectors, labels: Sequence[str | None], *, seed: int = 0) -> dict[str, float | int]:
    """Leave-one-out metrics over all images that share their label with another image.

    `vectors` are (N, D) float32 unit vectors. Returns the mean of each metric in FIGURES, in [0, 1], and three counts:
    `queries`, `images` in the gallery, and distinct `labels` among the queries. Of more than MOST_IMAGES, a sample of
    whole classes is both gallery and queries (see `retrieval.evaluation.large.labels.sample`), and a fourth count,
    `sampled_from`, is N. Raises QueryError if no two images share a label, or if all do.
    """
    if len(vectors) > MOST_IMAGES:
        most = min(_SAMPLED, _SAMPLED_BYTES // vectors[:1].nbytes)
        compact = labels if isinstance(labels, Labels) else Labels(labels)
        chosen = sample(compact, most, np.random.default_rng(seed))
        return {**leave_one_out(vectors[chosen], compact.at(chosen), seed=seed), "sampled_from": len(vectors)}
    codes, _, names = coded_labels(labels, ())
    of_label = np.bincount(codes[codes >= 0], minlength=max(len(names), 1))
    rows = np.flatnonzero((codes >= 0) & (of_label[np.maximum(codes, 0)] > 1))
    if not len(rows):
        raise QueryError(
            "nothing to evaluate: no two images have the same label. Build with --label-column, or from a folder with "
            "one sub-folder per class."
        )
    if len(names) + bool((codes < 0).any()) < 2:
        raise QueryError(
            "nothing to evaluate: all images have the same label, so every hit is right. Index images of other "
            "classes, too: with --limit, a source that is sorted by class gives only the first ones."
        )
    most = min(MAX_QUERIES, max(_LEAST_QUERIES, _MOST_PAIRS // len(vectors)))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    asked = [labels[row] for row in rows.tolist()]
    found = query_figures(vectors[rows], asked, vectors, labels, exclude=rows)
    return {**found.means(), "queries": len(rows), "images": len(vectors), "labels": len(set(asked))}


@dataclass(frozen=True)
class QueryFigures:
    """Per-query metrics of Q queries against a gallery, so any subset can be averaged."""

    rows: Rows
    """(Q,) int64, ascending: positions of the evaluated queries in the input; the others have no relevant image."""
    values: dict[str, Numbers]
    """Metric name in FIGURES -> (Q,) float64 in [0, 1]."""
    top: list[str | None]
    """The label of each query's first hit; None if it is unlabelled."""
    ladder: list[int]
    """The K values of k for the curves: those in LADDER up to the gallery size."""
    hit: Numbers
    """(Q, K) float64: hit@k, 1 if any of the first k is relevant, else 0."""
    recall: Numbers
    """(Q, K) float64: recall@k, the share of the relevant images among the first k."""

    def means(self) -> dict[str, float]:
        """The mean of each metric in FIGURES over all queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}


def query_figures(
    queries: Vectors,
    query_labels: Sequence[str | None],
    gallery: Vectors,
    gallery_labels: Sequence[str | None],
    *,
    exclude: Rows | None = None,
) -> QueryFigures:
    """Per-query metrics of `queries` (Q, D) searched in `gallery` (N, D), both float32 unit vectors.

    Queries without a relevant image in the gallery are skipped. `exclude` (Q,) is a gallery row to leave out of each
    query's ranking, such as the query itself, or -1. Raises QueryError if no query remains, or if the numbers of labels
    and vectors differ.
    """
    codes, wanted, names = coded_labels(gallery_labels, query_labels)
    without = np.full(len(queries), -1) if exclude is None else exclude
    if not len(codes) == len(gallery) or not len(wanted) == len(queries) == len(without):
        raise QueryError(
            f"each image needs exactly one label: got {len(codes)} labels for {len(gallery)} gallery images, and "
            f"{len(wanted)} labels for {len(queries)} queries."
        )
    mine = np.flatnonzero(without >= 0)
    to_find = np.bincount(codes + 1, minlength=len(names) + 1)[wanted + 1]
    to_find[mine] -= codes[without[mine]] == wanted[mine]
    rows = np.flatnonzero((wanted >= 0) & (to_find > 0))
    if not len(rows):
        raise QueryError("nothing to evaluate: no image in the gallery has the label of a query.")
    ladder = [k for k in LADDER if k <= len(gallery)]
    step = max(1, min(_CHUNK, _CELLS // len(gallery)))
    values, tops, hits = [], [], []
    for chunk in np.split(rows, range(step, len(rows), step)):
        relevant, top = _ranked(queries[chunk], wanted[chunk], gallery, codes, without[chunk])
        values.append([figure(relevant) for figure in FIGURES.values()])
        tops.append(top)
        hits.append(relevant.cumsum(axis=1)[:, np.array(ladder) - 1])
    by_name = dict(zip(FIGURES, np.concatenate(values, axis=1), strict=True))
    labels = [names[code] if code >= 0 else None for code in np.concatenate(tops)]
    found = np.concatenate(hits)
    return QueryFigures(rows, by_name, labels, ladder, (found > 0).astype(np.float64), found / to_find[rows, None])


def coded_labels(gallery: Sequence[str | None], queries: Sequence[str | None]) -> tuple[Rows, Rows, list[str]]:
    """Integer codes of gallery and query labels (-1 for None or unknown to the gallery), and the label of each code."""
    labels = gallery if isinstance(gallery, Labels) else Labels(gallery)
    if queries is gallery:
        return (codes := labels.codes.astype(np.int64)), codes.copy(), labels.names
    code_of: dict[str | None, int] = {label: code for code, label in enumerate(labels.names)}
    wanted = np.array([code_of.get(label, -1) for label in queries], np.int64)
    return labels.codes.astype(np.int64), wanted, labels.names


def _ranked(queries: Vectors, wanted: Rows, gallery: Vectors, codes: Rows, without: Rows) -> tuple[Mask, Rows]:
    """(Q, N) bool: ranked relevance, best first; and (Q,) int64: the label code of each query's first hit."""
    scores = queries @ gallery.T
    mine = np.flatnonzero(without >= 0)
    scores[mine, without[mine]] = -np.inf  # rank the excluded row last
    found = codes[np.argsort(-scores, axis=1, kind="stable")]
    relevant: Mask = found == wanted[:, None]
    relevant[mine, -1] = False
    return relevant, found[:, 0].copy()  # a view would keep the whole array in memory


def bootstrap_interval(
    values: Numbers, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of (Q,) per-query values: its lower and upper end.

    The interval covers the sampling of queries (Efron, "Bootstrap Methods", 1979), not the variance between training
    runs. For a single value, both ends are that value. Raises QueryError for no values.
    """
    if not len(values):
        raise QueryError("a bootstrap interval needs at least one value; there are none.")
    if len(values) == 1:
        return float(values[0]), float(values[0])
    rng, means = np.random.default_rng(seed), np.empty(resamples)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        some = means[start : start + _RESAMPLES_AT_ONCE]
        some[:] = values[rng.integers(0, len(values), (len(some), len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high
