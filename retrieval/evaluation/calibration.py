"""Calibration: fits the match probability and the confidence threshold on labelled queries.

Each query is searched twice: in the whole gallery, and only among images of other classes, which simulates a query
whose class is not in the gallery. Logistic regression (Platt 1999) weighs the evidence from `evaluation.confidence`:
positives are correct hits of the first search, negatives are its wrong hits and all hits of the second. Isotonic
regression (Zadrozny and Elkan, KDD 2002), fitted on the first search alone, maps the logit to a match probability,
given that the query's class is in the gallery. The threshold decides whether it is: it is chosen so that confident
hits reach PRECISION and unknown queries are rejected at rate REFUSED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrieval.arrays import Mask, Numbers, Rows, Vectors
from retrieval.artifact.sections import CalibrationSection, Checked, Point, Reliability, Wanted
from retrieval.evaluation.confidence import NEIGHBOURS, Calibration, Density, Nearest, class_codes, evidence, nearest
from retrieval.evaluation.duplicates import GATE, Same, agreeing
from retrieval.evaluation.fitting import fit_isotonic, fit_logistic, reaches, wilson_interval
from retrieval.stores.base import MISSING, Store

PRECISION = 0.95  # share of confident first hits that are correct: a lower confidence bound
REFUSED = 0.90  # share of queries of an unknown class without a confident first hit: a lower confidence bound
_CERTAINTY = 0.95  # confidence level of both bounds
_NEAR = 0.95  # share of queries with a correct first hit whose similarity to it reaches the floor
_QUERIES, _FEWER_QUERIES = 2_500, 1_000  # most queries sampled: with ten hits each, enough for a curve
_MOST_PAIRS = 25_000_000  # query-row pairs: above 10,000 rows, fewer queries are sampled
_LEAST_QUERIES = 20
_COPIES = 20  # extra neighbours searched, to replace near-duplicates of a query
_FILTERED_UP_TO = 400_000  # rows: in more, other classes are looked for among the nearest rows of all classes
_FAR = 500  # so many of them
_GAPS = ((MISSING, np.int64), (0, np.float32))
_BINS = 10  # bins of the reliability curve


@dataclass(frozen=True)
class Queries:
    """Q labelled query images, to fit or to evaluate a calibration."""

    vectors: Vectors
    """(Q, D) float32 unit vectors."""
    labels: Sequence[str | None]
    own: Rows | None = None
    """(Q,) int64: each query's own row in the gallery, excluded from its results, or -1; None for held-out queries."""


@dataclass(frozen=True)
class _Found:
    """Results of one search with Q queries for K neighbours each."""

    evidence: Numbers  # (Q, K, 3), NaN for an unlabelled hit
    nearest: Vectors  # (Q,) cosine similarity of the first hit

    @property
    def told(self) -> Mask:
        """(Q, K) bool: the hit has evidence."""
        told: Mask = ~np.isnan(self.evidence[..., 0])
        return told


@dataclass(frozen=True)
class _Pairs:
    """Queries with both searches: with their own class in the gallery, and without it."""

    present: _Found
    right: Mask  # (Q, K): the hit of `present` has the query's label
    absent: _Found

    def only(self, chosen: Mask) -> _Pairs:
        present, absent = (_Found(each.evidence[chosen], each.nearest[chosen]) for each in (self.present, self.absent))
        return _Pairs(present, self.right[chosen], absent)


def calibrate(
    store: Store,
    labels: Sequence[str | None],
    queries: Queries,
    check: Queries | None = None,
    *,
    same: Same | None = None,
    seed: int = 0,
) -> CalibrationSection | None:
    """Fit the `calibration` section of metrics.json, with its parameters (see `Calibration.of`) and measured quality.

    `labels` (N,) belong to the store's rows. Quality is measured on the queries in `check`, or, if `check` is None, by
    two-fold cross-validation on `queries`. At most 2,500 queries are sampled, down to 1,000 for a large gallery.
    Returns None if the labels are not sufficient: fewer than two classes, or fewer than 20 queries with another image
    of their class.

    `same` tells which rows show the same picture as a given row (see `Pictures.same`). A query that is itself a row
    does not find its near-duplicates: new queries have none in the gallery, and such easy matches would bias the fit.
    """
    density = Density(store)
    pairs = _pairs(store, labels, queries, density, same, seed)
    if pairs is None:
        return None
    found = _fit(pairs)
    others = _pairs(store, labels, check, density, same, seed) if check else None
    half = np.random.default_rng(seed).permutation(len(pairs.right)) % 2 == 0
    trials = [(found, others)] if others else [(_fit(pairs.only(~one)), pairs.only(one)) for one in (half, ~half)]
    return CalibrationSection(
        weights=list(found.weights),
        bias=found.bias,
        strengths=list(found.strengths),
        chances=list(found.chances),
        threshold=found.threshold,
        floor=found.floor,
        queries=len(pairs.right),
        held_out=queries.own is None,
        wanted=Wanted(precision=PRECISION, refused=REFUSED),
        checked=_checked(trials),
    )


