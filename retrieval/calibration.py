"""Calibration: what it takes for a hit to be of the query's kind, learned from queries whose label is known.

Each query is searched twice: as it is, and among the images of all other labels, which is a query of a kind that the
gallery does not have. A logistic regression (Platt 1999) weighs the evidence of `retrieval.confidence`, right hits of
the first search against wrong ones and all those of the second. Isotonic regression (Zadrozny and Elkan, KDD 2002)
turns the weighed sum into a chance, on the first search alone: the chance is that of a query whose kind is there.
Whether it is there is what the threshold is for: it keeps both the precision and the share refused that are promised
below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.confidence import Calibration, Density, Nearest, evidence, nearest
from retrieval.metrics import Numbers, Rows, Vectors, coded_labels
from retrieval.stores.base import MISSING, Store

PRECISION = 0.95  # of the first hits shown as confident, so many are right, at the lower end of their interval
REFUSED = 0.90  # of the queries of no kind in the gallery, so many are shown as not confident
_QUERIES = 2_500  # drawn, at most: with ten pairs each, enough for a curve
_LEAST_QUERIES = 20
_BINS = 10  # of the reliability curve


@dataclass(frozen=True)
class Queries:
    """Q images whose label is known: to learn from, or to check with."""

    vectors: Vectors
    """(Q, D) float32 unit rows."""
    labels: Sequence[str | None]
    own: Rows | None = None
    """(Q,) int64: the row of the gallery that each is itself, which it does not find, or -1."""


@dataclass(frozen=True)
class _Pairs:
    """Queries and their nearest: with the images of their own label in the gallery, and as if there were none."""

    present: Numbers  # (Q, K, 3) evidence
    right: npt.NDArray[np.bool_]  # (Q, K): the hit has the label of the query
    absent: Numbers  # (Q, K, 3)

    def only(self, chosen: npt.NDArray[np.bool_]) -> _Pairs:
        return _Pairs(self.present[chosen], self.right[chosen], self.absent[chosen])


def calibrate(
    store: Store, labels: Sequence[str | None], queries: Queries, check: Queries | None = None, *, seed: int = 0
) -> dict[str, Any] | None:
    """The section `calibration` of metrics.json: what `Calibration.of` reads, and how well it keeps its word.

    `labels` (N,) are those of the store's rows. The curve, the error and the precision stated are of the queries of
    `check`, or where there are none, of each half of `queries` by what was learned from the other half. Of very many
    queries, 2,500 are drawn. None where the labels cannot teach it: fewer than two, or hardly a query that has
    another image of its label.
    """
    density = Density(store)
    pairs = _pairs(store, labels, queries, density, seed)
    if pairs is None:
        return None
    found = _fit(pairs)
    others = _pairs(store, labels, check, density, seed) if check else None
    even = np.arange(len(pairs.right)) % 2 == 0
    trials = [(found, others)] if others else [(_fit(pairs.only(~half)), pairs.only(half)) for half in (even, ~even)]
    return {
        "weights": list(found.weights),
        "bias": found.bias,
        "strengths": list(found.strengths),
        "chances": list(found.chances),
        "threshold": found.threshold,
        "queries": len(pairs.right),
        "held_out": check is not None,
        "wanted": {"precision": PRECISION, "refused": REFUSED},
        "checked": _checked(trials),
    }


def _pairs(store: Store, labels: Sequence[str | None], queries: Queries, density: Density, seed: int) -> _Pairs | None:
    codes, wanted, names = coded_labels(labels, queries.labels)
    own = np.full(len(wanted), MISSING) if queries.own is None else queries.own
    of_label = np.bincount(codes + 1, minlength=len(names) + 1)
    usable = np.flatnonzero((wanted >= 0) & (of_label[wanted + 1] > (own >= 0)))
    if len(usable) < _LEAST_QUERIES or (of_label[1:] > 0).sum() < 2:
        return None
    chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:_QUERIES])
    vectors, wanted, own = queries.vectors[chosen], wanted[chosen], own[chosen]
    found = nearest(store, vectors, own)
    absent = Nearest(np.full_like(found.rows, MISSING), np.zeros_like(found.scores))
    for label in np.unique(wanted):
        mine = wanted == label
        strangers = nearest(store, vectors[mine], allowed=np.flatnonzero(codes != label))
        absent.rows[mine], absent.scores[mine] = strangers.rows, strangers.scores
    right = (found.rows != MISSING) & (codes[found.rows] == wanted[:, None])
    return _Pairs(evidence(found, found, codes, density), right, evidence(absent, absent, codes, density))


def _fit(pairs: _Pairs) -> Calibration:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    present, right, absent = pairs.present.reshape(-1, 3), pairs.right.ravel(), pairs.absent.reshape(-1, 3)
    told = np.concatenate([right, np.zeros(len(absent), bool)])
    if not right.any():
        return Calibration((0.0, 0.0, 0.0), 0.0, (0.0,), (0.0,), None)
    model = LogisticRegression(C=100.0, max_iter=1000).fit(np.concatenate([present, absent]), told)
    plain = Calibration(tuple(model.coef_[0].tolist()), float(model.intercept_[0]), (0.0,), (0.0,), None)
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(plain.strength(present), right)
    first = plain.strength(pairs.present[:, 0])
    refusing = float(np.quantile(plain.strength(pairs.absent[:, 0]), REFUSED, method="higher"))
    precise = _least_precise(first, pairs.right[:, 0])
    threshold = None if precise is None else max(precise, refusing)
    strengths, chances = (tuple(each.tolist()) for each in (curve.X_thresholds_, curve.y_thresholds_))
    return replace(plain, strengths=strengths, chances=chances, threshold=threshold)


def _least_precise(strengths: Numbers, right: npt.NDArray[np.bool_]) -> float | None:
    """The least strength from which on PRECISION of the first hits are right, with a certainty of 95%; None: none."""
    from scipy.stats import beta

    order = np.argsort(-strengths, kind="stable")
    hits, shown = np.cumsum(right[order]), np.arange(1, len(order) + 1)
    low = np.where(hits > 0, beta.ppf(0.05, hits, shown - hits + 1), 0)  # Clopper and Pearson 1934, one-sided
    enough = np.flatnonzero(low >= PRECISION)
    return float(strengths[order][enough[-1]]) if len(enough) else None


def _checked(trials: Sequence[tuple[Calibration, _Pairs]]) -> dict[str, Any]:
    """What was promised, on queries that it was not learned from."""
    from scipy.stats import binomtest

    chances = np.concatenate([one.chance(one.strength(pairs.present)).ravel() for one, pairs in trials])
    right = np.concatenate([pairs.right.ravel() for _, pairs in trials])
    shown = np.concatenate([one.confident(one.strength(pairs.present[:, 0])) for one, pairs in trials])
    first = np.concatenate([pairs.right[:, 0] for _, pairs in trials])
    refused = np.concatenate([~one.confident(one.strength(pairs.absent[:, 0])) for one, pairs in trials])
    curve = [chances[mask].mean() for mask in _bins(chances)]
    shares = [right[mask].mean() for mask in _bins(chances)]
    sizes = [int(mask.sum()) for mask in _bins(chances)]
    precision = None
    if shown.any():
        ends = binomtest(int(first[shown].sum()), int(shown.sum())).proportion_ci(0.95, "wilson")
        precision = {"value": float(first[shown].mean()), "low": float(ends.low), "high": float(ends.high)}
    return {
        "queries": len(first),
        "expected_calibration_error": float(
            sum(n * abs(p - s) for p, s, n in zip(curve, shares, sizes, strict=True)) / len(right)
        ),
        "reliability": {
            "chance": [float(p) for p in curve],
            "share": [float(s) for s in shares],
            "pairs": sizes,
        },
        "precision": precision,
        "shown": float(shown.mean()),
        "refused": float(refused.mean()),
    }


def _bins(chances: Numbers) -> list[npt.NDArray[np.bool_]]:
    """Ten equal parts of [0, 1], those that are empty left out."""
    place = np.minimum((chances * _BINS).astype(int), _BINS - 1)
    return [place == number for number in range(_BINS) if (place == number).any()]
