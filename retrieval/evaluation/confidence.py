"""Confidence: the chance that a hit is of the query's kind, and whether anything matches at all.

A cosine alone says little: 0.8 is a sure match in one gallery and nothing in another. Three things together say more:
how many of the query's nearest share the hit's label, how near the hit is compared with how near it has its own
neighbours, and the same of all the nearest (local density, as in Breunig et al., "LOF", SIGMOD 2000).
`evaluation.calibration` learns what weight each has; this module applies it, with numpy alone. Of a picture of nothing
that the gallery has, all the nearest may well agree: no hit of a query that is farther from its nearest than nearly all
known ones are from theirs is confident (a conformal test, as in Laxhammar and Falkman, FUSION 2010).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.arrays import Mask, Numbers, Rows, Vectors
from retrieval.artifact.sections import CalibrationSection
from retrieval.evaluation.metrics import coded_labels
from retrieval.stores.base import MISSING, Store, others

NEIGHBOURS = 10  # of a query, and of a hit, that are looked at
NO_KIND = -2  # the number of a label that names no kind; -1 is no label
# Data sets have a class for what is of none: BACKGROUND_Google of Caltech-101, "other", "unknown". A picture of nothing
# finds it, and is not matched by it.
_NOTHING = re.compile(r"background(_google)?|clutter|distractors?|misc|others?|unknown|none|nothing", re.IGNORECASE)
_LEAST_DENSITY = 1e-3  # of a cosine: what has no neighbours at all is not infinitely denser than them


@dataclass(frozen=True)
class Nearest:
    """Q queries and what is nearest to them: K rows each, best first."""

    rows: Rows
    """(Q, K) int64 rows of the gallery, -1 where there are fewer."""
    scores: Vectors
    """(Q, K) float32 cosines."""


@dataclass(frozen=True)
class Calibration:
    """What was learned: evidence (..., 3) -> strength -> chance, and what it takes for a hit to be confident."""

    weights: tuple[float, ...]
    bias: float
    strengths: tuple[float, ...]
    """Ascending; between them chances are interpolated, beyond them they stay."""
    chances: tuple[float, ...]
    threshold: float | None
    """Of the strength; None where no threshold gives what is wanted, and nothing is confident."""
    floor: float
    """Of the cosine of a query's nearest."""

    @classmethod
    def of(cls, section: CalibrationSection) -> Calibration:
        """From the section of metrics.json that `calibrate` made."""
        knots = tuple(section.strengths), tuple(section.chances)
        return cls(tuple(section.weights), section.bias, *knots, section.threshold, section.floor)

    def strength(self, evidence: Numbers) -> Numbers:
        """(..., 3) evidence to (...): the weighed sum, in log-odds; minus infinity where there is no evidence."""
        weighed = evidence @ np.array(self.weights) + self.bias
        return np.where(np.isnan(weighed), -np.inf, weighed)

    def chance(self, strength: Numbers) -> Numbers:
        """(...) strengths to (...) chances in [0, 1]."""
        return np.interp(strength, self.strengths, self.chances)

    def confident(self, strength: Numbers, nearest: Vectors) -> Mask:
        """(Q, H) strengths of the hits of Q queries, and (Q,) cosines of their nearest, to (Q, H): whether each hit is
        confident."""
        enough = np.asarray(strength >= (np.inf if self.threshold is None else self.threshold))
        return enough & (nearest >= self.floor)[:, None]


def nearest(store: Store, vectors: Vectors, own: Rows | None = None, allowed: Rows | None = None) -> Nearest:
    """What is nearest to (Q, D) vectors; `own` (Q,) is the row that a query itself is, which does not count, or -1."""
    own = np.full(len(vectors), MISSING) if own is None else own
    rows, scores = store.search(vectors, NEIGHBOURS + 1, allowed)
    return Nearest(*others(own, rows, scores))


