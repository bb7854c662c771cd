"""Near-duplicates: which pictures count as the same, and how they are grouped, checked against brute force."""

import csv
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import DATA, needs_data
from exact_store import ExactStore
from PIL import Image, ImageEnhance

from retrieval.__main__ import main
from retrieval.artifact.load import load_artifact
from retrieval.errors import QueryError
from retrieval.evaluation.duplicates import Group, find_groups, fold, write_csv
from retrieval.images.compare import Pictures
from retrieval.images.open import open_image, thumbnail_jpeg
from retrieval.stores.faiss import FaissStore, IndexSettings
from training.starter.catalogue import Item, draw


class Shown(list):
    """Thumbnails of pictures by row, like those of a gallery."""

    def __init__(self, pictures):
        super().__init__(thumbnail_jpeg(picture) for picture in pictures)

    def thumbnail(self, row):
        return self[row]


def always(_, others):
    return np.ones(len(others), bool)


def never(_, others):
    return np.zeros(len(others), bool)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def stored(vectors, factory="Flat"):
    store = FaissStore(vectors.shape[1], IndexSettings(factory))
    store.train(vectors)
    store.add(vectors)
    return store


def heaps(rows, dim=48, spread=0.25, seed=0):
    """Unit vectors in clusters; cosines within a cluster lie on both sides of the thresholds."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((rows // 8, dim)))
    return unit(
        centres[rng.integers(len(centres), size=rows)] + spread / np.sqrt(dim) * rng.standard_normal((rows, dim))
    )


def leaders_of(vectors, threshold):
    """The rule by brute force: each row joins the first leader within the threshold, or becomes a leader."""
    near = vectors @ vectors.T >= threshold
    leaders = np.arange(len(vectors))
    for row in range(len(vectors)):
        first = [leader for leader in np.flatnonzero(near[row, :row]) if leaders[leader] == leader][:1]
        leaders[row] = first[0] if first else row
    return leaders.tolist()


def members(leaders):
    """{leader: its rows} for the groups of two or more."""
    groups = {leader: np.flatnonzero(np.array(leaders) == leader).tolist() for leader in set(leaders)}
    return {leader: rows for leader, rows in groups.items() if len(rows) > 1}


# Comparing pictures


def saved_anew(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=50)
    return open_image(file.getvalue())


def cropped(picture, left, top, right, bottom):
    """Cut off these shares of the width and height."""
    width, height = picture.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return picture.crop(tuple(round(edge) for edge in box))


CHANGES = {
    "recompressed": saved_anew,
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.9),
    "cropped on all sides": lambda picture: cropped(picture, 0.02, 0.02, 0.02, 0.02),
    "cropped at a corner": lambda picture: cropped(picture, 0.04, 0.04, 0, 0),
}
DRAWN = [("shirt", "red"), ("backpack", "blue"), ("boot", "green"), ("dress", "purple"), ("umbrella", "charcoal")]


def drawn(article, colour, pattern="plain", view="front", seed=1):
    return draw(Item(article, colour, pattern, view, seed), 192)


@pytest.fixture(scope="module")
def different():
    """Five drawings, each in three patterns, and also in another colour and another view.

    None is dotted: dots can be finer than a cell of the comparison, and only the embedding can tell them apart.
    """
    patterns = ("plain", "striped", "checked")
    pictures = [drawn(*kind, pattern) for kind in DRAWN for pattern in patterns]
    pictures += [drawn(article, "yellow") for article, _ in DRAWN]
    return pictures + [drawn(*kind, view="tilted") for kind in DRAWN]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_altered_copy_counts_as_the_same_picture(change):
    originals = [drawn(*kind, pattern) for kind in DRAWN for pattern in ("plain", "striped")]
    pictures = Pictures(Shown([*originals, *map(change, originals)]))
    copies = np.arange(len(originals), 2 * len(originals))
    found = [np.flatnonzero(pictures.same(row, copies)).tolist() for row in range(len(originals))]
    assert sum(rows == [row] for row, rows in enumerate(found)) >= len(originals) - 1
    assert all(set(rows) <= {row} for row, rows in enumerate(found))


def test_another_pattern_colour_or_view_is_a_different_picture(different):
    pictures = Pictures(Shown(different))
    rows = np.arange(len(different))
    assert [np.flatnonzero(pictures.same(row, rows)).tolist() for row in rows] == [[row] for row in rows]


def test_another_aspect_ratio_is_a_different_picture(different):
    wide = different[0].resize((300, 192))
    assert Pictures(Shown([different[0], wide])).same(0, np.array([1])).tolist() == [False]


def test_blank_pictures_are_compared_by_colour():
    shades = [(250, 250, 250), (240, 240, 240), (120, 120, 120), (250, 120, 120)]
    pictures = Pictures(Shown([Image.new("RGB", (64, 64), shade) for shade in shades]))
    assert pictures.same(0, np.arange(4)).tolist() == [True, True, False, False]


@needs_data
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_altered_photograph_counts_as_the_same_picture(change):
    images = pq.read_table(DATA / "caltech101" / "validation.parquet", columns=["image"])["image"]
    originals = [open_image(images[row].as_py()["bytes"]) for row in range(0, 900, 45)]
    pictures = Pictures(Shown([*originals, *map(change, originals)]))
    copies = np.arange(len(originals), 2 * len(originals))
    found = [np.flatnonzero(pictures.same(row, copies)).tolist() for row in range(len(originals))]
    assert sum(rows == [row] for row, rows in enumerate(found)) >= 0.8 * len(originals)
    assert all(set(rows) <= {row} for row, rows in enumerate(found))


# Groups


@pytest.mark.parametrize("threshold", [0.8, 0.9, 0.97, 1.0])
@pytest.mark.parametrize(
    "vectors",
    [
        heaps(1500),
        heaps(1500, dim=200, seed=1),
        heaps(700, spread=0.5, seed=2),
        unit(np.random.default_rng(3).standard_normal((600, 8))),
        unit(np.abs(np.random.default_rng(4).standard_normal((600, 160)))),
        np.repeat(heaps(40), 9, axis=0),
    ],
    ids=["clusters", "high dimension", "loose clusters", "random", "positive", "nine copies each"],
)
def test_groups_match_brute_force_over_all_pairs(vectors, threshold):
    """Only identical vectors have a cosine within rounding error of a threshold."""
    expected = members(leaders_of(vectors.astype(np.float64), threshold - 2e-6))
    groups = find_groups(stored(vectors), always, threshold)
    assert {group.rows[0]: group.rows for group in groups} == expected
    for group in groups:
        np.testing.assert_allclose(group.scores, vectors[group.rows] @ vectors[group.rows[0]], atol=2e-6)


def test_groups_are_sorted_by_size_and_start_with_their_leader():
    vectors = heaps(600)
    groups = find_groups(stored(vectors), always, 0.9)
    sizes = [(-len(group.rows), group.rows[0]) for group in groups]
    assert len(groups) > 10
    assert sizes == sorted(sizes)
    assert all(group.rows == sorted(group.rows) and group.scores[0] == 1 for group in groups)
    assert groups == find_groups(stored(vectors), always, 0.9)


def test_near_duplicates_are_not_chained_into_one_group():
    """Steps of 11.5 degrees: each vector is near the next (cosine 0.98), but not near the one after that (0.92)."""
    angles = np.arange(7) * 0.2
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert [group.rows for group in find_groups(stored(vectors), always, 0.95)] == [[0, 1], [2, 3], [4, 5]]


def test_close_vectors_are_grouped_only_if_the_pictures_match():
    vectors = np.repeat(unit(np.ones((1, 8))), 6, axis=0)
    even = lambda row, others: others % 2 == row % 2  # noqa: E731
    assert [group.rows for group in find_groups(stored(vectors), even, 0.95)] == [[0, 2, 4], [1, 3, 5]]
    assert find_groups(stored(vectors), never, 0.95) == []


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat"])
def test_many_identical_images_form_one_group(factory):
    vectors = heaps(1200)
    vectors[100:] = vectors[100]
    groups = find_groups(stored(vectors, factory), always, 1.0)
    assert groups[0].rows == list(range(100, 1200))


@pytest.mark.parametrize("rows", [1, 2])
def test_gallery_of_one_or_two_images_is_grouped(rows):
    store = ExactStore(4)
    store.add(np.repeat(unit(np.ones((1, 4))), rows, axis=0))
    assert [group.rows for group in find_groups(store, always)] == [[0, 1]] * (rows - 1)


def test_inverted_index_finds_the_same_groups_as_a_flat_one():
    vectors = np.repeat(heaps(800), 3, axis=0)[np.random.default_rng(5).permutation(2400)]
    flat = {tuple(group.rows) for group in find_groups(stored(vectors), always, 0.999)}
    inverted = {tuple(group.rows) for group in find_groups(stored(vectors, "IVF16,SQfp16"), always, 0.999)}
    assert len(flat) == 800
    assert inverted == flat


def test_progress_ends_at_the_total_number_of_rows():
    told = []
    find_groups(stored(heaps(3000)), always, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (3000, 3000)


@pytest.mark.parametrize("threshold", [0.69, 1.01, -1, float("nan")])
def test_threshold_outside_the_valid_range_is_an_error(threshold):
    with pytest.raises(QueryError, match=r"from 0\.7 to 1, not"):
        find_groups(stored(heaps(16)), always, threshold)
    with pytest.raises(QueryError, match=r"from 0\.7 to 1, not"):
        fold(np.arange(2), heaps(16)[:2], always, threshold)


# Folding hits


@pytest.mark.parametrize("threshold", [0.85, 0.95])
def test_hits_are_folded_by_the_same_rule_as_groups(threshold):
    vectors = heaps(300)
    rows = np.random.default_rng(6).permutation(1000)[:300]
    assert fold(rows, vectors, always, threshold).tolist() == leaders_of(vectors.astype(np.float64), threshold)
    assert fold(rows, vectors, never, threshold).tolist() == list(range(300))
    assert fold(rows[:0], vectors[:0], always).tolist() == []


def test_folding_compares_hits_by_their_gallery_rows(different):
    pictures = Pictures(Shown([*different[:3], saved_anew(different[2])]))
    vectors = np.repeat(unit(np.ones((1, 8))), 3, axis=0)
    assert fold(np.array([3, 0, 2]), vectors, pictures.same).tolist() == [0, 1, 0]


# The CSV file and the command


def test_groups_are_written_as_csv(artifact, tmp_path):
    gallery = load_artifact(artifact).gallery
    write_csv([Group([3, 5, 8], [1.0, 0.98765, 0.96]), Group([0, 1], [1.0, 0.95])], gallery, tmp_path / "it.csv")
    with (tmp_path / "it.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["group", "size", "id", "label", "source", "cosine"]
    assert [(line[0], line[1], line[5]) for line in lines] == [
        *(("1", "3", "1.0000"), ("1", "3", "0.9877"), ("1", "3", "0.9600")),
        *(("2", "2", "1.0000"), ("2", "2", "0.9500")),
    ]
    for line, row in zip(lines, gallery.take([3, 5, 8, 0, 1]), strict=True):
        assert line[2:5] == [row.id, row.label, row.source]


@pytest.fixture(scope="module")
def with_copies(encoder, tmp_path_factory):
    """An artifact of eight drawings and two copies of one of them, with file names that CSV must quote."""
    from retrieval.build.build import build_artifact
    from retrieval.sources.open import open_source

    root = tmp_path_factory.mktemp("copies")
    (root / "pictures").mkdir()
    originals = [drawn(*kind, pattern) for kind in DRAWN[:4] for pattern in ("plain", "dotted")]
    for number, picture in enumerate(originals):
        picture.save(root / "pictures" / f"{number}.png")
    originals[1].save(root / "pictures" / 'a "copy", small.jpg', quality=70)
    originals[1].save(root / "pictures" / "a\ncopy.jpg", quality=80)
    build_artifact(open_source(str(root / "pictures")), root / "it", encoder)
    return root / "it"


def test_duplicates_command_prints_groups_and_writes_csv_and_json(with_copies, tmp_path, capsys):
    assert main(["duplicates", str(with_copies), "--threshold", "0.9", "--csv", str(tmp_path / "it.csv")]) == 0
    printed = capsys.readouterr().out
    assert "10 images, 1 groups of near-duplicates" in printed
    assert "group 1, 3 images" in printed
    with (tmp_path / "it.csv").open(newline="", encoding="utf-8") as file:
        assert {line["source"] for line in csv.DictReader(file)} == {"1.png", 'a "copy", small.jpg', "a\ncopy.jpg"}
    assert main(["duplicates", str(with_copies), "--threshold", "0.9", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)
    assert group["size"] == len(group["images"]) == 3
    assert group["images"][0]["cosine"] == 1


def test_duplicates_command_rejects_a_threshold_out_of_range(with_copies, capsys):
    assert main(["duplicates", str(with_copies), "--threshold", "0.5"]) == 1
    assert "from 0.7 to 1, not 0.5" in capsys.readouterr().err


def test_bench_compares_duplicate_search_with_brute_force(artifact, capsys):
    assert main(["bench", str(artifact), "--duplicates", "300", "--dim", "32", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["rows"], figures["dimension"]) == (300, 32)
    assert figures["s"] > 0
    assert figures["brute force / s"] == pytest.approx(figures["brute force s, about"] / figures["s"])
