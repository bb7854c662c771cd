"""An artifact and a vector database: the same hits, only with the version that is there, followed by difference."""

import gc
import json
import os
import pickle
import tracemalloc
from contextlib import closing
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import noise

from retrieval import Searcher, open_artifact
from retrieval.__main__ import main
from retrieval.artifact.pairing import fill
from retrieval.artifact.tags import BLOCK, RowTags, conditions_of, tag_of
from retrieval.build.change import add_images, remove_images
from retrieval.errors import IntegrityError, StoreError
from retrieval.images.gallery import Gallery, read_tables, write_gallery
from retrieval.sources.open import open_source
from retrieval.stores.servers.open import STORE, open_collection
from retrieval.stores.unread import UnreadStore

WHERE = [
    None,
    {"colour": "red"},
    {"colour": ["red", "blue"], "pattern": {"!=": "plain"}},
    {"price": {"<=": 30}},
    {"price": {">": 10, "<": 40}, "label": {"!=": "dress"}},
    {"colour": {"!=": None}},
    {"colour": None},
]


@pytest.fixture(autouse=True)
def no_store(monkeypatch):
    """What a command sets for its process ends with the test."""
    monkeypatch.delenv(STORE, raising=False)
    yield
    os.environ.pop(STORE, None)


NAMES = map("c{}_of_pairing".format, count())


@pytest.fixture
def uri(postgres):
    """The URI of a collection that does not exist yet."""
    return f"{postgres}&collection={next(NAMES)}"


@pytest.fixture(scope="module")
def filled(artifact, postgres):
    """The URI of a collection that holds the 60 images. Read-only."""
    uri = f"{postgres}&collection={next(NAMES)}"
    assert main(["index", str(artifact), "--to", uri]) == 0
    return uri


@pytest.fixture(scope="module")
def both(artifact, filled):
    """A searcher with the artifact's own index, and one with the database."""
    return Searcher.open(artifact), Searcher.open(artifact, store=filled)


@pytest.mark.parametrize("where", WHERE, ids=str)
def test_hits_are_those_of_the_artifacts_own_index(both, where):
    own, there = both
    for row in (0, 17, 59):
        query = {"id": own.gallery.ids[row], "k": 20, "where": where}
        hits, found = own.search(**query), there.search(**query)
        assert [hit.id for hit in hits] == [hit.id for hit in found]
        np.testing.assert_allclose([hit.score for hit in hits], [hit.score for hit in found], atol=1e-5)
        assert [hit.chance for hit in hits] == pytest.approx([hit.chance for hit in found], abs=1e-4)


@pytest.mark.parametrize("where", WHERE[1:], ids=str)
def test_tags_tell_a_database_exactly_what_a_filter_means(both, where):
    gallery = both[0].gallery
    tags, conditions = RowTags(gallery).of(np.arange(len(gallery))), conditions_of(gallery, where)
    assert len(conditions) == sum(len(each) if isinstance(each, dict) else 1 for each in where.values())
    passing = [
        row
        for row, own in enumerate(tags)
        if all(bool(set(own.tolist()) & set(each.tags)) != each.negated for each in conditions)
    ]
    assert passing == gallery.rows_where(where).tolist()


