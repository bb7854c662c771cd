"""The 2-D map of a gallery, checked with numpy and scikit-learn, also for vectors that span fewer than two axes."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from sklearn.decomposition import PCA as OTHER

from retrieval.artifact.parts.map import METHODS, check_method, pca, project
from retrieval.errors import MapError, MissingExtraError
from retrieval.ui import strings


def clouds(rows=90, dim=12, seed=0):
    """Unit vectors in three clusters, and the cluster of each vector."""
    rng = np.random.default_rng(seed)
    which = np.arange(rows) % 3
    vectors = rng.standard_normal((3, dim))[which] * 3 + rng.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), which


@pytest.mark.parametrize(("rows", "dim"), [(3, 2), (5, 40), (90, 12), (9000, 6)])
def test_pca_matches_scikit_learn(rows, dim):
    vectors = np.random.default_rng(rows).standard_normal((rows, dim)).astype(np.float32) * np.linspace(1, 3, dim)
    expected = OTHER(2).fit_transform(vectors.astype(np.float64))
    found = pca(vectors.astype(np.float32))
    assert found.shape == (rows, 2)
    assert found.dtype == np.float32
    for column in range(2):  # equal up to the sign of each axis, an offset and one common scale
        expected[:, column] *= np.sign(expected[:, column] @ found[:, column])
    scale = 2 / np.ptp(expected, axis=0).max()
    middle = (expected.max(axis=0) + expected.min(axis=0)) / 2
    np.testing.assert_allclose(found, (expected - middle) * scale, atol=1e-5)


def test_pca_axes_do_not_depend_on_row_order_or_rounding():
    vectors, _ = clouds()
    found = pca(vectors)
    order = np.random.default_rng(1).permutation(len(vectors))
    np.testing.assert_allclose(pca(vectors[order]), found[order], atol=1e-5)
    np.testing.assert_allclose(pca((vectors * (1 + 1e-6)).astype(np.float32)), found, atol=1e-4)
    line = np.outer([-1, 0, 2], [1, -1]).astype(np.float32)  # both components are equally large
    np.testing.assert_allclose(pca(line), [[-1, 0], [-1 / 3, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(pca(line * np.float32([1, 1 + 1e-7])), pca(line), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_map_fills_the_square_and_is_deterministic(method):
    vectors, which = clouds()
    found = project(vectors, method)
    assert found.shape == (90, 2)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose([found.min(), found.max()], [-1, 1], atol=1e-6)
    np.testing.assert_allclose(found.max(axis=0) + found.min(axis=0), 0, atol=1e-6)
    np.testing.assert_array_equal(project(vectors, method), found)
    distances = np.linalg.norm(found[:, None] - found[None], axis=2) + 9 * np.eye(90)
    assert (which[distances.argmin(axis=1)] == which).mean() > 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "vectors", [np.eye(1, 5), np.ones((1, 1)), np.ones((20, 4)), np.full((20, 1), -1), np.eye(3, 7)]
)
def test_map_of_few_or_equal_vectors_is_finite(method, vectors):
    found = project(vectors.astype(np.float32), method)
    assert found.shape == (len(vectors), 2)
    assert np.isfinite(found).all()
    assert found.any() == (len(vectors) == 3)


def test_map_of_two_vectors_or_a_line_uses_one_axis():
    two = np.float32([[1, 0, 0], [0, 0.6, 0.8]])
    assert sorted(pca(two).tolist()) == [[-1, 0], [1, 0]]
    assert pca(np.float32([[3], [1], [2]])).tolist() == [[1, 0], [-1, 0], [0, 0]]
    assert pca(np.empty((0, 4), np.float32)).shape == (0, 2)


def test_pca_does_not_copy_all_vectors():
    """PCA may hold one chunk of rows and a D x D matrix, not a second copy of the vectors in double precision."""
    code = """
import resource, numpy as np
from retrieval.artifact.parts.map import pca
pca(np.ones((100, 64), np.float32))
vectors = np.random.default_rng(0).standard_normal((1_000_000, 64), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pca(vectors)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100_000  # kB; the vectors are 250,000, and the map in double precision 16,000


def test_unknown_or_uninstalled_map_method_is_an_error(monkeypatch):
    vectors, _ = clouds()
    with pytest.raises(MapError, match="unknown map method 'isomap'; choose one of pca, tsne, umap"):
        project(vectors, "isomap")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in {"umap", "openTSNE"} else name)
    for method, module in (("tsne", "openTSNE"), ("umap", "umap")):
        with pytest.raises(MissingExtraError, match=rf"'{method}' needs {module}, .*: pip install '.*\[map\]'"):
            check_method(method)
    check_method("pca")


def test_page_has_a_label_for_every_map_method():
    assert set(strings.MAP_METHODS) == set(METHODS)
