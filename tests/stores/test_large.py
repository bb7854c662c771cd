"""Large indexes: two files, read where they are; what they declare is checked, and a damaged vector is no hit."""

import json
import os
import random
from dataclasses import asdict, replace

import numpy as np
import pytest

from retrieval.errors import IntegrityError
from retrieval.stores.choose import fit_index
from retrieval.stores.faiss import FaissStore, IndexSettings
from retrieval.stores.large.cells import Cells
from retrieval.stores.large.store import rows_file
from retrieval.stores.open import new_store, open_index
from retrieval.stores.stated import check_lengths

ROWS, DIM = 40_000, 32
FACTORY = "IVF256_HNSW8,RaBitQ"


def heaps(rows, seed, loose=0.5):
    """Unit vectors in 300 clusters, the same clusters for every seed, and the cluster of each."""
    centres = np.random.default_rng(0).standard_normal((300, DIM))
    rng = np.random.default_rng([1, seed])
    heap = rng.integers(len(centres), size=rows)
    vectors = centres[heap] + loose * rng.standard_normal((rows, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), heap


def recall_at_10(store, vectors, queries, allowed=None):
    """The fraction of the ten exact nearest neighbours, by plain numpy, that the store finds."""
    rows = np.arange(len(vectors)) if allowed is None else allowed
    found = store.search(queries, 10, allowed)[0]
    truth = rows[np.argpartition(-(queries @ vectors[rows].T), 10, axis=1)[:, :10]]
    return np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found.tolist(), truth.tolist(), strict=True)])


@pytest.fixture(scope="module")
def vectors():
    return heaps(ROWS, seed=1)[0]


@pytest.fixture(scope="module")
def queries():
    return heaps(200, seed=2)[0]


@pytest.fixture(scope="module")
def fitted(vectors):
    return fit_index(vectors, FACTORY)


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "index.faiss")
    return tmp_path / "index.faiss"


def opened(path, store):
    return open_index(path, json.loads(json.dumps(asdict(store.settings))))


def test_large_index_finds_nearly_all_neighbours_of_new_queries(fitted, vectors, queries):
    assert set(fitted.settings.search) == {"nprobe", "refine"}
    assert fitted.settings.search["nprobe"] < fitted.lists / 2
    measured = recall_at_10(fitted, vectors, queries)
    assert measured >= 0.97
    assert fitted.settings.recall_at_10 == pytest.approx(measured, abs=0.02)


def test_wide_filters_keep_recall_high_also_where_they_follow_the_classes(fitted, queries):
    """Each allows more rows than are compared exactly, so only the allowed rows of the nearest lists are."""
    vectors, heap = heaps(ROWS, seed=1)
    for allowed in (np.arange(0, ROWS, 2), np.flatnonzero(heap < 150), np.flatnonzero(vectors[:, 0] > 0)):
        assert 16_000 < len(allowed) < ROWS
        assert recall_at_10(fitted, vectors, queries, allowed) >= 0.97
        assert np.isin(fitted.search(queries, 10, allowed)[0], allowed).all()


