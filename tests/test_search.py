"""The searcher, with an encoder that can be computed by hand: the normalised mean colour of an image."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from exact_store import ExactStore
from PIL import Image

from retrieval.errors import ImageError, QueryError
from retrieval.images.gallery import BASE_SCHEMA, Gallery, write_gallery
from retrieval.images.open import thumbnail_jpeg
from retrieval.query import MAX_K, Query, combine
from retrieval.search import Hit, Part, Searcher, _first_of_each
from retrieval.stores.faiss import FaissStore, IndexSettings

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
    (255, 0, 0),  # a copy of the first image
]
LABELS = ["warm", "cool", "cool", "warm", "warm", "warm", None, "cool", "grey", "warm"]


class MeanColour:
    """A small real encoder: the mean red, green and blue of an image, scaled to unit length."""

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
    """The score of every row for an image of one colour, computed by hand."""
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
        store = ExactStore(3)
    else:
        store = FaissStore(3, IndexSettings(request.param, "asked", {"nprobe": 2, "efSearch": 64}))
        store.train(vectors)
    store.add(vectors)
    return Searcher(encoder, store, gallery)


def test_hits_are_sorted_by_cosine_similarity(searcher):
    query = (250, 40, 10)
    expected = cosines(query)
    hits = searcher.search(png(query), k=10)
    assert sorted(hit.row for hit in hits) == list(range(10))
    assert [hit.score for hit in hits] == pytest.approx(-np.sort(-expected), abs=1e-3)
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.row], abs=1e-3)
    assert [hit.row for hit in searcher.search(png(query), k=2)] == [hit.row for hit in hits[:2]]


def test_hit_holds_the_fields_of_its_gallery_row(searcher):
    (hit,) = searcher.search(png((10, 10, 250)), k=1)
    assert hit == Hit(7, "id7", hit.score, "cool", "7.png", {"red": 10})


def test_gallery_image_finds_itself_and_its_copy_with_score_one(searcher):
    for row, colour in enumerate(COLOURS):
        best = searcher.search(png(colour, side=32), k=2)
        assert row in {hit.row for hit in best if hit.score > 1 - 1e-3}
    assert {hit.row for hit in searcher.search(png((255, 0, 0)), k=2)} == {0, 9}


def test_no_score_is_above_one(searcher):
    # These vectors are slightly longer than 1, as vectors stored in 16 bits can be.
    for colour in COLOURS:
        vector = direction(colour).astype(np.float32) * np.float32(1.0004)
        scores = [hit.score for hit in searcher.find(Query(vector), k=10)]
        assert max(scores) == 1
        assert all(isinstance(score, float) for score in scores)
        assert scores == sorted(scores, reverse=True)


def test_search_by_id_leaves_out_only_the_image_itself(searcher):
    for row in range(10):
        expected = np.delete(cosines(COLOURS[row]), row)
        hits = searcher.search_by_id(f"id{row}", k=9)
        assert sorted(hit.row for hit in hits) == [other for other in range(10) if other != row]
        assert [hit.score for hit in hits] == pytest.approx(-np.sort(-expected), abs=2e-3)
        assert len(searcher.search_by_id(f"id{row}", k=4)) == 4
    # A copy of the image under another id stays.
    assert searcher.search_by_id("id0", k=1)[0].id == "id9"
    assert searcher.search_by_id("id9", k=1)[0].id == "id0"


def test_k_above_the_gallery_size_returns_every_row(searcher):
    assert len(searcher.search(png((1, 2, 3)), k=MAX_K)) == 10
    assert len(searcher.search_by_id("id0", k=MAX_K)) == 9


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1])
def test_k_out_of_range_is_an_error(searcher, k):
    for ask in (lambda: searcher.search(png((1, 2, 3)), k), lambda: searcher.search_by_id("id0", k)):
        with pytest.raises(QueryError, match=f"from 1 to 1000, not {k}"):
            ask()


@pytest.mark.parametrize("least", [-1.0, 0.0, 0.5, 0.9, 0.999])
def test_min_score_drops_lower_hits(searcher, least):
    query = (240, 60, 20)
    expected = cosines(query)
    assert np.abs(expected - least).min() > 2e-3, "no score lies on the edge"
    hits = searcher.search(png(query), k=10, min_score=least)
    assert {hit.row for hit in hits} == set(np.flatnonzero(expected >= least).tolist())
    assert len(searcher.search(png(query), k=2, min_score=least)) == min(2, int((expected >= least).sum()))


def test_min_score_is_inclusive_and_must_be_a_cosine(searcher):
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
def test_filter_is_applied_before_the_search(searcher, where, rows):
    hits = searcher.search(png((255, 0, 0)), k=10, where=where)
    assert {hit.row for hit in hits} == rows
    assert [hit.score for hit in hits] == pytest.approx(-np.sort(-cosines((255, 0, 0))[sorted(rows)]), abs=1e-3)
    # The filter leaves fewer rows than lie between them and the query, and still all of them are found.
    assert len(searcher.search(png((255, 0, 0)), k=2, where=where)) == min(2, len(rows))
    by_id = searcher.search_by_id("id0", k=10, where=where)
    assert {hit.row for hit in by_id} == rows - {0}


def test_filter_and_min_score_combine(searcher):
    hits = searcher.search(png((255, 0, 0)), k=10, where={"label": "warm"}, min_score=0.99)
    assert {hit.row for hit in hits} == {0, 4, 5, 9}


@pytest.mark.parametrize("k", [1, 2, 4, 10])
@pytest.mark.parametrize("where", [None, {"red": {"<": 255}}])
def test_grouping_keeps_the_best_hit_with_each_value(searcher, k, where):
    column = searcher.gallery.table["label"].to_pylist()
    expected = []
    for hit in searcher.search(png((250, 40, 10)), k=10, where=where):
        if column[hit.row] is None or column[hit.row] not in [column[row] for row in expected]:
            expected.append(hit.row)
    hits = searcher.search(png((250, 40, 10)), k=k, where=where, group_by="label")
    assert [hit.row for hit in hits] == expected[:k]
    assert 1 < len(expected) < 10


def test_rows_without_a_value_are_not_grouped(searcher):
    assert len(_first_of_each(np.array([], np.int32))) == 0
    assert _first_of_each(np.array([3, -1, 0, 3, -1, 0, 5], np.int32)).tolist() == [0, 1, 2, 4, 6]
    with pytest.raises(QueryError, match="no column 'lable'; did you mean 'label'"):
        searcher.search(png((250, 40, 10)), group_by="lable")


def test_unknown_filter_value_column_or_id_is_an_error(searcher):
    with pytest.raises(QueryError, match="no image has label=cold; did you mean 'cool'"):
        searcher.search(png((1, 2, 3)), where={"label": "cold"})
    with pytest.raises(QueryError, match="no column 'colour'"):
        searcher.search_by_id("id0", where={"colour": "red"})
    with pytest.raises(QueryError, match="no image with the id 'id10'"):
        searcher.search_by_id("id10")


# Queries with several parts


def test_combine_is_the_normalised_weighted_sum():
    vectors = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    total = 2 * vectors[0] + vectors[1] - vectors[2]
    combined = combine(vectors, [2, 1, -1])
    assert combined.dtype == np.float32
    np.testing.assert_allclose(combined, total / np.linalg.norm(total), atol=1e-6)
    with pytest.raises(QueryError, match="cancel each other out: remove one of them"):
        combine(vectors[[0, 0]], [1, -1])


def test_likes_and_unlikes_change_the_query_and_are_left_out(searcher):
    parts = [Part(png((250, 40, 10))), Part(row=3), Part(row=7, weight=-1.0)]
    query = searcher.query(parts)
    total = direction((250, 40, 10)) + direction(COLOURS[3]) - direction(COLOURS[7])
    expected = np.array([total @ direction(colour) for colour in COLOURS]) / np.linalg.norm(total)
    np.testing.assert_allclose(query.vector, total / np.linalg.norm(total), atol=1e-3)
    assert (query.leave_out, query.single, query.by_text) == ((3, 7), False, False)
    hits = searcher.find(query, 10)
    assert sorted(hit.row for hit in hits) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert [hit.score for hit in hits] == pytest.approx(-np.sort(-np.delete(expected, [3, 7])), abs=2e-3)
    assert [hit.row for hit in searcher.find(query, 4)] == [hit.row for hit in hits[:4]]
    warm = searcher.find(query, 10, where={"label": "warm"})
    assert {hit.row for hit in warm} == {0, 4, 5, 9}


def test_unlike_alone_searches_for_the_opposite(searcher):
    hits = searcher.find(searcher.query([Part(row=2, weight=-1.0)]), 9)
    assert [hit.score for hit in hits] == pytest.approx(-np.sort(np.delete(cosines(COLOURS[2]), 2)), abs=2e-3)


def test_query_with_one_part_is_its_own_vector(searcher):
    assert searcher.query([Part(row=4)]).single
    np.testing.assert_array_equal(searcher.query([Part(row=4)]).vector, searcher.store.vectors(np.array([4]))[0])
    assert not searcher.query([Part(row=4, weight=-1.0)]).single


def test_region_embeds_only_that_part_of_the_image(searcher):
    picture = Image.new("RGB", (20, 10), (255, 0, 0))
    picture.paste((0, 0, 255), (10, 0, 20, 10))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    for region, colour in (((0, 0, 0.5, 1), (255, 0, 0)), ((0.5, 0.2, 1, 0.9), (0, 0, 255)), (None, (128, 0, 128))):
        vector = searcher.vector(Part(buffer.getvalue(), region=region))
        np.testing.assert_allclose(vector, direction(colour), atol=1e-3)
    with pytest.raises(ImageError, match="a region must be"):
        searcher.query([Part(buffer.getvalue(), region=(0.5, 0, 0.5, 1))])


def test_empty_query_or_text_without_a_text_model_is_an_error(searcher):
    with pytest.raises(QueryError, match="the query is empty"):
        searcher.query([])
    with pytest.raises(QueryError, match="no text model: build it with --text-model"):
        searcher.search_text("a red shirt")
    with pytest.raises(QueryError, match="this artifact has no text model"):
        searcher.query([Part(row=1), Part(words="a red shirt")])


def test_text_search_uses_the_vectors_of_the_text_model(twins):
    searcher = Searcher.open(twins)
    seen = searcher.text.store.vectors(np.arange(len(searcher.gallery)))
    read = searcher.text.encoder.embed_texts(["a red shirt"])[0]
    hits = searcher.search_text("a red shirt", 40)
    assert [hit.score for hit in hits] == pytest.approx(np.sort(seen @ read)[::-1][:40], abs=1e-5)
    assert (seen @ read)[[hit.row for hit in hits]] == pytest.approx([hit.score for hit in hits], abs=1e-5)
    query = searcher.query([Part(words="a red shirt"), Part(row=6, weight=-1.0)])
    total = read - seen[6]
    np.testing.assert_allclose(query.vector, total / np.linalg.norm(total), atol=1e-6)
    assert (query.leave_out, query.single, query.by_text) == ((6,), False, True)
    assert {hit.chance for hit in hits} == {None}
    with pytest.raises(QueryError, match="at least one letter"):
        searcher.search_text(" ", 3)


# Near-duplicates


def doubled(folder, heaps, side=8, dim=32):
    """A searcher over shuffled groups of near-duplicates of these sizes, its vectors, and the group of each row."""
    rng = np.random.default_rng(0)
    of_row = rng.permutation(np.repeat(np.arange(len(heaps)), heaps))
    centres = rng.standard_normal((len(heaps), dim))
    vectors = centres[of_row] + 0.01 * rng.standard_normal((len(of_row), dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    shown = [
        thumbnail_jpeg(Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize((48, 48), 0))
        for _ in heaps
    ]
    rows = [
        {
            "id": f"{row}",
            "thumbnail": shown[heap],
            "source": "",
            "sha256": "",
            "label": "even" if row % 2 == 0 else "odd",
        }
        for row, heap in enumerate(of_row)
    ]
    write_gallery(folder / "gallery.parquet", [pa.Table.from_pylist(rows, schema=BASE_SCHEMA)], BASE_SCHEMA)
    store = ExactStore(dim)
    store.add(vectors)
    return Searcher(MeanColour(), store, Gallery(folder / "gallery.parquet")), vectors, of_row


def by_hand(order, of_row):
    """[(the first row of each group, the other rows of it)], in the order of the hits."""
    firsts = {}
    for row in order:
        firsts.setdefault(of_row[row], []).append(int(row))
    return [(rows[0], tuple(rows[1:])) for rows in firsts.values()]


def test_folding_near_duplicates_still_returns_k_hits(tmp_path):
    """Hundreds of the nearest rows are copies of one image."""
    searcher, vectors, of_row = doubled(tmp_path, [300, 1, 5, 2, 1, 3])
    query = Query(vectors[np.flatnonzero(of_row == 0)[0]])
    order = np.argsort(-(vectors @ query.vector), kind="stable")
    assert (of_row[order[:300]] == 0).all()
    expected = by_hand(order, of_row)
    for k in (2, 4, 6, 50):
        hits = searcher.find(query, k, fold=True)
        assert [hit.row for hit in hits] == [row for row, _ in expected[:k]]
    assert [(hit.row, hit.alike) for hit in hits] == expected
    even = [row for row in order if row % 2 == 0]
    hits = searcher.find(query, 50, fold=True, where={"label": "even"})
    assert [(hit.row, hit.alike) for hit in hits] == by_hand(even, of_row)
    near = [row for row in order if vectors[row] @ query.vector >= 0.9]
    assert len(near) == 300
    hits = searcher.find(query, 50, fold=True, min_score=0.9)
    assert [(hit.row, hit.alike) for hit in hits] == by_hand(near, of_row)
    own = int(order[0])
    hits = searcher.find(Query(query.vector, (own,)), 50, fold=True)
    assert [(hit.row, hit.alike) for hit in hits] == by_hand(order[1:], of_row)
    assert all(hit.alike == () for hit in searcher.find(query, 50))


def test_folding_looks_past_max_k_rows_for_enough_hits(tmp_path):
    """This takes more rows than the largest k."""
    searcher, vectors, of_row = doubled(tmp_path, [2] * 700)
    order = np.argsort(-(vectors @ vectors[0]), kind="stable")
    expected = by_hand(order, of_row)[:650]
    assert len({of_row[row] for row in order[:MAX_K]}) < 650
    assert [hit.row for hit in searcher.find(Query(vectors[0]), 650, fold=True)] == [row for row, _ in expected]


# Match probabilities


def test_match_probabilities_come_from_the_calibration(artifact, pictures):
    searcher = Searcher.open(artifact)
    path = sorted(pictures.rglob("*.png"))[3]
    hits = searcher.search(path, 8)
    rows, scores = np.array([hit.row for hit in hits]), np.array([hit.score for hit in hits], np.float32)
    chances, confident = searcher.confidence.of(searcher.query([Part(path)]).vector, rows, scores)
    assert [hit.chance for hit in hits] == pytest.approx(chances)
    assert [hit.confident for hit in hits] == confident
    assert all(0 <= hit.chance <= 1 for hit in hits)
    several = searcher.find(searcher.query([Part(path), Part(row=1)]), 8)
    unlike = searcher.find(searcher.query([Part(row=1, weight=-1.0)]), 8)
    assert {(hit.chance, hit.confident) for hit in several + unlike} == {(None, None)}


def test_hits_have_no_match_probability_without_a_calibration(searcher):
    assert searcher.confidence is None
    assert {(hit.chance, hit.confident) for hit in searcher.search(png((9, 8, 7)))} == {(None, None)}


def test_query_image_can_be_bytes_a_path_or_a_file(searcher, tmp_path):
    content = png((30, 60, 90))
    (tmp_path / "a.png").write_bytes(content)
    expected = searcher.search(content)
    assert searcher.search(tmp_path / "a.png") == expected
    assert searcher.search(str(tmp_path / "a.png")) == expected
    assert searcher.search(io.BytesIO(content)) == expected


def test_unreadable_query_image_is_an_image_error(searcher):
    with pytest.raises(ImageError):
        searcher.search(b"no picture")


def test_concurrent_searches_do_not_interfere(searcher):
    asked = [(COLOURS[n % 10], n % 9 + 1, [None, {"label": "cool"}, {"label": "warm"}][n % 3]) for n in range(120)]

    def ask(one):
        colour, k, where = one
        return searcher.search(png(colour), k, where=where), searcher.search_by_id("id3", k, where=where)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, asked))
    assert together == [ask(one) for one in asked]


def test_artifact_with_a_real_encoder_can_be_searched(artifact, pictures):
    searcher = Searcher.open(artifact)
    for number in (0, 17, 59):
        row = searcher.gallery.take([number])[0]
        best, *others = searcher.search(pictures / row.source, k=60)
        assert best.score == pytest.approx(1, abs=1e-5)
        assert len(others) == 59
        by_id = searcher.search_by_id(row.id, k=60)
        assert len(by_id) == 59
        assert row.id not in {hit.id for hit in by_id}
        # The embedding of the image is the vector in the index, so both searches give the same scores.
        assert [hit.score for hit in by_id] == pytest.approx([hit.score for hit in others], abs=1e-5)


@pytest.mark.parametrize("factory", ["Flat", "SQfp16"])
def test_search_returns_the_exact_opposite_vector(factory, tmp_path):
    """Rounding can bring its score slightly below -1, the lowest allowed `min_score`."""
    drawn = np.random.default_rng(0).standard_normal((20, 1280))
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    rows = [{"id": f"{n}", "thumbnail": b"", "source": "", "sha256": ""} for n in range(20)]
    write_gallery(tmp_path / "gallery.parquet", [pa.Table.from_pylist(rows, schema=BASE_SCHEMA)], BASE_SCHEMA)
    store = FaissStore(1280, IndexSettings(factory))
    store.train(vectors)
    store.add(vectors)
    searcher = Searcher(MeanColour(), store, Gallery(tmp_path / "gallery.parquet"))
    for row in range(20):
        hits = searcher.find(Query(-vectors[row]), k=20)
        assert [hits[-1].row, len(hits)] == [row, 20]
        assert -1 <= hits[-1].score < -0.999
