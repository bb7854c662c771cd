"""Retrieval metrics: pure functions of vectors and labels, in chunks (never an N x N matrix).

A query ranks the images of a gallery by cosine; an image with the query's label is relevant. Leave-one-out: every
image is a query once, and all the others are its gallery. With R the number of relevant images: R-precision and MAP@R
as in Musgrave et al., "A Metric Learning Reality Check" (arXiv:2003.08505), mAP over the whole ranking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.arrays import Mask, Numbers, Rows, Vectors
from retrieval.errors import QueryError

_CHUNK = 128  # queries ranked at a time, at most
_CELLS = 2**21  # of a query and an image ranked at a time, at about 30 bytes each: memory does not grow with the images
MAX_QUERIES = 20_000  # more images than this: so many are drawn as queries, and the count is stated
_MOST_PAIRS = 400_000_000  # of queries and images, some minutes on two cores: fewer queries where there are more images
_LEAST_QUERIES = 1_000
LADDER = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # the depths of the curves of hits and of recall
_RESAMPLES_AT_ONCE = 100  # of a bootstrap, 8 bytes a query each


def hit_at_k(relevant: Mask, k: int) -> Numbers:
    """(Q, N) ranked relevance to (Q,): 1 where one of the first k is relevant, else 0.

    >>> hit_at_k(np.array([[False, True], [False, False]]), 2).tolist()
    [1.0, 0.0]
    """
    return np.asarray(relevant[:, :k].any(axis=1), np.float64)


def precision_at_k(relevant: Mask, k: int) -> Numbers:
    """(Q, N) ranked relevance to (Q,): the share of the first k that are relevant, in [0, 1].

    Divided by k also where fewer than k relevant images exist.

    >>> precision_at_k(np.array([[True, False, True, True]]), 4).tolist()
    [0.75]
    """
    return np.asarray(relevant[:, :k].sum(axis=1) / k, np.float64)


def r_precision(relevant: Mask) -> Numbers:
    """(Q, N) ranked relevance to (Q,): the share of the first R that are relevant, R being all that are.

    >>> r_precision(np.array([[True, False, True, False]])).tolist()
    [0.5]
    """
    total = relevant.sum(axis=1)
    within = np.arange(relevant.shape[1]) < total[:, None]
    return np.asarray((relevant & within).sum(axis=1) / np.maximum(total, 1), np.float64)


def average_precision(relevant: Mask) -> Numbers:
    """(Q, N) ranked relevance to (Q,): the mean, over the relevant ranks, of the precision at that rank.

    >>> average_precision(np.array([[True, False, True, False]])).round(4).tolist()
    [0.8333]
    """
    return _mean_precision(relevant, relevant.sum(axis=1))


def map_at_r(relevant: Mask) -> Numbers:
    """(Q, N) ranked relevance to (Q,): average precision with the ranks after R counted as misses.

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
"""Name -> function of the (Q, N) ranked relevance, to (Q,)."""