class Density:
    """How near the rows of a store have their own neighbours: the mean cosine to them, worked out when it is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Vectors = np.full(len(store), np.nan, np.float32)

    def of(self, rows: Rows) -> Vectors:
        """(...) rows to (...) float32; a row that is missing has 1."""
        wanted = np.unique(rows[rows != MISSING])
        fresh = wanted[np.isnan(self._known[wanted])]
        if len(fresh):
            found = nearest(self._store, self._store.vectors(fresh), own=fresh)
            self._known[fresh] = _mean(found)
        return np.where(rows == MISSING, np.float32(1), self._known[np.maximum(rows, 0)])


def kinds(labels: Sequence[str | None], queries: Sequence[str | None] = ()) -> tuple[Rows, Rows, list[str]]:
    """Labels of a gallery and of queries as numbers, and the labels by number (see `metrics.coded_labels`).

    -1 where there is none; NO_KIND where it names none: a witness against every hit, and never one itself.
    """
    codes, wanted, names = coded_labels(labels, queries)
    nothing = [code for code, name in enumerate(names) if _NOTHING.fullmatch(name.strip())]
    for numbers in (codes, wanted):
        numbers[np.isin(numbers, nothing)] = NO_KIND
    return codes, wanted, names


def evidence(found: Nearest, hits: Nearest, codes: Rows, density: Density) -> Numbers:
    """What speaks for (Q, H) hits of Q queries whose nearest are `found`: (Q, H, 3) float64.

    The share of the others with a label among the nearest that have the hit's; the hit's cosine over its density; the
    mean cosine of the nearest over their mean density. NaN for a hit that is missing or of no kind: nothing can be
    said of it. `codes` (N,) are the labels as numbers, as `kinds` has them.
    """
    around, label = (np.where(rows == MISSING, -1, codes[rows]) for rows in (found.rows, hits.rows))
    # A hit is no witness for itself, nor is an image that may or may not be of its kind.
    beside = (around != -1)[:, None, :] & (found.rows[:, None, :] != hits.rows[:, :, None])
    same = beside & (around[:, None, :] == label[:, :, None])
    agree = same.sum(axis=2) / np.maximum(beside.sum(axis=2), 1)
    near = hits.scores / np.maximum(density.of(hits.rows), _LEAST_DENSITY)
    level = _mean(Nearest(found.rows, density.of(found.rows)))
    all_near = _mean(found) / np.maximum(level, _LEAST_DENSITY)
    parts = np.stack([agree, near, np.broadcast_to(all_near[:, None], agree.shape)], axis=2).astype(np.float64)
    parts[label < 0] = np.nan
    return parts


def _mean(found: Nearest) -> Numbers:
    there = found.rows != MISSING
    total = np.where(there, found.scores, 0).sum(axis=1)
    return np.asarray(total / np.maximum(there.sum(axis=1), 1), np.float64)


def percent(chance: float) -> int:
    """A chance in percent, as a person is told it: never 100, for which no sample is large enough."""
    return min(round(100 * chance), 99)


class Confidence:
    """Says of hits how likely they are right; safe to use from several threads, at worst doing work twice."""

    def __init__(self, calibration: Calibration, store: Store, labels: Sequence[str | None]) -> None:
        self._calibration, self._store = calibration, store
        self._codes = kinds(labels)[0]
        self._density = Density(store)

    def of(
        self, vector: Vectors, rows: Rows, scores: Vectors, own: int = MISSING
    ) -> tuple[list[float | None], list[bool | None]]:
        """Hits of a (D,) query, (H,) rows and cosines, to the chance of each and whether it is confident.

        None for a hit without a label; one whose label names no kind is never confident. `own` is the row that the
        query itself is. The nearest are those of the whole gallery, whatever filter gave the hits.
        """
        hits = Nearest(rows[None], scores[None])
        found = nearest(self._store, vector[None], np.array([own]))
        strength = self._calibration.strength(evidence(found, hits, self._codes, self._density))
        labelled, known = self._codes[rows] != -1, np.isfinite(strength)[0]
        chances = self._calibration.chance(strength)[0]
        confident = self._calibration.confident(strength, found.scores[:, 0])[0]
        return (
            [float(chance) if kind else None for chance, kind in zip(chances, known, strict=True)],
            [bool(sure) if label else None for sure, label in zip(confident, labelled, strict=True)],
        )