def _pairs(
    store: Store,
    labels: Sequence[str | None],
    queries: Queries,
    density: Density,
    same: Same | None,
    seed: int,
) -> _Pairs | None:
    codes, wanted, names = class_codes(labels, queries.labels)
    own = np.full(len(wanted), MISSING) if queries.own is None else queries.own
    of_label = np.bincount(codes[codes >= 0], minlength=max(len(names), 1))
    usable = np.flatnonzero((wanted >= 0) & (of_label[np.maximum(wanted, 0)] > (own >= 0)))
    if len(usable) < _LEAST_QUERIES or (of_label > 0).sum() < 2:
        return None
    most = min(_QUERIES, max(_FEWER_QUERIES, _MOST_PAIRS // len(store)))
    chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:most])
    vectors, wanted, own = queries.vectors[chosen], wanted[chosen], own[chosen]
    found = nearest(store, vectors, own) if same is None else _without_copies(store, vectors, own, same)
    absent = _strangers(store, vectors, wanted, codes)
    right = (found.rows != MISSING) & (codes[found.rows] == wanted[:, None])
    first, second = (_Found(evidence(each, each, codes, density), each.scores[:, 0]) for each in (found, absent))
    return _Pairs(first, right, second)


def _strangers(store: Store, vectors: Vectors, wanted: Rows, codes: Rows) -> Nearest:
    """The nearest neighbours of queries among the labelled rows of other classes than `wanted` (Q,)."""
    found = Nearest(*(np.full((len(wanted), NEIGHBOURS), gap, kind) for gap, kind in _GAPS))
    left = np.ones(len(wanted), bool)
    if len(store) > _FILTERED_UP_TO:  # a filter costs a look at all rows: it is only used where the nearest do not do
        rows, scores = store.search(vectors, _FAR)
        other = (rows != MISSING) & (codes[rows] != -1) & (codes[rows] != wanted[:, None])
        for query in np.flatnonzero(other.sum(axis=1) >= NEIGHBOURS).tolist():
            places = np.flatnonzero(other[query])[:NEIGHBOURS]
            found.rows[query], found.scores[query], left[query] = rows[query, places], scores[query, places], False
    for label in np.unique(wanted[left]):
        mine = left & (wanted == label)
        strangers = nearest(store, vectors[mine], allowed=np.flatnonzero((codes != label) & (codes != -1)))
        found.rows[mine], found.scores[mine] = strangers.rows, strangers.scores
    return found


def _without_copies(store: Store, vectors: Vectors, own: Rows, same: Same) -> Nearest:
    """The nearest neighbours of queries that are gallery rows, without themselves and their near-duplicates."""
    rows, scores = store.search(vectors, NEIGHBOURS + 1 + _COPIES)
    kept = Nearest(np.full((len(rows), NEIGHBOURS), MISSING), np.zeros((len(rows), NEIGHBOURS), np.float32))
    for number, row in enumerate(own):
        there = (rows[number] != MISSING) & (rows[number] != row)
        close = np.flatnonzero(there & (scores[number] >= GATE)) if row >= 0 else np.empty(0, np.int64)
        if len(close):
            cosines = scores[number, close]
            there[close[agreeing(same, int(row), rows[number, close], cosines, GATE)]] = False
        places = np.flatnonzero(there)[:NEIGHBOURS]
        kept.rows[number, : len(places)] = rows[number, places]
        kept.scores[number, : len(places)] = scores[number, places]
    return kept


