"""Fits and bounds of statistics: the figures of scikit-learn and SciPy, which are only installed for tests."""

import numpy as np
import pytest
from scipy.stats import beta, binomtest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from retrieval.evaluation.fitting import fit_isotonic, fit_logistic, reaches, wilson_interval

SEEDS = range(6)


def draw(seed, count, scale=1.0):
    rng = np.random.default_rng(seed)
    evidence = scale * rng.normal(size=(count, 3)) + [0.5, 0, -2]
    truth = rng.random(count) < 1 / (1 + np.exp(-evidence @ [2, -1, 0.5]))
    truth[:2] = [True, False]
    return evidence, truth


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [12, 300, 5000])
def test_logistic_regression_is_that_of_scikit_learn(seed, count):
    evidence, truth = draw(seed, count)
    weights, bias = fit_logistic(evidence, truth, strength=100.0)
    model = LogisticRegression(C=100.0, max_iter=20_000, tol=1e-10).fit(evidence, truth)
    assert np.allclose(weights, model.coef_[0], rtol=1e-3, atol=1e-3)
    assert bias == pytest.approx(model.intercept_[0], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_logistic_regression_of_separable_or_constant_evidence_is_finite(scale):
    evidence = scale * np.linspace(-1, 1, 40)[:, None]
    weights, bias = fit_logistic(np.hstack([evidence, np.zeros((40, 1))]), evidence[:, 0] > 0, strength=100.0)
    assert np.isfinite([*weights, bias]).all()
    assert abs(weights[1]) < 1e-12
    assert weights[0] > 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [1, 2, 50, 4000])
def test_isotonic_regression_is_that_of_scikit_learn(seed, count):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=count).round(1 if seed % 2 else 9)  # with and without ties
    truth = rng.random(count) < 1 / (1 + np.exp(-2 * inputs))
    places, values = fit_isotonic(inputs, truth)
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(inputs, truth)
    at = np.linspace(-5, 5, 1001)
    assert np.allclose(np.interp(at, places, values), curve.predict(at), atol=1e-9)
    assert len(places) <= len(curve.X_thresholds_)


@pytest.mark.parametrize("share", [0.9, 0.95])
def test_bound_of_a_proportion_is_that_of_clopper_and_pearson(share):
    of = np.repeat([1, 2, 10, 59, 300, 2500], 40)
    counts = np.concatenate([np.linspace(0.8 * n, n, 40).round().astype(int) for n in of[::40]])
    expected = np.where(counts > 0, beta.ppf(0.05, np.maximum(counts, 1), of - counts + 1), 0) >= share
    assert np.array_equal(reaches(counts, of, share, 0.95), expected)
    assert 0 < expected.sum() < len(expected)


@pytest.mark.parametrize(("count", "of"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 11), (2400, 2500)])
def test_interval_of_a_proportion_is_that_of_wilson(count, of):
    ends = binomtest(count, of).proportion_ci(0.95, "wilson")
    assert wilson_interval(count, of, 0.95) == pytest.approx((ends.low, ends.high), abs=1e-12)