def test_vectors_mapped_from_disk_give_the_same_files_as_those_in_memory(vectors, fitted, saved, tmp_path):
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = fit_index(np.load(tmp_path / "vectors.npy", mmap_mode="r"), FACTORY)
    (tmp_path / "mapped").mkdir()
    mapped.save(tmp_path / "mapped" / "index.faiss")
    for name in ("index.faiss", "index.safetensors"):
        assert (tmp_path / "mapped" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert mapped.settings == fitted.settings
    np.testing.assert_array_equal(mapped.search(vectors[:9], 5)[1], fitted.search(vectors[:9], 5)[1])


def test_second_file_is_read_by_the_library_of_its_format(saved, vectors, fitted):
    from safetensors import safe_open

    with safe_open(str(rows_file(saved)), "np") as file:
        halves, mean = file.get_tensor("vectors"), file.get_tensor("mean")
        assert np.bincount(file.get_tensor("lists"), minlength=fitted.lists).sum() == ROWS
    np.testing.assert_allclose(halves.astype(np.float32) + mean, vectors, atol=5e-4)


def test_growing_index_keeps_its_training(fitted, vectors):
    grown = fit_index(np.concatenate([fitted.vectors(np.arange(ROWS)), heaps(500, seed=5)[0]]), FACTORY, like=fitted)
    assert (grown.settings.factory, len(grown), len(fitted)) == (FACTORY, ROWS + 500, ROWS)
    np.testing.assert_array_equal(grown.vectors(np.arange(ROWS)), fitted.vectors(np.arange(ROWS)))
    few = fit_index(vectors[:5], FACTORY, like=fitted)
    assert set(few.search(vectors[:1], 5)[0][0].tolist()) == set(range(5))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_answers_as_its_parent(fitted, saved, queries):
    store = opened(saved, fitted)
    allowed = np.arange(0, ROWS, 2)
    expected = store.search(queries[:3], 5), store.search(queries[:3], 5, allowed)
    if not (child := os.fork()):
        again = store.search(queries[:3], 5), store.search(queries[:3], 5, allowed)
        os._exit(not all((a[0] == b[0]).all() for a, b in zip(expected, again, strict=True)))
    assert os.waitpid(child, 0)[1] == 0


def test_every_cut_of_either_file_is_refused(fitted, saved):
    for path in (saved, rows_file(saved)):
        content = path.read_bytes()
        for length in (0, 7, 8, 100, 4_000, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(IntegrityError, match="index"):
                opened(saved, fitted)
        path.write_bytes(content + b"\0")
        with pytest.raises(IntegrityError, match="index"):
            opened(saved, fitted)
        path.write_bytes(content)
    rows_file(saved).unlink()
    with pytest.raises(IntegrityError, match=r"index.safetensors is missing"):
        opened(saved, fitted)


def test_second_file_of_another_index_is_refused(fitted, saved, vectors):
    other = fit_index(vectors[::-1], FACTORY)
    other.save(saved.with_name("other.faiss"))
    rows_file(saved).write_bytes(saved.with_name("other.safetensors").read_bytes())
    with pytest.raises(IntegrityError, match="have different rows in their lists"):
        opened(saved, fitted)
    flat = FaissStore(DIM)
    flat.add(vectors[:9])
    flat.save(saved)
    with pytest.raises(IntegrityError, match="belongs to a large index"):
        opened(saved, flat)


def test_changed_numbers_are_refused_or_leave_an_index_that_can_be_searched(tmp_path):
    vectors = heaps(600, seed=7)[0]
    store = new_store(DIM, IndexSettings("IVF8_HNSW4,RaBitQ", search={"nprobe": 4, "refine": 50}))
    store.train(vectors)
    store.add(vectors)
    path, draw = tmp_path / "index.faiss", random.Random(0)
    store.save(path)
    whole = {each: each.read_bytes() for each in (path, rows_file(path))}
    searched = 0
    for number in range(240):
        spoiled = (path, rows_file(path))[number % 2]
        content = bytearray(whole[spoiled])
        place = draw.randrange(draw.choice([150, 6_000, len(content) - 8]))
        content[place : place + 8] = draw.choice([-1, 0, 600, 10**9, 2**31, 2**62]).to_bytes(8, "little", signed=True)
        for each, as_it_was in whole.items():
            each.write_bytes(content if each == spoiled else as_it_was)
        try:
            found = opened(path, store)
            check_lengths("index", found, found.settings.factory)
            for allowed in (None, np.arange(0, 600, 2)):
                rows, scores = found.search(vectors[:5], 3, allowed=allowed)
                assert (rows < 600).all() and (scores <= 1.05).all()
            searched += 1
        except IntegrityError:
            continue
    assert 20 < searched < 220


def test_row_number_beyond_the_last_is_refused_when_it_is_found(fitted, saved, vectors):
    """The lists are not read when an index is opened."""
    content = bytearray(saved.read_bytes())
    width = DIM // 8 + 8
    size = fitted._inverted.invlists.list_size(fitted.lists - 1)  # the last list is at the end of the file
    content[-8 * size :] = np.full(size, ROWS, np.int64).tobytes()
    assert size and len(content) > size * (width + 8)
    saved.write_bytes(content)
    store = opened(saved, fitted)
    store.settings = replace(store.settings, search={"nprobe": store.lists, "refine": ROWS})
    with pytest.raises(IntegrityError, match=f"has row {ROWS:,}, but {ROWS:,} rows"):
        store.search(vectors[:1], 10)


@pytest.mark.parametrize("value", [np.nan, np.inf, 30.0])
def test_damaged_vector_is_no_hit(value, fitted, saved, vectors):
    """Only some vectors are checked when an index is opened."""
    content = bytearray(rows_file(saved).read_bytes())
    row = 77
    place = len(content) - 2 * DIM * (ROWS - row)
    content[place : place + 2 * DIM] = np.full(DIM, value, np.float16).tobytes()
    rows_file(saved).write_bytes(content)
    store = opened(saved, fitted)
    check_lengths("index", store, FACTORY)
    query = np.full((1, DIM), DIM**-0.5, np.float32)
    allowed = np.array([row, 78])
    if np.isnan(value):
        assert store.search(query, 1, allowed)[0].tolist() == [[78]]
    else:
        with pytest.raises(IntegrityError, match="row 77 is not of unit length"):
            store.search(query, 1, allowed)


def test_cells_find_nearly_the_same_centres_as_comparing_all():
    vectors = heaps(20_000, seed=9)[0]
    cells = Cells.trained(vectors, 512)
    assert (cells.centres.shape, cells.centres.dtype) == ((512, DIM), np.float32)
    np.testing.assert_allclose(np.linalg.norm(cells.centres, axis=1), 1, atol=1e-5)
    nearest = cells.nearest(vectors[:2_000])
    all_of_them = vectors[:2_000] @ cells.centres.T
    assert (nearest == all_of_them.argmax(axis=1)).mean() >= 0.9
    chosen = all_of_them[np.arange(2_000), nearest]
    assert (all_of_them.max(axis=1) - chosen).mean() < 0.01
    again = Cells.of(cells.centres).nearest(vectors[:2_000])
    assert (again == nearest).mean() >= 0.9


@pytest.mark.parametrize(("rows", "lists"), [(1, 1), (5, 5), (300, 299), (300, 2)])
def test_few_vectors_can_have_a_list_each(rows, lists):
    cells = Cells.trained(heaps(rows, seed=11)[0], lists)
    assert cells.centres.shape == (lists, DIM)
    same = np.repeat(heaps(1, seed=12)[0], rows, axis=0)  # all alike
    assert Cells.trained(same, lists).nearest(same).max() < lists


def test_store_can_be_saved_over_the_files_that_it_is_read_from(fitted, saved, vectors):
    store = opened(saved, fitted)
    store.save(saved)
    again = opened(saved, fitted)
    np.testing.assert_array_equal(again.vectors(np.arange(ROWS)), fitted.vectors(np.arange(ROWS)))
    np.testing.assert_array_equal(store.search(vectors[:9], 5)[0], again.search(vectors[:9], 5)[0])


def test_copy_for_another_gallery_outlives_its_store(fitted, saved, queries):
    store = opened(saved, fitted)
    allowed = np.arange(0, ROWS, 2)
    expected = store.search(queries, 5, allowed)[0]
    store.add(queries)  # its lists are in memory now, and what FAISS had mapped is gone
    np.testing.assert_array_equal(store.search(queries, 5, allowed)[0], expected)
    assert (store.search(queries[:9], 1)[0][:, 0] >= ROWS).all()
    other = store.emptied()
    del store
    other.add(queries)
    assert (other.search(queries[:9], 1)[0][:, 0] == np.arange(9)).all()
