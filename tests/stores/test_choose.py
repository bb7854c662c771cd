"""Choosing an index: the type by the number of vectors, the measured search effort, and what a growing index keeps."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from retrieval.bench.rows.synthetic import Cloud, project
from retrieval.errors import StoreError
from retrieval.stores.choose import choose_factory, fit_index
from retrieval.stores.faiss import AUTO, FaissStore, IndexSettings

ROWS, DIM = 60_000, 32


def heaps(rows, seed, dim=DIM, loose=0.5):
    """Unit vectors in 300 clusters, the same clusters for every seed."""
    centres = np.random.default_rng(0).standard_normal((300, dim))
    rng = np.random.default_rng([1, seed])
    vectors = centres[rng.integers(len(centres), size=rows)] + loose * rng.standard_normal((rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recall_at_10(store, vectors, queries):
    """The fraction of the ten exact nearest neighbours, by plain numpy, that the store finds."""
    found = store.search(queries, 10)[0]
    truth = np.argpartition(-(queries @ vectors.T), 10, axis=1)[:, :10]
    return np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found.tolist(), truth.tolist(), strict=True)])


@pytest.fixture(scope="module")
def vectors():
    return heaps(ROWS, seed=1)


@pytest.fixture(scope="module")
def queries():
    """Vectors from the same clusters, none of them in the index."""
    return heaps(400, seed=2)


@pytest.fixture(scope="module")
def fitted(vectors):
    return fit_index(vectors)


@pytest.mark.parametrize(
    ("rows", "dim", "factory"),
    [
        (1, 256, "Flat"),
        (50_000, 4_096, "Flat"),
        (50_001, 2, "IVF1024,SQfp16"),
        (1_000_000, 256, "IVF4096,SQfp16"),
        (2**21, 256, "IVF4096,SQfp16"),  # 1 GiB in 16 bits
        (2**21 + 1, 256, "IVF8192,RaBitQ"),
        (1_000_000, 536, "IVF4096,SQfp16"),  # 1.072 GB of the 1.074 that 1 GiB are
        (1_000_000, 537, "IVF4096,RaBitQ"),
        (10_000_000, 256, "IVF16384_HNSW32,RaBitQ"),
    ],
)
def test_index_is_chosen_by_rows_and_memory(rows, dim, factory):
    assert choose_factory(rows, dim) == factory
    FaissStore.check_factory(factory, dim)


def test_chosen_index_has_high_recall_on_new_queries(fitted, vectors, queries):
    assert (fitted.settings.factory, fitted.settings.chosen) == (choose_factory(ROWS, DIM), AUTO)
    assert len(fitted) == ROWS
    measured = recall_at_10(fitted, vectors, queries)
    assert measured >= 0.98
    assert fitted.settings.recall_at_10 == pytest.approx(measured, abs=0.01)


def test_filter_keeps_recall_high(fitted, vectors, queries):
    """The filter correlates with position: most of the lists nearest to a query hold no allowed row."""
    allowed = np.flatnonzero(vectors[:, 0] > 0.25)
    assert 2_000 < len(allowed) < ROWS / 10  # enough that the index is searched, not brute force
    found = fitted.search(queries, 10, allowed)[0]
    assert np.isin(found, allowed).all()
    truth = allowed[np.argpartition(-(queries @ vectors[allowed].T), 10, axis=1)[:, :10]]
    shared = [len(set(one) & set(other)) / 10 for one, other in zip(found.tolist(), truth.tolist(), strict=True)]
    assert np.mean(shared) >= 0.97


def test_bytes_per_vector_match_the_size_of_the_file(fitted, tmp_path):
    fitted.save(tmp_path / "index.faiss")
    assert fitted.settings.bytes_per_vector == pytest.approx((tmp_path / "index.faiss").stat().st_size / ROWS, abs=0.1)
    # Two bytes per component, a row number and the centroids.
    assert 2 * DIM < fitted.settings.bytes_per_vector < 2 * DIM + 12


def test_search_effort_is_saved_and_used_after_loading(fitted, vectors, queries, tmp_path):
    fitted.save(tmp_path / "index.faiss")
    settings = json.loads(json.dumps(asdict(fitted.settings)))
    assert settings["search"]["nprobe"] > 1
    loaded = FaissStore.load(tmp_path / "index.faiss", settings)
    assert loaded.settings == fitted.settings
    for found, wanted in zip(loaded.search(queries, 10), fitted.search(queries, 10), strict=True):
        np.testing.assert_array_equal(found, wanted)
    lazy = FaissStore.load(tmp_path / "index.faiss", {**settings, "search": {"nprobe": 1}})
    assert recall_at_10(lazy, vectors, queries) < recall_at_10(loaded, vectors, queries) - 0.05


@pytest.mark.parametrize("factory", ["Flat", "HNSW16,SQfp16", "IVF32,SQ8"])
def test_requested_index_is_built_and_its_recall_measured(factory, vectors, queries):
    few = vectors[:4_000]
    store = fit_index(few, factory)
    assert (store.settings.factory, store.settings.chosen) == (factory, "asked")
    assert store.settings.recall_at_10 == pytest.approx(recall_at_10(store, few, queries), abs=0.04)


@pytest.mark.parametrize("rows", [1, 2, 10, 11, 12])
def test_small_index_finds_every_row(rows, vectors):
    store = fit_index(vectors[:rows])
    assert (store.settings.factory, store.settings.recall_at_10) == ("Flat", 1.0)
    assert set(store.search(vectors[:1], rows)[0][0].tolist()) == set(range(rows))


def test_growing_index_keeps_its_training():
    """An 8-bit index keeps the value ranges of its first rows; values outside are clipped, unlike in a new index."""
    narrow, wide = heaps(2_000, seed=3, loose=0.0)[:50].repeat(40, axis=0), heaps(2_000, seed=4, loose=2.0)
    first = fit_index(narrow, "SQ8")
    grown = fit_index(np.concatenate([narrow, wide]), "SQ8", like=first)
    by_hand = first.emptied()
    by_hand.add(np.concatenate([narrow, wide]))
    np.testing.assert_array_equal(grown.vectors(np.arange(4_000)), by_hand.vectors(np.arange(4_000)))
    anew = fit_index(np.concatenate([narrow, wide]), "SQ8")
    assert np.abs(anew.vectors(np.arange(2_000, 4_000)) - wide).max() < 0.01
    assert np.abs(grown.vectors(np.arange(2_000, 4_000)) - wide).max() > 0.05
    assert (len(first), grown.settings.chosen) == (2_000, "asked")


def test_automatic_index_type_changes_with_the_size(fitted, vectors):
    shrunk = fit_index(vectors[:1_000], fitted.settings.factory, like=fitted)
    assert (shrunk.settings.factory, shrunk.settings.chosen, len(shrunk)) == ("Flat", AUTO, 1_000)
    grown = fit_index(heaps(50_001, 5, dim=16), shrunk.settings.factory, like=fit_index(heaps(100, 5, dim=16)))
    assert (grown.settings.factory, grown.settings.chosen) == ("IVF1024,SQfp16", AUTO)


def test_growing_index_is_not_retrained_for_more_lists():
    """131,073 rows would get 2,048 lists, but changing from 1,024 would mean training the index again."""
    many = heaps(131_073, 6, dim=16)
    assert choose_factory(*many.shape) == "IVF2048,SQfp16"
    first = FaissStore(16, IndexSettings("IVF1024,SQfp16"))
    first.train(many[:50_000])
    grown = fit_index(many, like=first)
    assert (grown.settings.factory, grown.lists, len(grown)) == ("IVF1024,SQfp16", 1024, len(many))
    assert grown.settings.recall_at_10 >= 0.98


def test_requested_index_type_stays_whatever_the_size(vectors):
    asked = fit_index(vectors[:2_000], "IVF16,Flat")
    grown = fit_index(vectors[:3_000], asked.settings.factory, like=asked)
    shrunk = fit_index(vectors[:5], asked.settings.factory, like=asked)  # too few to train, but it is trained already
    assert {store.settings.factory for store in (grown, shrunk)} == {"IVF16,Flat"}
    assert (grown.lists, shrunk.lists, len(shrunk)) == (16, 16, 5)
    assert set(shrunk.search(vectors[:1], 5)[0][0].tolist()) == set(range(5))


def test_invalid_or_untrainable_index_is_refused(vectors):
    with pytest.raises(StoreError, match="'Nonsense'"):
        fit_index(vectors[:100], "Nonsense")
    with pytest.raises(StoreError, match="'IVF256,Flat' cannot be trained with 100 vectors"):
        fit_index(vectors[:100], "IVF256,Flat")


@pytest.mark.parametrize("factory", ["IVF256,SQ6", "HNSW16,SQ6"])
def test_search_effort_stays_low_where_more_does_not_raise_recall(factory, vectors, queries):
    """With 6 bits recall stays near 0.9 at any effort; the tuning must not end in searching everything."""
    few = vectors[:10_000]
    store = fit_index(few, factory)
    assert store.settings.search[store.effort.name] <= store.effort.most / 8
    measured = recall_at_10(store, few, queries)
    store.settings = replace(store.settings, search={store.effort.name: store.effort.most})
    assert measured >= recall_at_10(store, few, queries) - 0.01


def test_full_search_effort_finds_nearly_every_neighbour(fitted, vectors, queries):
    """This checks the oracle of the tests above: with every list searched, a 16-bit index finds what numpy finds."""
    tuned = fitted.settings
    try:
        fitted.settings = replace(tuned, search={"nprobe": fitted.lists})
        assert recall_at_10(fitted, vectors, queries) >= 0.997
    finally:
        fitted.settings = tuned


@pytest.mark.parametrize("dim", [8, DIM, 48])
def test_synthetic_vectors_are_seeded_unit_length_and_near_real_ones(dim):
    real = heaps(500, seed=7)
    cloud = Cloud(real, dim)
    drawn = cloud.draw(700, seed=1)
    assert (drawn.shape, drawn.dtype) == ((700, dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(drawn, Cloud(real, dim).draw(700, seed=1))
    other = cloud.draw(700, seed=2)
    assert (drawn @ other.T).max() < 0.9999  # no row of one seed is a row of another
    # They lie near real vectors, nearer than the same values with shifted components.
    near, elsewhere = ((way @ project(real, dim).T).max(axis=1) for way in (drawn, np.roll(drawn, 1, axis=1)))
    assert np.median(near) > np.median(elsewhere) + 0.02


def test_projection_preserves_cosines_where_possible():
    real = heaps(100, seed=8, dim=6)
    for dim in (6, 20):
        wider = project(real, dim)
        assert wider.shape == (100, dim)
        np.testing.assert_allclose(wider @ wider.T, real @ real.T, atol=1e-6)
    flat = np.pad(real, ((0, 0), (0, 4)))  # six dimensions in a space of ten: six axes keep everything
    np.testing.assert_allclose(project(flat, 6) @ project(flat, 6).T, real @ real.T, atol=1e-5)
