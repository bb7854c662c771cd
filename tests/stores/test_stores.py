"""One contract for every store: ids and scores must match brute force in plain numpy."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import NamedTuple

import faiss
import numpy as np
import pytest
from exact_store import ExactStore

from retrieval.errors import IntegrityError, StoreError
from retrieval.stores.base import MISSING
from retrieval.stores.faiss import AUTO, FaissStore, IndexSettings
from retrieval.stores.faiss.narrow import EXACT_UP_TO
from retrieval.stores.large.store import LargeStore
from retrieval.stores.open import new_store, open_index

ROWS, DIM = 12_000, 32
ROUNDING = 2e-6  # rounding error of float32 sums
# The largest error of a stored vector, and so of a score.
TOLERANCES = {
    "exact": ROUNDING,
    "Flat": ROUNDING,
    "SQfp16": 5e-4,
    "SQ8": 8e-3,
    "IVF16,Flat": ROUNDING,
    "IVF16,SQfp16": 5e-4,
    "IVF16,SQ8": 8e-3,
    "IVF16_HNSW4,SQ6": 3e-2,
    "HNSW16,Flat": ROUNDING,
    "HNSW32,SQ8": 8e-3,
    "IVF16,RaBitQ": 5e-4,
    "IVF64_HNSW4,RaBitQ": 5e-4,
}
# Indexes with another score, or whose rows cannot be filtered or read back; and strings that name no index.
REFUSED = [
    *("LSH", "PCA16,Flat", "OPQ8,IVF16,PQ8", "PQ8", "HNSW16,PQ8", "IVF16,PQ8x4fs", "IVF16,PQ8+16", "IVF16,PQ8"),
    *("RaBitQ", "HNSW32,RaBitQ", "IVF16,RaBitQ4", "IVF16,RaBitQfs"),
    *("Flat,RFlat", "IVF16,Flat,RFlat", "SQfp16,Refine(Flat)"),
    *("L2norm,Flat", "RR32,Flat", "IDMap,Flat", "IDMap2,Flat", "HNSW1,Flat", "IVF0,Flat", "IVF16", "SQ4"),
    *("", " ", "flat", "Flat ", "Nonsense", "IVF16,Nonsense", "Flat;Flat", "auto"),
]
ALLOWED = {
    "no filter": None,
    "empty": [],
    "one": [1_234],
    "rare": [3, 500, 501, 502, 1_999, 2_000, 2_999],
    "few": list(range(500, 500 + EXACT_UP_TO)),
    "large": list(range(400, 401 + EXACT_UP_TO)),
    "all": list(range(ROWS)),
}


def drawn(rows, seed):
    """Unit vectors in 30 loose clusters, the same clusters for every seed."""
    centres = np.random.default_rng(0).standard_normal((30, DIM))
    rng = np.random.default_rng([1, seed])
    vectors = centres[rng.integers(len(centres), size=rows)] + 0.6 * rng.standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = drawn(ROWS, seed=1)
QUERIES = np.concatenate([VECTORS[[0, 999, ROWS - 1]], drawn(9, seed=2)])


class Filled(NamedTuple):
    store: object
    tolerance: float


def empty_store(name):
    """An empty store, trained if necessary, that searches with the greatest effort."""
    if name == "exact":
        return ExactStore(DIM)
    store = new_store(DIM, IndexSettings(name))
    store.train(VECTORS)
    if store.effort:
        store.settings = replace(store.settings, search=efforts(store, store.effort.most))
    return store


def efforts(store, value):
    """The search settings of this effort; of a large index, all rows are compared exactly."""
    return {store.effort.name: value} | ({"refine": ROWS} if isinstance(store, LargeStore) else {})


def filled_store(name):
    store = empty_store(name)
    for piece in np.split(np.arange(ROWS), [1, 1, 1_000]):  # one of the pieces is empty
        store.add(VECTORS[piece])
    return store


@pytest.fixture(scope="module", params=TOLERANCES)
def filled(request):
    """A store that holds VECTORS; tests must not change it."""
    return Filled(filled_store(request.param), TOLERANCES[request.param])


def assert_agrees(answer, queries, k, vectors, allowed, tolerance):
    """Check ids and scores against brute force; rows whose scores differ by less than the tolerance may swap."""
    ids, scores = answer
    rows = np.arange(len(vectors)) if allowed is None else np.unique(np.array(allowed, np.int64))
    there = min(k, len(rows))
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    assert ids.shape == scores.shape == (len(queries), k)
    assert (ids.dtype, scores.dtype) == (np.int64, np.float32)
    assert (ids[:, there:] == MISSING).all()
    assert np.isneginf(scores[:, there:]).all()
    ids, scores = ids[:, :there], scores[:, :there]
    assert np.isin(ids, rows).all()
    assert all(len(set(line)) == there for line in ids.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()
    best = -np.sort(-products[:, rows], axis=1)[:, :there]
    np.testing.assert_allclose(scores, np.take_along_axis(products, ids, axis=1), atol=tolerance, rtol=0)
    np.testing.assert_allclose(scores, best, atol=tolerance, rtol=0)


@pytest.mark.parametrize("k", [1, 10, ROWS + 100])
@pytest.mark.parametrize("allowed", ALLOWED.values(), ids=ALLOWED)
def test_search_matches_brute_force(filled, allowed, k):
    rows = None if allowed is None else np.array(allowed, np.int64)
    answer = filled.store.search(QUERIES, k, rows)
    assert_agrees(answer, QUERIES, k, VECTORS, allowed, filled.tolerance)
    stored = filled.store.vectors(np.arange(ROWS))
    np.testing.assert_allclose(stored, VECTORS, atol=filled.tolerance, rtol=0)
    assert_agrees(answer, QUERIES, k, stored, allowed, ROUNDING)  # scores are computed from the vectors as stored


def test_allowed_rows_can_be_unordered_and_repeated(filled):
    for allowed in (ALLOWED["rare"], ALLOWED["large"]):
        shuffled = np.random.default_rng(3).permutation(np.array(allowed * 2))
        expected = filled.store.search(QUERIES, 10, np.array(allowed))
        for found, wanted in zip(filled.store.search(QUERIES, 10, shuffled), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("filled", [name for name in TOLERANCES if "," in name], indirect=True)
@pytest.mark.parametrize("allowed", ["rare", "few", "large", "all", "no filter"])
def test_lowest_search_effort_still_returns_k_hits(filled, allowed):
    """Low effort may miss the best rows, but the number of hits, the filter and the scores stay correct."""
    store, full = filled.store, filled.store.settings
    rows = None if ALLOWED[allowed] is None else np.array(ALLOWED[allowed])
    count = ROWS if rows is None else len(rows)
    store.settings = replace(full, search=efforts(store, store.effort.least))
    try:
        for k in (5, count - 1, count + 5):
            ids, scores = store.search(QUERIES, k, rows)
            assert ((ids != MISSING).sum(axis=1) == min(k, count)).all()
            found = ids[:, : min(k, count)]
            assert rows is None or np.isin(found, rows).all()
            products = np.take_along_axis(QUERIES @ VECTORS.T, found, axis=1)
            np.testing.assert_allclose(scores[:, : min(k, count)], products, atol=filled.tolerance, rtol=0)
    finally:
        store.settings = full


def test_vectors_are_returned_in_the_requested_order(filled):
    rows = np.array([7, 0, ROWS - 1, 7])
    vectors = filled.store.vectors(rows)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, VECTORS[rows], atol=filled.tolerance, rtol=0)
    assert filled.store.vectors(np.array([], np.int64)).shape == (0, DIM)


def test_invalid_arguments_are_refused_and_change_nothing(filled):
    store, two = filled.store, VECTORS[:2]
    for vectors in (two[:, :-1], two[0], two[None]):
        with pytest.raises(StoreError, match="must have shape"):
            store.add(vectors)
    for queries in (QUERIES[0], QUERIES[:, :-1], QUERIES[None]):
        with pytest.raises(StoreError, match=rf"\(Q, {DIM}\)"):
            store.search(queries, 5)
    for k in (0, -1):
        with pytest.raises(StoreError, match=f"k must be at least 1, not {k}"):
            store.search(QUERIES, k)
    for rows in ([-1], [0, ROWS], [-ROWS]):
        with pytest.raises(StoreError, match=f"there are {ROWS} rows"):
            store.search(QUERIES, 5, np.array(rows))
        with pytest.raises(StoreError, match=f"there are {ROWS} rows"):
            store.vectors(np.array(rows))
    assert len(store) == ROWS
    assert store.dim == DIM


def test_search_without_queries_returns_empty_arrays(filled):
    for allowed in (None, np.array(ALLOWED["rare"]), np.array(ALLOWED["large"])):
        ids, scores = filled.store.search(QUERIES[:0], 3, allowed)
        assert ids.shape == scores.shape == (0, 3)


def test_concurrent_searches_match_sequential_ones():
    """Sixty concurrent searches, each with its own filter, in a store that has not cached its row positions yet."""
    rng = np.random.default_rng(4)
    sizes = [1, 5, 50, EXACT_UP_TO, EXACT_UP_TO + 1, ROWS - 1] * 10
    filters = [np.sort(rng.choice(ROWS, size, replace=False)) for size in sizes]
    queries = drawn(len(sizes), seed=5)[:, None]
    for name in ("exact", "Flat", "IVF16,SQfp16", "HNSW32,SQ8", "IVF16,RaBitQ"):
        serial = list(map(filled_store(name).search, queries, [7] * len(sizes), filters))
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(filled_store(name).search, queries, [7] * len(sizes), filters))
        for (ids, scores), (alone_ids, alone_scores), allowed in zip(together, serial, filters, strict=True):
            assert np.isin(ids[ids != MISSING], allowed).all()
            np.testing.assert_array_equal(ids, alone_ids, err_msg=name)
            np.testing.assert_allclose(scores, alone_scores, atol=ROUNDING, err_msg=name)


@pytest.mark.parametrize("name", TOLERANCES)
def test_search_finds_all_tied_rows(name):
    """With forty identical rows any of them may come first, none comes twice, and all have the same score."""
    same = np.arange(100, 140)
    vectors = VECTORS.copy()
    vectors[same] = VECTORS[100]
    store = empty_store(name)
    store.add(vectors)
    for k, allowed in [(40, None), (60, None), (25, same), (40, np.arange(50, 2_500))]:
        ids, scores = store.search(vectors[100:101], k, allowed)
        assert np.isin(ids[0, :40], same).all()
        assert max(Counter(ids[0].tolist()).values()) == 1
        assert np.ptp(scores[0, :40]) <= ROUNDING
        assert_agrees((ids, scores), vectors[100:101], k, store.vectors(np.arange(ROWS)), allowed, ROUNDING)
    if name == "exact":
        np.testing.assert_array_equal(store.search(vectors[100:101], 40)[0][0], same)


@pytest.mark.parametrize("name", TOLERANCES)
def test_empty_and_small_stores_can_be_searched(name):
    store = empty_store(name)
    for size in (0, 20):
        store.add(VECTORS[:size])
        assert len(store) == size
        for allowed in (None, np.array([], np.int64)):
            answer = store.search(QUERIES, 3, allowed)
            assert_agrees(answer, QUERIES, 3, VECTORS[:size], allowed, TOLERANCES[name])


@pytest.mark.parametrize("name", [name for name in TOLERANCES if name != "exact"])
def test_saved_index_loads_unchanged(name, tmp_path):
    store = filled_store(name)
    store.settings = replace(store.settings, chosen="asked", recall_at_10=0.99, bytes_per_vector=1.5)
    store.save(tmp_path / "index.faiss")
    loaded = open_index(tmp_path / "index.faiss", json.loads(json.dumps(asdict(store.settings))))
    assert (loaded.dim, len(loaded), loaded.settings) == (DIM, ROWS, store.settings)
    assert loaded.effort == store.effort
    np.testing.assert_array_equal(loaded.vectors(np.arange(ROWS)), store.vectors(np.arange(ROWS)))
    for allowed in (None, np.array(ALLOWED["rare"]), np.array(ALLOWED["large"])):
        for found, wanted in zip(loaded.search(QUERIES, 9, allowed), store.search(QUERIES, 9, allowed), strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert store.size_in_bytes() == loaded.size_in_bytes() == sum(path.stat().st_size for path in tmp_path.iterdir())
    loaded.add(QUERIES[-1:])  # vectors can still be added
    assert loaded.search(QUERIES[-1:], 1)[0].tolist() == [[ROWS]]


@pytest.mark.parametrize("name", [name for name in TOLERANCES if name != "exact"])
def test_vectors_read_and_added_again_are_bit_identical(name):
    store = filled_store(name)
    vectors = store.vectors(np.arange(ROWS))
    again = store.emptied()
    assert (len(again), len(store), again.settings) == (0, ROWS, store.settings)
    again.add(vectors)
    np.testing.assert_array_equal(again.vectors(np.arange(ROWS)), vectors)
    assert_agrees(again.search(QUERIES, 10), QUERIES, 10, vectors, None, ROUNDING)


def test_half_precision_stores_float16_values_exactly():
    rounded, store = VECTORS.astype(np.float16).astype(np.float32), empty_store("IVF16,SQfp16")
    store.add(rounded)
    np.testing.assert_array_equal(store.vectors(np.arange(ROWS)), rounded)


@pytest.mark.parametrize("factory", REFUSED)
def test_unsupported_index_is_refused(factory):
    with pytest.raises(StoreError, match="is not supported") as caught:
        FaissStore.check_factory(factory, DIM)
    assert repr(factory) in str(caught.value)
    with pytest.raises(StoreError):
        FaissStore(DIM, IndexSettings(factory))


def test_supported_index_is_accepted():
    for factory in (AUTO, *TOLERANCES.keys() - {"exact"}):
        FaissStore.check_factory(factory, DIM)


def test_untrained_index_is_an_error():
    store = FaissStore(DIM, IndexSettings("IVF16,SQ8"))
    with pytest.raises(StoreError, match=r"'IVF16,SQ8' must be trained"):
        store.add(VECTORS[:5])
    with pytest.raises(StoreError, match=r"'IVF16,SQ8' cannot be trained with 5 vectors"):
        store.train(VECTORS[:5])


def test_file_that_is_not_an_inner_product_index_is_refused(tmp_path):
    path, garbled = tmp_path / "index.faiss", np.random.default_rng(0).bytes(1_000)
    faiss.write_index(faiss.IndexFlatIP(DIM), str(path))
    for content in (b"", garbled, path.read_bytes()[:20]):
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match="is not a readable FAISS index"):
            FaissStore.load(path, {})
    faiss.write_index(faiss.IndexFlatL2(DIM), str(path))
    with pytest.raises(IntegrityError, match="must be the inner product"):
        FaissStore.load(path, {})


def test_filter_that_is_kept_is_told_from_another_of_the_same_size():
    """Also if the caller writes another filter into the same array, and where only rows between samples differ."""
    store = filled_store("IVF16,SQfp16")
    allowed = np.arange(5_000)
    for moved in (0, 7_000, 3):
        allowed[:] = np.arange(5_000) + moved
        assert_agrees(store.search(QUERIES, 10, allowed), QUERIES, 10, VECTORS, allowed, TOLERANCES["SQfp16"])
    allowed[1] = 11_000
    ids = store.search(VECTORS[11_000:11_001], 1, allowed)[0]
    assert ids.tolist() == [[11_000]]


@pytest.mark.parametrize("name", ["IVF16,SQfp16", "IVF16,RaBitQ"])
def test_mapped_index_holds_no_vectors_in_memory_and_survives_its_file(name, tmp_path):
    """A new version of an artifact takes the place of the old files, while the old index is still searched."""
    store = filled_store(name)
    store.save(tmp_path / "index.faiss")
    loaded = open_index(tmp_path / "index.faiss", asdict(store.settings))
    lists = faiss.downcast_InvertedLists(loaded._inverted.invlists)
    assert isinstance(lists, faiss.OnDiskInvertedLists) and lists.prefetch_nthread == 0
    for path in tmp_path.iterdir():
        path.unlink()
    for allowed in (None, np.arange(0, ROWS, 3)):
        for found, wanted in zip(loaded.search(QUERIES, 9, allowed), store.search(QUERIES, 9, allowed), strict=True):
            np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(loaded.emptied().vectors(np.arange(0)), store.vectors(np.arange(0)))
    loaded.save(tmp_path / "again.faiss")
    again = open_index(tmp_path / "again.faiss", asdict(store.settings))
    np.testing.assert_array_equal(again.vectors(np.arange(ROWS)), store.vectors(np.arange(ROWS)))
