"""Confidence: the probability that a hit has the same class as the query, and whether anything matches at all.

Cosine similarity alone is not comparable between galleries: 0.8 can be a certain match in one and noise in another.
Three features help: the share of the query's neighbours with the hit's label, the hit's similarity relative to its
local density, and the same ratio averaged over all neighbours (local density as in Breunig et al., "LOF", SIGMOD 2000).
`evaluation.calibration` fits their weights; this module applies them, using only numpy. The neighbours of a query whose
class is not in the gallery may still agree on a label. Therefore no hit is confident if the query is less similar to
its nearest neighbour than almost all known queries are (a conformal test, as in Laxhammar and Falkman, FUSION 2010).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Mask, Numbers, Rows, Vectors
from retrieval.artifact.sections import CalibrationSection
from retrieval.evaluation.metrics import coded_labels
from retrieval.images.values import Values
from retrieval.images.wide import Wide
from retrieval.stores.base import MISSING, Store, others

NEIGHBOURS = 10  # neighbours considered for a query, and for a hit
BACKGROUND_CLASS = -2  # the code of a background class; -1 is an unlabelled image
# Many datasets have a background class: BACKGROUND_Google in Caltech-101, "other", "unknown". Two of its images need
# not show the same thing, so it never counts as a match.
_NOTHING = re.compile(r"background(_google)?|clutter|distractors?|misc|others?|unknown|none|nothing", re.IGNORECASE)
_LEAST_DENSITY = 1e-3  # in cosine similarity: avoids division by zero for isolated images


@dataclass(frozen=True)
class Nearest:
    """The K nearest rows of each of Q queries, best first."""

    rows: Rows
    """(Q, K) int64 gallery rows, padded with -1."""
    scores: Vectors
    """(Q, K) float32 cosine similarities."""


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration: (..., 3) features -> logit -> match probability, and the criteria for a confident hit."""

    weights: tuple[float, ...]
    bias: float
    strengths: tuple[float, ...]
    """Logits, ascending; probabilities are interpolated between them and constant outside."""
    chances: tuple[float, ...]
    threshold: float | None
    """The minimum logit of a confident hit; None if no threshold reaches the targets, so nothing is said of any hit."""
    floor: float
    """The minimum cosine similarity between a query and its nearest neighbour for confident hits."""

    @classmethod
    def of(cls, section: CalibrationSection) -> Calibration:
        """A calibration from the section of metrics.json that `calibrate` returned."""
        knots = tuple(section.strengths), tuple(section.chances)
        return cls(tuple(section.weights), section.bias, *knots, section.threshold, section.floor)

    def strength(self, evidence: Numbers) -> Numbers:
        """(..., 3) features to (...) logits: the weighted sum plus bias; -inf for NaN features."""
        weighed = evidence @ np.array(self.weights) + self.bias
        return np.where(np.isnan(weighed), -np.inf, weighed)

    def chance(self, strength: Numbers) -> Numbers:
        """(...) logits to (...) match probabilities in [0, 1]."""
        return np.interp(strength, self.strengths, self.chances)

    def confident(self, strength: Numbers, nearest: Vectors) -> Mask:
        """Whether each hit is confident: (Q, H) bool, from (Q, H) logits and (Q,) cosine similarities of each query to
        its nearest neighbour."""
        enough = np.asarray(strength >= (np.inf if self.threshold is None else self.threshold))
        return enough & (nearest >= self.floor)[:, None]


def nearest(store: Store, vectors: Vectors, own: Rows | None = None, allowed: Rows | None = None) -> Nearest:
    """The nearest neighbours of (Q, D) vectors; `own` (Q,) is each query's own row, which is excluded, or -1."""
    own = np.full(len(vectors), MISSING) if own is None else own
    rows, scores = store.search(vectors, NEIGHBOURS + 1, allowed)
    return Nearest(*others(own, rows, scores))