def test_rows_have_a_key_each_that_changes_with_their_values(both, tmp_path):
    gallery = both[0].gallery
    keys = RowTags(gallery).keys()
    assert len(set(keys.tolist())) == len(gallery)
    assert keys.min() > 0
    [table] = read_tables(gallery.files, np.arange(len(gallery)))
    colours = table["colour"].to_pylist()
    changed = table.set_column(table.column_names.index("colour"), "colour", pa.array(["another", *colours[1:]]))
    other = RowTags(Gallery(write_gallery(tmp_path / "g.parquet", [changed], gallery.schema))).keys()
    assert (other != keys).tolist() == [True] + [False] * (len(gallery) - 1)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A gallery of several blocks of rows, with texts, numbers, lists and missing values."""
    rows = np.arange(4 * BLOCK + 7)
    lists = [[f"t{row % 5}", f"t{row % 3}"][: row % 3] for row in rows.tolist()]
    table = pa.table(
        {name: [f"{row:016x}" for row in rows] for name in ("id", "source", "sha256")}
        | {"thumbnail": pa.array([b""] * len(rows), pa.binary())}
        | {"label": [None if row % 11 == 0 else f"c{row % 100}" for row in rows.tolist()]}
        | {"price": (rows % 50) / 2, "tags": lists}
    )
    path = tmp_path_factory.mktemp("large") / "gallery.parquet"
    pq.write_table(table, path)
    return Gallery(path)


def test_tags_and_keys_are_the_same_in_any_block(large):
    tags = RowTags(large)
    rows = np.array([0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5, len(large) - 1])
    for row, own in zip(rows.tolist(), tags.of(rows), strict=True):
        [image] = large.take([row])
        texts = {"label": image.label, "price": str(image.attributes["price"]).removesuffix(".0")}
        expected = {tag_of(column, text) for column, text in texts.items()}
        expected |= {tag_of("tags", text) for text in image.attributes["tags"] or [None]}
        assert own.tolist() == sorted(expected)
    assert len(set(tags.keys().tolist())) == len(large)


def test_memory_for_tags_and_keys_does_not_grow_by_objects_for_each_row(large):
    for column in ("label", *large.attributes):
        _ = large.column(column).missing
    tracemalloc.start()
    try:
        keys = RowTags(large).keys()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < keys.nbytes + 500 * BLOCK  # a list of arrays alone takes 200 bytes a row


def test_searcher_with_a_database_can_be_sent_to_another_process(artifact, uri):
    fill(open_artifact(artifact), uri)
    searcher = Searcher.open(artifact, store=uri)
    make, arguments = searcher.__reduce__()
    searcher.store.collection.close()  # a folder has one user at a time
    again = make(*arguments)
    assert again.store.address == uri
    assert again.search_by_id(again.gallery.ids[3], k=1)[0].score <= 1


def test_commands_search_and_evaluate_there(artifact, uri, capsys):
    assert main(["index", str(artifact), "--to", uri]) == 0
    assert "60 images of" in (said := capsys.readouterr().out)
    assert said.endswith("can be searched there: 60 added, 0 kept for the version before\n")
    [first] = json.loads((artifact / "manifest.json").read_text())["golden"]["rows"][:1]
    name = open_artifact(artifact).gallery.ids[first]
    for command in (["search", "--like", name, "-k", "3", "--json"], ["evaluate", "--json"]):
        answers = []
        for more in ([], ["--store", uri]):
            os.environ.pop(STORE, None)
            assert main([command[0], str(artifact), *command[1:], *more]) == 0
            answers.append(json.loads(capsys.readouterr().out))
            gc.collect()  # closes the folder, which has one user at a time
        assert _rounded(answers[0]) == _rounded(answers[1])


def _rounded(value):
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


# Versions


@pytest.mark.parametrize("kind", ["postgresql", "qdrant", "milvus"])
def test_only_the_version_that_is_there_is_searched(copied_artifact, uri, tmp_path, kind):
    uri = {"qdrant": f"qdrant:{tmp_path / 'store'}", "milvus": f"milvus:{tmp_path / 'store.db'}"}.get(kind, uri)
    with pytest.raises(StoreError, match="has no collection of Lookalike: `python -m retrieval index"):
        Searcher.open(copied_artifact, store=uri)
    first = open_artifact(copied_artifact)
    assert fill(first, uri).added == 60
    assert fill(first, uri).added == 0
    noise(tmp_path / "more" / "a" / "1.png", 1)
    add_images(copied_artifact, open_source(str(tmp_path / "more")))
    second = open_artifact(copied_artifact)
    with pytest.raises(StoreError, match=r"does not hold this version, .*, but [0-9a-f]{12}: `"):
        Searcher.of(second, uri)
    assert (fill(second, uri).added, len(second.gallery)) == (1, 61)
    for artifact in (first, second):  # both can be served
        searcher = Searcher.of(artifact, uri)
        hits = searcher.search_by_id(searcher.gallery.ids[0], k=100)
        assert len({hit.id for hit in hits}) == len(artifact.gallery) - 1
        searcher.store.collection.close()
    remove_images(copied_artifact, second.gallery.ids[:3])
    third = open_artifact(copied_artifact)
    filled = fill(third, uri)
    assert (filled.added, filled.leaving, filled.rows) == (0, 3, 58)
    with pytest.raises(StoreError, match="does not hold this version"):
        Searcher.of(first, uri)
    gone = fill(first, uri)  # back again: what left with the version before the last is sent once more
    assert gone.rows == 60
    assert len(Searcher.of(first, uri).search_by_id(first.gallery.ids[0], k=100)) == 59


def test_interrupted_filling_goes_on_and_is_not_searched_before(artifact, uri):
    opened = open_artifact(artifact)

    class StopError(Exception):
        pass

    def stop(*_):
        raise StopError

    with pytest.raises(StopError):
        fill(opened, uri, stop)
    with pytest.raises(StoreError, match=r"does not hold this version, .*, but none"):
        Searcher.of(opened, uri)
    gc.collect()
    assert fill(opened, uri).added == 0  # 60 images are one batch: all were sent
    assert len(Searcher.of(opened, uri).store) == 60


def test_collection_of_another_encoder_is_refused(artifact, uri):
    fill(open_artifact(artifact), uri)
    other = open_artifact(artifact)
    object.__setattr__(other.encoder, "fingerprint", "f" * 64)
    for use in (lambda: fill(other, uri), lambda: Searcher.of(other, uri)):
        with pytest.raises(StoreError, match=r"of the encoder .*, but the artifact has .* of ffffffffffff"):
            use()
        gc.collect()


def test_own_index_is_checked_and_not_read(copied_artifact, filled):
    before = Searcher.open(copied_artifact, store=filled)
    assert isinstance(before.artifact.store, UnreadStore)
    again = pickle.loads(pickle.dumps(before))
    assert isinstance(again.artifact.store, UnreadStore)
    assert again.search_by_id(again.gallery.ids[0], k=1)[0].id == before.search_by_id(again.gallery.ids[0], k=1)[0].id
    with pytest.raises(StoreError, match="was opened for a vector database, without its own index"):
        Searcher(before.encoder, before.artifact.store, before.gallery).search_by_id(before.gallery.ids[0])
    index = copied_artifact / "index.faiss"
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=r"index\.faiss"):
        Searcher.open(copied_artifact, store=filled)


def test_vectors_of_a_database_that_do_not_fit_are_refused(artifact, uri):
    opened = open_artifact(artifact)
    fill(opened, uri)
    tags = RowTags(opened.gallery)
    rows = np.array(sorted(opened.manifest["golden"]["rows"]))
    with closing(open_collection(uri)) as collection:
        collection.upsert(tags.keys()[rows], np.roll(opened.store.vectors(rows), 1, axis=1), tags.of(rows))
    with pytest.raises(IntegrityError, match=r"golden query: .* the vectors in the database do not match"):
        Searcher.open(artifact, store=uri)


def test_lost_points_are_an_error_and_never_a_short_answer(artifact, uri):
    opened = open_artifact(artifact)
    fill(opened, uri)
    searcher = Searcher.of(opened, uri)
    collection = searcher.store.collection
    collection.mark_leaving(RowTags(opened.gallery).keys()[:2])
    collection.delete_leaving()
    with pytest.raises(StoreError, match="has lost 2 of 60 points: fill it again"):
        searcher.search_by_id(opened.gallery.ids[5])