def leave_one_out(vectors: Vectors, labels: Sequence[str | None], *, seed: int = 0) -> dict[str, float | int]:
    """Figures over all the images that have a label which another image has too.

    `vectors` (N, D) float32 unit rows. Returns the mean of each of FIGURES, in [0, 1], and how many `queries` there
    were, among how many `images`, and with how many different `labels`: those of the queries, and no others. Raises
    QueryError without such labels.
    """
    of_label = Counter(labels)
    rows = np.array([row for row, label in enumerate(labels) if label is not None and of_label[label] > 1], np.int64)
    if not len(rows):
        raise QueryError(
            "there is nothing to evaluate: no two images have the same label. Build with --label-column, or from "
            "a folder with one sub-folder a class."
        )
    most = min(MAX_QUERIES, max(_LEAST_QUERIES, _MOST_PAIRS // len(vectors)))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    asked = [labels[row] for row in rows]
    found = query_figures(vectors[rows], asked, vectors, labels, exclude=rows)
    return {**found.means(), "queries": len(rows), "images": len(vectors), "labels": len(set(asked))}


@dataclass(frozen=True)
class QueryFigures:
    """Figures of Q queries against a gallery, one number a query, so that any part of them can be summed up."""

    rows: Rows
    """(Q,) int64, ascending: which of the queries given they are; the others had nothing to find."""
    values: dict[str, Numbers]
    """Each of FIGURES -> (Q,) float64 in [0, 1]."""
    top: list[str | None]
    """The label of the best hit of each."""
    ladder: list[int]
    """The K depths of the curves: those of LADDER that the gallery reaches."""
    hit: Numbers
    """(Q, K) float64: 1 where one of the first k is relevant."""
    recall: Numbers
    """(Q, K) float64: the share of all the relevant that are among the first k."""

    def means(self) -> dict[str, float]:
        """Each of FIGURES, over all the queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}


def query_figures(
    queries: Vectors,
    query_labels: Sequence[str | None],
    gallery: Vectors,
    gallery_labels: Sequence[str | None],
    *,
    exclude: Rows | None = None,
) -> QueryFigures:
    """Search images in a gallery of others, `queries` (Q, D) in `gallery` (N, D), float32 unit rows.

    Queries whose label no image of the gallery has are left out. `exclude` (Q,) is a row of the gallery for each
    query that is not to be found, the query itself for one, or -1. Raises QueryError where no query is left.
    """
    codes, wanted, names = coded_labels(gallery_labels, query_labels)
    without = np.full(len(queries), -1) if exclude is None else exclude
    if not len(codes) == len(gallery) or not len(wanted) == len(queries) == len(without):
        raise QueryError(
            f"each image has one label: {len(codes)} for {len(gallery)} images of the gallery, {len(wanted)} for "
            f"{len(queries)} queries."
        )
    mine = np.flatnonzero(without >= 0)
    to_find = np.bincount(codes + 1, minlength=len(names) + 1)[wanted + 1]
    to_find[mine] -= codes[without[mine]] == wanted[mine]
    rows = np.flatnonzero((wanted >= 0) & (to_find > 0))
    if not len(rows):
        raise QueryError("there is nothing to evaluate: no image of the gallery has the label of a query.")
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
    """Labels of both as numbers, -1 where there is none or the gallery does not have it; and the labels by number."""
    names = list(dict.fromkeys(label for label in gallery if label is not None))
    code_of: dict[str | None, int] = {label: code for code, label in enumerate(names)}
    codes, wanted = (np.array([code_of.get(label, -1) for label in each], np.int64) for each in (gallery, queries))
    return codes, wanted, names


def _ranked(queries: Vectors, wanted: Rows, gallery: Vectors, codes: Rows, without: Rows) -> tuple[Mask, Rows]:
    """(Q, N) bool: whether each image, best first, has the label of the query; and (Q,) the code of the first."""
    scores = queries @ gallery.T
    mine = np.flatnonzero(without >= 0)
    scores[mine, without[mine]] = -np.inf  # the one that is not to be found comes last
    found = codes[np.argsort(-scores, axis=1, kind="stable")]
    relevant: Mask = found == wanted[:, None]
    relevant[mine, -1] = False
    return relevant, found[:, 0].copy()  # not a view, which would keep all of them in memory


def bootstrap_interval(
    values: Numbers, *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap of the mean of (Q,) values, one a query: the lower and the upper end of the interval.

    What the figure might be with other queries of the same kind (Efron, "Bootstrap Methods", 1979); not with another
    training run. Of a single value it is the value twice. Raises QueryError for none.
    """
    from scipy.stats import bootstrap  # a second to import, and searching needs none of it

    if not len(values):
        raise QueryError("an interval is made of one value at least; there is none.")
    if len(values) == 1:
        return float(values[0]), float(values[0])
    drawn = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=_RESAMPLES_AT_ONCE,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