class Density:
    """Local density of a store's rows: the mean cosine similarity to their neighbours, computed lazily and cached."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Vectors = np.empty(len(store), np.float32)
        self._is_known: Mask = np.zeros(len(store), bool)  # of both, only what is written takes memory

    def of(self, rows: Rows) -> Vectors:
        """(...) rows to (...) float32 densities; 1 for a missing row."""
        wanted = np.unique(rows[rows != MISSING])
        fresh = wanted[~self._is_known[wanted]]
        if len(fresh):
            found = nearest(self._store, self._store.vectors(fresh), own=fresh)
            self._known[fresh] = _mean(found)
            self._is_known[fresh] = True
        return np.where(rows == MISSING, np.float32(1), self._known[np.maximum(rows, 0)])


def class_codes(labels: Sequence[str | None], queries: Sequence[str | None] = ()) -> tuple[Rows, Rows, list[str]]:
    """Encode gallery and query labels as integers; also returns the label of each code (see `metrics.coded_labels`).

    -1 is an unlabelled image, BACKGROUND_CLASS a background class, which counts as disagreeing with every hit.
    """
    codes, wanted, names = coded_labels(labels, queries)
    nothing = [code for code, name in enumerate(names) if _NOTHING.fullmatch(name.strip())]
    for numbers in (codes, wanted):
        numbers[np.isin(numbers, nothing)] = BACKGROUND_CLASS
    return codes, wanted, names


class LabelCodes:
    """`class_codes` of a column of a gallery, for the rows that are asked for."""

    def __init__(self, labels: Values | Wide) -> None:
        self._labels = labels
        texts = labels.texts if isinstance(labels, Values) else []
        self._nothing = np.array(
            [code for code, text in enumerate(texts) if _NOTHING.fullmatch(text.strip())], np.int64
        )

    def __getitem__(self, rows: Rows) -> Rows:
        codes = self._labels.codes_of(rows)
        if isinstance(self._labels, Wide):
            nothing = [bool(text and _NOTHING.fullmatch(text.strip())) for text in self._labels.texts_of(rows)]
            codes[np.reshape(nothing, codes.shape)] = BACKGROUND_CLASS
        codes[np.isin(codes, self._nothing)] = BACKGROUND_CLASS
        return codes


def evidence(
    found: Nearest, hits: Nearest, codes: npt.NDArray[np.integer[Any]] | LabelCodes, density: Density
) -> Numbers:
    """Features of the (Q, H) hits of Q queries whose nearest neighbours are `found`: (Q, H, 3) float64.

    The features are the share of the other labelled neighbours that have the hit's label; the hit's cosine similarity
    divided by its density; and the neighbours' mean similarity divided by their mean density. They are NaN for a hit
    that is missing, unlabelled, or in a background class. `codes` (N,) are the label codes from `class_codes`.
    """
    around, label = (np.where(rows == MISSING, -1, codes[rows]) for rows in (found.rows, hits.rows))
    # Exclude the hit itself, and unlabelled images.
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
    """A probability as a whole percentage for display, at most 99: no sample is large enough to show 100."""
    return min(round(100 * chance), 99)


class Confidence:
    """Computes match probabilities of hits. Thread-safe; concurrent calls may repeat some work."""

    def __init__(self, calibration: Calibration, store: Store, labels: Values | Wide) -> None:
        """`labels` are those of the gallery, `gallery.column("label")`."""
        self._calibration, self._store = calibration, store
        self._codes = LabelCodes(labels)
        self._density = Density(store)

    def of(
        self, vector: Vectors, rows: Rows, scores: Vectors, own: int = MISSING
    ) -> tuple[list[float | None], list[bool | None]]:
        """The match probability of each hit, and whether it is confident, for a (D,) query with (H,) rows and scores.

        Both are None for an unlabelled hit. A hit of a background class has no probability and is never confident.
        Without a threshold, none is confident or not: all of these are None.
        `own` is the query's own row, or -1. The neighbours come from the whole gallery, even if the hits are filtered.
        """
        hits = Nearest(rows[None], scores[None])
        found = nearest(self._store, vector[None], np.array([own]))
        strength = self._calibration.strength(evidence(found, hits, self._codes, self._density))
        labelled, known = self._codes[rows] != -1, np.isfinite(strength)[0]
        chances = self._calibration.chance(strength)[0]
        confident = self._calibration.confident(strength, found.scores[:, 0])[0]
        judged = labelled & (self._calibration.threshold is not None)
        return (
            [float(chance) if kind else None for chance, kind in zip(chances, known, strict=True)],
            [bool(sure) if either else None for sure, either in zip(confident, judged, strict=True)],
        )
