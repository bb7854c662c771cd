"""The searcher, with an encoder that can be worked out by hand: the mean colour of a picture, as a direction."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval.errors import ImageError, QueryError
from retrieval.gallery import BASE_SCHEMA, Gallery, write_gallery
from retrieval.search import MAX_K, Hit, Searcher
from retrieval.stores import open_store
from retrieval.stores.faiss import IndexSettings

COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (250, 10, 0),
    (240, 30, 0),
    (200, 200, 10),
    (10, 10, 250),
    (90, 90, 90),
    (255, 0, 0),  # the first picture again
]
LABELS = ["warm", "cool", "cool", "warm", "warm", "warm", None, "cool", "grey", "warm"]


class MeanColour:
    """A small real encoder: the mean red, green and blue of a picture, at unit length."""

    dim = 3
    name = "mean-colour"
    fingerprint = "mean-colour-1"

    def embed_images(self, images):
        means = np.array([np.asarray(image, np.float32).mean(axis=(0, 1)) for image in images]).reshape(-1, 3)
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def png(colour, side=8):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "PNG")
    return buffer.getvalue()


def direction(colour):
    return np.array(colour, float) / np.linalg.norm(colour)


def cosines(colour):
    """The score of every row for a picture of one colour, by hand."""
    return np.array([direction(colour) @ direction(other) for other in COLOURS])


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "gallery.parquet"
    schema = pa.schema([*BASE_SCHEMA, ("red", pa.int64())])
    rows = [
        {"id": f"id{n}", "thumbnail": b"", "label": label, "source": f"{n}.png", "sha256": str(n), "red": colour[0]}
        for n, (colour, label) in enumerate(zip(COLOURS, LABELS, strict=True))
    ]
    write_gallery(path, [pa.Table.from_pylist(rows, schema=schema)], schema)
    return Gallery(path)


@pytest.fixture(scope="module", params=["exact", "Flat", "SQfp16", "IVF2,Flat", "HNSW4,Flat"])
def searcher(request, gallery):
    encoder = MeanColour()
    vectors = encoder.embed_images([Image.new("RGB", (4, 4), colour) for colour in COLOURS])
    if request.param == "exact":
        store = open_store("exact", 3)
    else:
        store = open_store("faiss", 3, settings=IndexSettings(request.param, "asked", {"nprobe": 2, "efSearch": 64}))
        store.train(vectors)
    store.add(np.arange(len(vectors)), vectors)
    return Searcher(encoder, store, gallery)


def test_hits_are_the_nearest_best_first_with_their_cosines(searcher):
    query = (250, 40, 10)
    expected = cosines(query)
    hits = searcher.search(png(query), k=10)
    assert sorted(hit.row for hit in hits) == list(range(10))
    assert [hit.score for hit in hits] == pytest.approx(-np.sort(-expected), abs=1e-3)
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.row], abs=1e-3)
    assert [hit.row for hit in searcher.search(png(query), k=2)] == [hit.row for hit in hits[:2]]


def test_hit_is_the_row_of_the_gallery(searcher):
    (hit,) = searcher.search(png((10, 10, 250)), k=1)
    assert hit == Hit(7, "id7", hit.score, "cool", "7.png", {"red": 10})


def test_picture_of_the_gallery_finds_itself_and_its_copy_with_a_score_of_one(searcher):
    for row, colour in enumerate(COLOURS):
        best = searcher.search(png(colour, side=32), k=2)
        assert row in {hit.row for hit in best if hit.score > 1 - 1e-3}
    assert {hit.row for hit in searcher.search(png((255, 0, 0)), k=2)} == {0, 9}


def test_no_score_is_above_one(searcher):
    # These vectors are a hair longer than 1, as vectors kept in 16 bits can be.
    for colour in COLOURS:
        vector = direction(colour).astype(np.float32) * np.float32(1.0004)
        scores = [hit.score for hit in searcher.search_vector(vector, k=10)]
        assert max(scores) == 1
        assert all(isinstance(score, float) for score in scores)
        assert scores == sorted(scores, reverse=True)


def test_search_by_id_leaves_the_image_itself_out_and_nothing_else(searcher):
    for row in range(10):
        expected = np.delete(cosines(COLOURS[row]), row)
        hits = searcher.search_by_id(f"id{row}", k=9)
        assert sorted(hit.row for hit in hits) == [other for other in range(10) if other != row]
        assert [hit.score for hit in hits] == pytest.approx(-np.sort(-expected), abs=2e-3)
        assert len(searcher.search_by_id(f"id{row}", k=4)) == 4
    # A copy of the picture under another id stays.
    assert searcher.search_by_id("id0", k=1)[0].id == "id9"
    assert searcher.search_by_id("id9", k=1)[0].id == "id0"


def test_k_above_the_size_gives_what_there_is(searcher):
    assert len(searcher.search(png((1, 2, 3)), k=MAX_K)) == 10
    assert len(searcher.search_by_id("id0", k=MAX_K)) == 9


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1])
def test_k_out_of_bounds_is_an_error_in_words(searcher, k):
    for ask in (lambda: searcher.search(png((1, 2, 3)), k), lambda: searcher.search_by_id("id0", k)):
        with pytest.raises(QueryError, match=f"from 1 to 1000; it is {k}"):
            ask()


@pytest.mark.parametrize("least", [-1.0, 0.0, 0.5, 0.9, 0.999])
def test_minimum_score(searcher, least):
    query = (240, 60, 20)
    expected = cosines(query)
    assert np.abs(expected - least).min() > 2e-3, "no score lies on the edge"
    hits = searcher.search(png(query), k=10, min_score=least)
    assert {hit.row for hit in hits} == set(np.flatnonzero(expected >= least).tolist())
    assert len(searcher.search(png(query), k=2, min_score=least)) == min(2, int((expected >= least).sum()))


def test_minimum_score_is_met_by_a_score_that_equals_it(searcher):
    worst = searcher.search(png((240, 60, 20)), k=5)[-1].score
    assert len(searcher.search(png((240, 60, 20)), k=5, min_score=worst)) == 5
    for none_such in (1.1, -2, float("nan")):
        with pytest.raises(QueryError, match="from -1 to 1"):
            searcher.search(png((240, 60, 20)), k=5, min_score=none_such)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"label": "cool"}, {1, 2, 7}),
        ({"label": ["cool", "grey"]}, {1, 2, 7, 8}),
        ({"label": "warm", "red": 255}, {0, 3, 9}),
        ({"label": "cool", "red": "10"}, {7}),
        ({"label": "grey", "red": 255}, set()),
        ({}, set(range(10))),
        (None, set(range(10))),
    ],
)
def test_filter_comes_before_the_search(searcher, where, rows):
    hits = searcher.search(png((255, 0, 0)), k=10, where=where)
    assert {hit.row for hit in hits} == rows
    assert [hit.score for hit in hits] == pytest.approx(-np.sort(-cosines((255, 0, 0))[sorted(rows)]), abs=1e-3)
    # Far fewer than the rows between them and the query, and still as many as there are.
    assert len(searcher.search(png((255, 0, 0)), k=2, where=where)) == min(2, len(rows))
    by_id = searcher.search_by_id("id0", k=10, where=where)
    assert {hit.row for hit in by_id} == rows - {0}


def test_filter_and_minimum_score_together(searcher):
    hits = searcher.search(png((255, 0, 0)), k=10, where={"label": "warm"}, min_score=0.99)
    assert {hit.row for hit in hits} == {0, 4, 5, 9}


def test_wrong_filter_or_id_is_an_error_in_words(searcher):
    with pytest.raises(QueryError, match="no image has label=cold; did you mean 'cool'"):
        searcher.search(png((1, 2, 3)), where={"label": "cold"})
    with pytest.raises(QueryError, match="no column 'colour'"):
        searcher.search_by_id("id0", where={"colour": "red"})
    with pytest.raises(QueryError, match="no image with the id 'id10'"):
        searcher.search_by_id("id10")


def test_picture_may_be_bytes_a_path_or_a_file(searcher, tmp_path):
    content = png((30, 60, 90))
    (tmp_path / "a.png").write_bytes(content)
    expected = searcher.search(content)
    assert searcher.search(tmp_path / "a.png") == expected
    assert searcher.search(str(tmp_path / "a.png")) == expected
    assert searcher.search(io.BytesIO(content)) == expected


def test_what_is_no_picture_is_an_image_error(searcher):
    with pytest.raises(ImageError):
        searcher.search(b"no picture")


def test_searches_of_several_threads_keep_to_themselves(searcher):
    asked = [(COLOURS[n % 10], n % 9 + 1, [None, {"label": "cool"}, {"label": "warm"}][n % 3]) for n in range(120)]

    def ask(one):
        colour, k, where = one
        return searcher.search(png(colour), k, where=where), searcher.search_by_id("id3", k, where=where)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, asked))
    assert together == [ask(one) for one in asked]


def test_artifact_of_a_real_encoder_is_opened_and_searched(artifact, pictures):
    searcher = Searcher.open(artifact)
    for number in (0, 17, 59):
        row = searcher.gallery.take([number])[0]
        best, *others = searcher.search(pictures / row.source, k=60)
        assert best.score == pytest.approx(1, abs=1e-5)
        assert len(others) == 59
        by_id = searcher.search_by_id(row.id, k=60)
        assert len(by_id) == 59
        assert row.id not in {hit.id for hit in by_id}
        # The vector of the picture is the vector of the index: both ways give the same scores.
        assert [hit.score for hit in by_id] == pytest.approx([hit.score for hit in others], abs=1e-5)


@pytest.mark.parametrize("factory", ["Flat", "SQfp16"])
def test_the_very_opposite_is_a_hit_too(factory, tmp_path):
    """Rounding brings its score a hair below -1, which is the least score that can be asked for."""
    drawn = np.random.default_rng(0).standard_normal((20, 1280))
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    rows = [{"id": f"{n}", "thumbnail": b"", "source": "", "sha256": ""} for n in range(20)]
    write_gallery(tmp_path / "gallery.parquet", [pa.Table.from_pylist(rows, schema=BASE_SCHEMA)], BASE_SCHEMA)
    store = open_store("faiss", 1280, settings=IndexSettings(factory))
    store.train(vectors)
    store.add(np.arange(20), vectors)
    searcher = Searcher(MeanColour(), store, Gallery(tmp_path / "gallery.parquet"))
    for row in range(20):
        hits = searcher.search_vector(-vectors[row], k=20)
        assert [hits[-1].row, len(hits)] == [row, 20]
        assert -1 <= hits[-1].score < -0.999