def _fit(pairs: _Pairs) -> Calibration:
    present, right = pairs.present.evidence[pairs.present.told], pairs.right[pairs.present.told]
    absent = pairs.absent.evidence[pairs.absent.told]
    truth = np.concatenate([right, np.zeros(len(absent), bool)])
    if truth.all() or not truth.any():  # only one class: every hit gets the same probability
        return Calibration((0.0, 0.0, 0.0), 0.0, (0.0,), (float(truth.any()),), None, -1.0)
    weights, bias = fit_logistic(np.concatenate([present, absent]), truth, strength=100.0)
    near = pairs.present.nearest[pairs.right[:, 0]]
    floor = float(np.quantile(near, 1 - _NEAR, method="lower")) if len(near) else -1.0
    plain = Calibration(tuple(weights.tolist()), bias, (0.0,), (0.0,), None, floor)
    strengths, chances = (tuple(each.tolist()) for each in fit_isotonic(plain.strength(present), right))
    learned = replace(plain, strengths=strengths, chances=chances)
    known, strange = (_eligible(learned, each) for each in (pairs.present, pairs.absent))
    return replace(learned, threshold=_threshold(known, pairs.right[:, 0], strange))


def _eligible(learned: Calibration, found: _Found) -> Numbers:
    """(Q,) logits of the first hits; -inf below the similarity floor or with a match probability of at most 0.5."""
    strength = learned.strength(found.evidence[:, 0])
    return np.where((found.nearest >= learned.floor) & (learned.chance(strength) > 0.5), strength, -np.inf)


def _threshold(first: Numbers, right: Mask, strangers: Numbers) -> float | None:
    """The lowest logit at which the lower bounds on precision and on the rejection rate of unknown queries reach
    PRECISION and REFUSED; None if there is none. The bounds hold for each candidate by itself, so the minimum over all
    of them is slightly optimistic: `_checked` measures it on other queries."""
    order = np.argsort(-first, kind="stable")
    strengths = first[order]
    precise = reaches(np.cumsum(right[order]), np.arange(1, len(order) + 1), PRECISION, _CERTAINTY)
    below = np.searchsorted(np.sort(strangers), strengths)
    refusing = reaches(below, np.full(len(below), len(strangers)), REFUSED, _CERTAINTY)
    last = np.append(strengths[1:] < strengths[:-1], True)  # tied hits are accepted together
    enough = np.flatnonzero(precise & refusing & last & np.isfinite(strengths))
    return float(strengths[enough[-1]]) if len(enough) else None


def _checked(trials: Sequence[tuple[Calibration, _Pairs]]) -> Checked:
    """Quality of each calibration on queries it was not fitted on, pooled over the trials."""
    told = [pairs.present.told for _, pairs in trials]
    chances = [one.chance(one.strength(pairs.present.evidence)) for one, pairs in trials]
    chance = np.concatenate([each[mask] for each, mask in zip(chances, told, strict=True)])
    right = np.concatenate([pairs.right[mask] for (_, pairs), mask in zip(trials, told, strict=True)])
    shown = np.concatenate([_shown(one, pairs.present) for one, pairs in trials])
    first = np.concatenate([pairs.right[:, 0] for _, pairs in trials])
    refused = np.concatenate([~_shown(one, pairs.absent) for one, pairs in trials])
    bins = _bins(chance)
    curve, shares = ([float(each[mask].mean()) for mask in bins] for each in (chance, right))
    sizes = [int(mask.sum()) for mask in bins]
    precision = None
    if shown.any():
        low, high = wilson_interval(int(first[shown].sum()), int(shown.sum()), 0.95)
        precision = Point(value=float(first[shown].mean()), low=low, high=high)
    error = sum(n * abs(p - s) for p, s, n in zip(curve, shares, sizes, strict=True)) / max(len(right), 1)
    return Checked(
        queries=len(first),
        expected_calibration_error=float(error),
        reliability=Reliability(chance=curve, share=shares, pairs=sizes),
        precision=precision,
        shown=float(shown.mean()),
        refused=float(refused.mean()),
    )


def _shown(one: Calibration, found: _Found) -> Mask:
    """(Q,) bool: the first hit is confident."""
    return one.confident(one.strength(found.evidence[:, :1]), found.nearest)[:, 0]


def _bins(chances: Numbers) -> list[Mask]:
    """Masks of the non-empty bins, of ten equal-width bins over [0, 1]."""
    place = np.minimum((chances * _BINS).astype(int), _BINS - 1)
    return [place == number for number in range(_BINS) if (place == number).any()]
