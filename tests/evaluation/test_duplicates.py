"""Near-duplicates: which pictures count as the same, and how they are grouped, checked against brute force."""

import csv
import io
import json
import os
import shutil
from itertools import product

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import DATA, needs_data
from exact_store import ExactStore
from PIL import Image, ImageEnhance, ImageOps

from retrieval.__main__ import main
from retrieval.artifact.load import load_artifact
from retrieval.errors import QueryError
from retrieval.evaluation.duplicates import Group, find_groups, fold
from retrieval.evaluation.keep import kept_rows, write_csv
from retrieval.evaluation.variants import changed_pairs
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


def always(_, others, strict=False):
    return np.ones(len(others), bool)


def never(_, others, strict=False):
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
    even = lambda row, others, strict=False: others % 2 == row % 2  # noqa: E731
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


@pytest.mark.parametrize("threshold", [0.59, 1.01, -1, float("nan")])
def test_threshold_outside_the_valid_range_is_an_error(threshold):
    with pytest.raises(QueryError, match=r"from 0\.6 to 1, not"):
        find_groups(stored(heaps(16)), always, threshold)
    with pytest.raises(QueryError, match=r"from 0\.6 to 1, not"):
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
    assert header == ["group", "size", "action", "id", "label", "source", "cosine"]
    assert [(line[0], line[1], line[2], line[6]) for line in lines] == [
        *(("1", "3", "keep", "1.0000"), ("1", "3", "remove", "0.9877"), ("1", "3", "remove", "0.9600")),
        *(("2", "2", "keep", "1.0000"), ("2", "2", "remove", "0.9500")),
    ]
    for line, row in zip(lines, gallery.take([3, 5, 8, 0, 1]), strict=True):
        assert line[3:6] == [row.id, row.label, row.source]


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
    assert "10 images, 1 group of near-duplicates, 2 images beyond" in printed
    assert "group 1, 3 images" in printed
    with (tmp_path / "it.csv").open(newline="", encoding="utf-8") as file:
        assert {line["source"] for line in csv.DictReader(file)} == {"1.png", 'a "copy", small.jpg', "a\ncopy.jpg"}
    assert main(["duplicates", str(with_copies), "--threshold", "0.9", "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)
    assert group["size"] == len(group["images"]) == 3
    assert group["images"][0]["cosine"] == 1


def test_duplicates_command_says_which_image_to_keep_and_removes_the_others(with_copies, tmp_path, capsys):
    root = shutil.copytree(with_copies.parent, tmp_path / "copy")
    artifact, originals = root / "it", root / "pictures"
    large = drawn(*DRAWN[0], "dotted").resize((400, 400))
    large.save(originals / "a\ncopy.jpg")  # the file of one row of the group is now the largest
    options = ["--keep", "largest", "--originals", str(originals), "--csv", str(tmp_path / "it.csv")]
    assert main(["duplicates", str(artifact), *options, "--remove-from-artifact", "--dry-run"]) == 0
    with (tmp_path / "it.csv").open(newline="", encoding="utf-8") as file:
        actions = {line["source"]: line["action"] for line in csv.DictReader(file)}
    assert actions == {"1.png": "remove", 'a "copy", small.jpg': "remove", "a\ncopy.jpg": "keep"}
    printed = {line.split()[-1]: line.split()[0] for line in capsys.readouterr().out.splitlines() if "0." in line}
    assert printed.items() >= {"a\\ncopy.jpg": "keep", "small.jpg": "remove"}.items()
    assert len(load_artifact(artifact).gallery) == 10
    assert main(["duplicates", str(artifact), *options, "--remove-from-artifact"]) == 0
    assert "2 images removed" in capsys.readouterr().out
    assert "a\ncopy.jpg" in (left := load_artifact(artifact).gallery.table["source"].to_pylist())
    assert len(left) == 8
    assert len(list(originals.iterdir())) == 10  # no file is deleted


def test_oldest_file_is_kept(with_copies, tmp_path):
    gallery, originals = load_artifact(with_copies).gallery, with_copies.parent / "pictures"
    rows = [gallery.table["source"].to_pylist().index(name) for name in ("1.png", "a\ncopy.jpg")]
    shutil.copytree(originals, tmp_path / "files")
    os.utime(tmp_path / "files" / "a\ncopy.jpg", (1e9, 1e9))
    assert kept_rows([Group(rows, [1.0, 0.99])], "oldest", gallery, tmp_path / "files") == [rows[1]]
    assert kept_rows([Group(rows, [1.0, 0.99])], "first", gallery) == [rows[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "largest"], "--originals"),
        (["--keep", "oldest", "--originals", "nowhere"], "nowhere"),
        (["--also", "mirored"], "did you mean 'mirrored'"),
        (["--dry-run"], "--remove-from-artifact"),
        (["--against", "nowhere"], "nowhere"),
    ],
)
def test_duplicates_command_names_the_fix(with_copies, options, message, capsys):
    assert main(["duplicates", str(with_copies), *options]) == 1
    assert message in capsys.readouterr().err


