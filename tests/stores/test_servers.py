"""One contract for every vector database: ids, scores and filters must match brute force, whatever else is in there."""

import dataclasses
import os
from contextlib import closing
from secrets import token_hex

import numpy as np
import pytest
from test_stores import ALLOWED, DIM, QUERIES, ROUNDING, VECTORS, assert_agrees

from retrieval.errors import StoreError
from retrieval.stores.base import MISSING
from retrieval.stores.paired import PairedStore
from retrieval.stores.servers.base import NO_KEY, State, Tagged
from retrieval.stores.servers.open import open_collection

ROWS = len(VECTORS)
KEYS = np.random.default_rng(3).permutation(np.arange(1, 10 * ROWS))[:ROWS].astype(np.int64)
KEYS[5] = 2**62 - 1  # the largest that there is
TAGS = [np.array(sorted({1 + row % 7, 100 + row // 1_000, 2**61 + row % 2}), np.int64) for row in range(ROWS)]
STATE = State("0123abc", DIM, {"old": 7, "new": ROWS})
FOREIGN = np.array([2**40, 2**41], np.int64)  # points of another version


# Also real servers, which get new collections: LOOKALIKE_STORES="milvus+http://localhost:19530 qdrant+http://localhost:6333".
SERVERS = os.environ.get("LOOKALIKE_STORES", "").split()


@pytest.fixture(scope="module", params=["qdrant", "postgresql", "milvus", *SERVERS])
def uri(request, tmp_path_factory):
    if request.param in SERVERS:
        return f"{request.param}/it_{token_hex(4)}"
    if request.param == "postgresql":
        return request.getfixturevalue("postgres")
    return "qdrant::memory:" if request.param == "qdrant" else f"milvus:{tmp_path_factory.mktemp('milvus') / 'it.db'}"


@pytest.fixture(scope="module")
def collection(uri):
    """A collection with VECTORS, and two points of another version that are nearer to the first query."""
    with closing(open_collection(uri)) as opened:
        assert opened.state() is None
        opened.create(STATE)
        for start in range(0, ROWS, 1_000):
            part = slice(start, start + 1_000)
            opened.upsert(KEYS[part], VECTORS[part], TAGS[part])
        opened.upsert(FOREIGN, QUERIES[[0, 0]], [TAGS[0], TAGS[0]])
        opened.finish()
        yield opened


@pytest.fixture(scope="module")
def store(uri, collection):
    return PairedStore(uri, collection, KEYS, DIM)


def test_collection_says_what_it_holds(collection):
    assert collection.state() == STATE
    np.testing.assert_array_equal(collection.keys(), np.sort([*KEYS, *FOREIGN]))
    collection.set_versions({"new": 3})
    assert collection.state() == dataclasses.replace(STATE, versions={"new": 3})
    collection.set_versions(STATE.versions)
    assert list(collection.state().versions) == ["old", "new"]


@pytest.mark.parametrize("k", [1, 10, ROWS + 100])
@pytest.mark.parametrize("allowed", ALLOWED.values(), ids=ALLOWED)
def test_search_matches_brute_force(store, allowed, k):
    rows = None if allowed is None else np.array(allowed, np.int64)
    assert_agrees(store.search(QUERIES, k, rows), QUERIES, k, VECTORS, allowed, ROUNDING)


def test_vectors_are_given_back_as_they_were(store):
    rows = np.array([5, 0, 2_999, 5, 1_000])
    np.testing.assert_allclose(store.vectors(rows), VECTORS[rows], atol=ROUNDING)
    assert store.vectors(np.array([], np.int64)).shape == (0, DIM)
    assert len(store) == ROWS
    with pytest.raises(StoreError, match=f"there are {ROWS} rows"):
        store.vectors(np.array([ROWS]))


@pytest.mark.parametrize("count", [1, 300, 2_500])
def test_points_that_are_named_are_compared_exactly(uri, collection, count):
    rows = np.random.default_rng(5).permutation(ROWS)[:count]
    keys, scores = collection.compare(QUERIES, KEYS[rows], 10)
    every = np.where(np.isin(np.arange(ROWS), rows), QUERIES @ VECTORS.T, -np.inf)
    best = np.argsort(-every, axis=1, kind="stable")[:, :10]
    found = min(count, 10)
    np.testing.assert_allclose(scores[:, :found], np.take_along_axis(every, best, axis=1)[:, :found], atol=ROUNDING)
    assert (keys[:, found:] == NO_KEY).all()
    with pytest.raises(StoreError, match="has lost 1 of 2 points"):
        collection.compare(QUERIES, np.array([KEYS[0], 99]), 1)


CONDITIONS = {
    "one": [Tagged((3,))],
    "any of": [Tagged((3, 5, 99_999))],
    "none of": [Tagged((3, 102), negated=True)],
    "all": [Tagged((1, 2, 3)), Tagged((100, 101)), Tagged((2**61,), negated=True)],
    "two negated": [Tagged((1,), negated=True), Tagged((2,), negated=True)],
    "nothing has it": [Tagged((99_999,))],
}


def passing(where):
    return [
        row
        for row, own in enumerate(TAGS)
        if all(bool(set(own.tolist()) & set(each.tags)) != each.negated for each in where)
    ]


@pytest.mark.parametrize("where", CONDITIONS.values(), ids=CONDITIONS)
def test_database_filters_by_tags(collection, store, where):
    rows = passing(where)
    keys, scores = collection.search(QUERIES, 50, where)
    found = keys[keys != NO_KEY]
    assert set(found.tolist()) <= {*KEYS[rows].tolist(), *FOREIGN.tolist()}
    assert np.isneginf(scores[keys == NO_KEY]).all()
    assert_agrees(store.search(QUERIES, 10, np.array(rows, np.int64), where), QUERIES, 10, VECTORS, rows, ROUNDING)


def test_filter_that_the_database_was_not_told_is_still_right(store):
    rows = list(range(0, ROWS, 3)) + list(range(1, ROWS, 3))  # more than are compared one by one at once
    assert_agrees(store.search(QUERIES, 20, np.array(rows)), QUERIES, 20, VECTORS, rows, ROUNDING)


def test_points_of_other_versions_are_never_found(collection, store):
    assert set(collection.search(QUERIES[:1], 3)[0][0].tolist()) & set(FOREIGN.tolist())
    rows, _ = store.search(QUERIES, 100)
    assert (rows != MISSING).all()


def test_points_are_replaced_marked_and_deleted(uri):
    other = f"{uri}&collection=more" if uri.startswith("postgresql") else uri.replace("/it", "/more")
    with closing(open_collection(other)) as more:
        more.create(dataclasses.replace(STATE, versions={}))
        more.upsert(KEYS[:10], VECTORS[:10], TAGS[:10])
        more.upsert(KEYS[3:5], VECTORS[13:15], TAGS[13:15])
        more.finish()
        np.testing.assert_allclose(more.vectors(KEYS[[3, 2]]), VECTORS[[13, 2]], atol=ROUNDING)
        more.mark_leaving(KEYS[:4])
        more.upsert(KEYS[:1], VECTORS[:1], TAGS[:1])  # it is there again
        more.delete_leaving()
        more.finish()
        assert set(more.keys().tolist()) == {KEYS[0], *KEYS[4:10]}
        with pytest.raises(StoreError, match="has lost 1 of 2 points"):
            more.vectors(KEYS[:2])
        assert more.search(VECTORS[:1], 3)[0][0, 0] == KEYS[0]
        assert (size := more.size()) is None or size > 0
        more.drop()
        assert more.state() is None


@pytest.mark.parametrize("address", ["milvius:a", "", "a.db", "http://localhost:6333", "/tmp/store"])
def test_address_of_another_form_is_refused(address):
    with pytest.raises(StoreError, match=r"there is no store .*: give "):
        open_collection(address)


@pytest.mark.parametrize("name", ["a-b", "1a", "a/b", "é", "a" * 49, "a b"])
def test_collection_with_a_name_that_not_all_databases_can_have_is_refused(name):
    with pytest.raises(StoreError, match="a collection cannot be called"):
        open_collection(f"qdrant+http://localhost:1/{name}")


def test_database_that_does_not_answer_is_one_sentence():
    with pytest.raises(StoreError, match=r"^the store qdrant\+http://127\.0\.0\.1:1 failed: [^\n]*$"):
        open_collection("qdrant+http://127.0.0.1:1").state()
