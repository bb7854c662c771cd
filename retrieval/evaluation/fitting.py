"""Small fits and bounds of statistics in NumPy: the libraries that have them are 200 MB, for these few lines."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from retrieval.arrays import Mask, Numbers, Rows

_STEPS = 100  # of Newton's method, which takes about ten
_CLOSE = 1e-10  # length of a step, relative to the weights, that ends it


def fit_logistic(evidence: Numbers, truth: Mask, *, strength: float) -> tuple[Numbers, float]:
    """Logistic regression of (N,) truth on (N, D) evidence: the (D,) weights and the bias.

    They minimise half the squared length of the weights plus `strength` times the log loss, by Newton's method with
    step halving. Both values must occur in `truth`.
    """
    inputs = np.column_stack([evidence, np.ones(len(evidence))])
    ridge = np.append(np.ones(evidence.shape[1]), 0.0)
    signs = np.where(truth, 1.0, -1.0)

    def loss(weights: Numbers) -> float:
        return float(ridge @ weights**2 / 2 + strength * np.logaddexp(0, -signs * (inputs @ weights)).sum())

    weights = np.zeros(len(ridge))
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(inputs @ weights, -500, 500)))
        slope = ridge * weights + strength * inputs.T @ (chances - truth)
        bend = np.diag(ridge) + strength * (inputs * (chances * (1 - chances))[:, None]).T @ inputs
        step = np.linalg.lstsq(bend, slope)[0]
        size = 1.0
        while size > _CLOSE and loss(weights - size * step) > loss(weights):
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() <= _CLOSE * max(1.0, np.abs(weights).max()):
            break
    return weights[:-1], float(weights[-1])


def fit_isotonic(inputs: Numbers, truth: Mask) -> tuple[Numbers, Numbers]:
    """Isotonic regression of (N,) truth on (N,) inputs: the points between which the curve is linear, (P,) and (P,).

    The curve rises where the inputs do and is as close to `truth` as possible, in squares (pool adjacent violators,
    Ayer et al., 1955).
    """
    places, where = np.unique(inputs, return_inverse=True)
    counts = np.bincount(where)
    sums = np.bincount(where, weights=truth)
    pools: list[tuple[float, int, int]] = []  # sum of the truth, its number, and the number of places
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        pool = (total, count, 1)
        while pools and pools[-1][0] * pool[1] >= pool[0] * pools[-1][1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    values = np.repeat([total / count for total, count, _ in pools], [size for _, _, size in pools])
    inner = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])
    kept = np.concatenate([[True], inner, [True]]) if len(values) > 1 else np.ones(1, bool)
    return places[kept], values[kept]


def reaches(counts: Rows, of: Rows, share: float, certainty: float) -> Mask:
    """(N,) bool: whether `counts` of `of` cases show, with this certainty, a proportion of at least `share`.

    That is, whether the lower bound of Clopper and Pearson (1934) is at least `share`: whether so many or more cases
    have a probability of at most 1 - `certainty` at exactly this share.
    """
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, max(of, default=0) + 1)))])
    sure = np.zeros(len(counts), bool)
    for number, (count, cases) in enumerate(zip(counts.tolist(), of.tolist(), strict=True)):
        if count > share * cases:  # a bound never exceeds what was measured
            k = np.arange(count, cases + 1)
            each = logs[cases] - logs[k] - logs[cases - k] + k * np.log(share) + (cases - k) * np.log1p(-share)
            sure[number] = np.exp(each).sum() <= 1 - certainty
    return sure


def wilson_interval(count: int, of: int, confidence: float) -> tuple[float, float]:
    """The interval of a proportion by Wilson (1927): its lower and upper end. `of` is at least 1."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * float(np.sqrt(share * (1 - share) / of + (z / (2 * of)) ** 2)) / (1 + z * z / of)
    return max(0.0, middle - half), min(1.0, middle + half)