def test_duplicates_command_says_what_also_compares(with_copies, capsys):
    assert main(["duplicates", str(with_copies), "--also", "mirrored,rotated"]) == 0
    images = len(load_artifact(with_copies).store)
    assert f"comparing {images} images with 3 changed versions each" in capsys.readouterr().err


def test_originals_that_lack_a_file_are_an_error(with_copies, tmp_path, capsys):
    options = ["--keep", "largest", "--originals", str(tmp_path)]
    assert main(["duplicates", str(with_copies), *options]) == 1
    assert "1.png" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "artifact"])
def test_duplicates_are_found_against_a_reference(with_copies, kind, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    drawn(*DRAWN[0], "dotted").save(tmp_path / "other" / "again.jpg", quality=60)
    drawn("boot", "pink").save(tmp_path / "other" / "new.png")
    reference = with_copies if kind == "artifact" else tmp_path / "other"
    command = ["duplicates", str(with_copies), "--against", str(reference), "--csv", str(tmp_path / "it.csv")]
    assert main([*command, "--json"]) == 0
    pairs = {(pair["source"], pair["reference"]["source"]) for pair in json.loads(capsys.readouterr().out)}
    same = ["1.png", 'a "copy", small.jpg', "a\ncopy.jpg"]
    others = [f"{number}.png" for number in range(8) if number != 1]
    in_folder = {(one, "again.jpg") for one in same}
    assert pairs == ({*product(same, same), *zip(others, others, strict=True)} if kind == "artifact" else in_folder)
    with (tmp_path / "it.csv").open(newline="", encoding="utf-8") as file:
        assert {(line["source"], line["reference_source"]) for line in csv.DictReader(file)} == pairs


# Changed copies


def framed(colour):
    return lambda picture: ImageOps.expand(picture, 15, colour)


CHANGED = {
    "mirrored": ("mirrored", ImageOps.mirror),
    "turned left": ("rotated", lambda picture: picture.transpose(Image.Transpose.ROTATE_90)),
    "turned right": ("rotated", lambda picture: picture.transpose(Image.Transpose.ROTATE_270)),
    "upside down": ("rotated", lambda picture: picture.transpose(Image.Transpose.ROTATE_180)),
    "grey": ("grey", lambda picture: picture.convert("L").convert("RGB")),
    "black border": ("border", framed("black")),
    "white border": ("border", framed("white")),
    "cropped by a fifth": ("crop", lambda picture: cropped(picture, 0.1, 0.1, 0.1, 0.1)),
}


@pytest.mark.parametrize(("kind", "change"), CHANGED.values(), ids=CHANGED)
@pytest.mark.parametrize("alone", [True, False], ids=["one gallery", "two galleries"])
def test_changed_copies_are_found_if_asked_for(kind, change, alone):
    originals = [drawn(*each, "striped").resize((192, 160)) for each in DRAWN]
    copies = list(map(change, originals))
    if alone:
        mine = theirs = Pictures(Shown([*originals, *copies]))
        expected = {frozenset((row, row + len(DRAWN))) for row in range(len(DRAWN))}
    else:
        mine, theirs = Pictures(Shown(originals)), Pictures(Shown(copies))
        expected = {(row, row) for row in range(len(DRAWN))}
    pair = frozenset if alone else tuple
    found = {pair((row, other)) for row, others in changed_pairs(mine, theirs, [kind]) for other in others.tolist()}
    assert found <= expected
    # A window that is off by a third of a stripe no longer matches.
    assert len(found) >= (1 if kind == "crop" else len(DRAWN) - 1)
    assert list(changed_pairs(mine, theirs, [])) == []


def test_changed_copies_join_the_group_of_their_original():
    vectors = np.eye(6, dtype=np.float32)
    groups = find_groups(stored(vectors), never, pairs=[(4, np.array([1])), (1, np.array([3]))])
    assert [group.rows for group in groups] == [[1, 3, 4]]


def test_unlikely_pairs_are_not_compared():
    vectors = unit(np.array([[1, 0], [1, 0], [1, 0.2], [1, 0.6]]))  # cosines with the first: 1, 0.98 and 0.86
    asked = []

    def likely(rows, others, close):
        asked.append((rows.tolist(), others, close[0].tolist()))
        return np.arange(others.start, others.stop)[None] != np.full((len(rows), 1), 1)

    assert [group.rows for group in find_groups(stored(vectors), always, likely=likely)] == [[0, 2, 3]]
    assert asked == [([0, 1, 2, 3], slice(0, 4), [True, True, True, False])]


def test_every_pair_that_the_pixels_accept_is_likely(different):
    copies = [saved_anew(picture.resize((48, 48))) for picture in different]
    blank = [Image.new("RGB", (64, 64), shade) for shade in ("white", "black", (253, 253, 253))]
    pictures = Pictures(Shown([*different, *copies, *blank]))
    rows = np.arange(len(pictures))
    for close in (False, True):
        likely = pictures.likely(pictures, rows, slice(0, len(rows)), np.full((len(rows), len(rows)), close))
        same = np.stack([pictures.same(row, rows, not close) for row in rows])
        assert same.sum() >= len(rows) + 1.5 * len(different)
        assert not (same & ~likely).any()
        assert likely.mean() < 0.5


def test_copies_of_small_thumbnails_are_found_where_the_cosine_is_low():
    small = [drawn(*kind, pattern).resize((60, 80)) for kind in DRAWN for pattern in ("plain", "striped")]
    half = [picture.resize((30, 40), Image.Resampling.LANCZOS) for picture in small]
    pictures = Pictures(Shown([*small, *half]))
    found = [np.flatnonzero(pictures.same(row, np.arange(10, 20), True)).tolist() for row in range(10)]
    assert sum(rows == [row] for row, rows in enumerate(found)) >= 8, found
    assert all(set(rows) <= {row} for row, rows in enumerate(found))


def test_brighter_and_shifted_copies_count_only_where_the_cosine_is_high():
    pictures = [drawn(*kind, "striped") for kind in DRAWN]
    changes = (CHANGES["brighter"], CHANGES["cropped at a corner"])
    shown = Pictures(Shown([*pictures, *(change(picture) for change in changes for picture in pictures)]))
    for row in range(5):
        copies = np.array([row + 5, row + 10])
        assert not shown.same(row, copies, True).any()
        assert shown.same(row, copies, np.array([True, False]))[0] == False  # noqa: E712
    loose = np.stack([shown.same(row, np.array([row + 5, row + 10])) for row in range(5)])
    assert (loose.sum(axis=0) >= 4).all()


def test_pixels_must_agree_strictly_where_the_cosine_is_low():
    loose = lambda _, others, strict: ~strict  # noqa: E731
    vectors = unit(np.array([[1, 0], [1, 0.2], [1, 0.6]]))  # cosines with the first: 0.98 and 0.86
    assert [group.rows for group in find_groups(stored(vectors), loose)] == [[0, 1]]
    assert [group.rows for group in find_groups(stored(vectors), always)] == [[0, 1, 2]]
    assert fold(np.arange(3), vectors, loose).tolist() == [0, 0, 2]


def test_duplicates_command_rejects_a_threshold_out_of_range(with_copies, capsys):
    assert main(["duplicates", str(with_copies), "--threshold", "0.5"]) == 1
    assert "from 0.6 to 1, not 0.5" in capsys.readouterr().err


def test_bench_compares_duplicate_search_with_brute_force(artifact, capsys):
    assert main(["bench", str(artifact), "--duplicates", "300", "--dim", "32", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["rows"], figures["dimension"]) == (300, 32)
    assert figures["s"] > 0
    assert figures["brute force / s"] == pytest.approx(figures["brute force s, about"] / figures["s"])
