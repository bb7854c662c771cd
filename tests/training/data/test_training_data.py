"""The data of a run: given or generated splits, held-out classes, and errors before the first step."""

import shutil
import zipfile
from collections import Counter

import datasets
import numpy as np
import pytest
from conftest import noise, png, tiny_recipe, write_data_set

from retrieval.errors import SourceError, TrainingError
from retrieval.sources.open import open_source
from training.data.dataset import open_data, open_splits, without
from training.data.pixels import Pixels
from training.data.splits import PARTS

COUNTS = {"cat": 20, "dog": 13, "eel": 7, "fox": 2}


def rows(counts, seed=0):
    """Rows of a dataset in random order, each with a unique picture."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    order = np.random.default_rng(seed).permutation(len(labels))
    return [(png(1000 * seed + int(number)), labels[number]) for number in order]


def opened(source, work, **changes):
    return open_data(tiny_recipe(data=str(source), **{"classes_per_batch": 2, "images_per_class": 2, **changes}), work)


def refused(source, work, error=TrainingError, **changes):
    with pytest.raises(error) as raised:
        opened(source, work, **changes)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def counts_of(data, part):
    return dict(Counter(data.labels[row] for row in data.parts[part]))


def check_parts(data, left_out=0):
    """Every row that is not left out is in exactly one part."""
    everything = data.everything.tolist()
    assert sorted(set(everything)) == sorted(everything)
    assert len(everything) == len(data.images) - left_out


# Splits


def test_given_splits_are_used(tmp_path):
    given = {"train": COUNTS, "validation": {"cat": 3, "dog": 1}, "test": {"cat": 2, "fox": 4}}
    folder = write_data_set(
        tmp_path / "set", **{part: rows(counts, i) for i, (part, counts) in enumerate(given.items())}
    )
    data = opened(folder, tmp_path / "work")
    assert {part: counts_of(data, part) for part in PARTS} == given
    assert all(set(np.array(data.images["split"])[data.parts[part]]) == {part} for part in PARTS)
    assert (data.described, data.gallery_split) == ("the test split", "train+validation")
    assert data.classes == sorted(COUNTS)
    assert data.targets.tolist() == [sorted(COUNTS).index(data.labels[row]) for row in data.train]
    assert (data.held_out, data.left_out) == ((), ())
    check_parts(data)
    whole = open_source(str(folder), split="train+validation+test")
    assert [data.raw(row).read() for row in range(len(data.images))] == [raw.read() for raw in whole.rows()]
    for seed in (1, 2):
        again = opened(folder, tmp_path / "work", seed=seed)
        assert all(np.array_equal(again.parts[part], data.parts[part]) for part in PARTS)


def test_data_set_name_config_and_licence_are_recorded(tmp_path):
    for name, seed in (("small", 0), ("big", 1)):
        write_data_set(tmp_path / "set" / name, train=rows({"cat": 30, "dog": 20 + seed}, seed))
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("small", "big"))
    (tmp_path / "set" / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{configs}---\n")
    data = opened(tmp_path / "set", tmp_path / "work", data_config="big")
    assert data.about == {"name": "set", "config": "big", "license": "mit"}
    assert (
        opened(tmp_path / "set", tmp_path / "work", data_config="big", data_license="cc0-1.0").about["license"]
        == "cc0-1.0"
    )
    assert data.name == data.pinned == str(tmp_path / "set")
    assert len(data.images) == 51
    assert "choose one with --config: small, big" in refused(tmp_path / "set", tmp_path / "work", SourceError)
    said = refused(tmp_path / "set", tmp_path / "work", SourceError, data_revision="v1")
    assert "is a local path and has no revisions: leave out 'v1'" in said


def test_validation_is_halved_when_there_is_no_test_split(tmp_path):
    held = {"cat": 11, "dog": 6, "eel": 1}
    folder = write_data_set(tmp_path / "set", train=rows(COUNTS), validation=rows(held, 1))
    data = opened(folder, tmp_path / "work")
    assert counts_of(data, "train") == COUNTS
    assert (data.described, data.gallery_split) == ("half of the validation split", "train+validation")
    tested = counts_of(data, "test")
    assert tested["cat"] in (5, 6)
    assert tested["dog"] == 3
    assert Counter(tested) + Counter(counts_of(data, "validation")) == Counter(held)
    check_parts(data)
    same, other = (opened(folder, tmp_path / "work", seed=seed) for seed in (0, 1))
    assert np.array_equal(same.parts["test"], data.parts["test"])
    assert not np.array_equal(other.parts["test"], data.parts["test"])
    assert np.array_equal(other.parts["train"], data.parts["train"])


@pytest.mark.parametrize("kind", ["parquet", "folder", "another name"])
def test_single_split_is_divided_class_by_class(tmp_path, kind):
    many = {"cat": 60, "dog": 34, "eel": 15, "fox": 2}
    split = "train" if kind != "another name" else "test"
    source = write_data_set(tmp_path / "set", **{split: rows(many)})
    if kind == "folder":
        source = tmp_path / "pictures"
        for number, (data, label) in enumerate(rows(many)):
            (source / label).mkdir(parents=True, exist_ok=True)
            (source / label / f"{number}.png").write_bytes(data)
    data = opened(source, tmp_path / "work")
    for part in ("validation", "test"):
        found = counts_of(data, part)
        assert found["cat"] in (5, 6)
        assert found["dog"] in (3, 4)
        assert found.get("eel", 0) in (1, 2)
        assert "fox" not in found, "two always stay to learn from"
    assert data.described == "a tenth of the images"
    assert data.gallery_split == split
    check_parts(data)
    again, other = (opened(source, tmp_path / "work", seed=seed) for seed in (0, 3))
    for part in PARTS:
        assert np.array_equal(again.parts[part], data.parts[part])
        assert not np.array_equal(other.parts[part], data.parts[part])


def test_test_part_is_a_tenth_even_with_small_classes(tmp_path):
    folder = write_data_set(tmp_path / "set", train=rows({f"class {number:02}": 4 for number in range(60)}))
    data = opened(folder, tmp_path / "work")
    assert 12 <= len(data.parts["test"]) <= 36, "24 are a tenth of 240"
    assert set(counts_of(data, "test").values()) == {1}
    assert min(counts_of(data, "train").values()) >= 2


def test_validation_is_cut_from_train_when_only_test_is_given(tmp_path):
    folder = write_data_set(tmp_path / "set", train=rows({"cat": 40, "dog": 40}), test=rows({"cat": 5, "dog": 5}, 1))
    data = opened(folder, tmp_path / "work")
    assert counts_of(data, "test") == {"cat": 5, "dog": 5}
    assert counts_of(data, "validation") == {"cat": 4, "dog": 4}
    assert (data.described, data.gallery_split) == ("the test split", "train")
    check_parts(data)


NAMES = [
    ("train", "validation", "test"),
    ("training", "valid", "testing"),
    ("train", "val", "eval"),
    ("Train", "Dev", "Evaluation"),
]


def draw_folders(folder, splits):
    seed = 0
    for split, counts in splits.items():
        for label, count in counts.items():
            for number in range(count):
                noise(folder / split / label / f"{number}.png", seed := seed + 1)
    return folder


def declare(folder, given):
    """A dataset whose card names its splits; without a card, `datasets` recognises only the usual file names."""
    folder = write_data_set(folder, **{name: rows(each, seed) for seed, (name, each) in enumerate(given.items())})
    files = "".join(f"  - {{split: {name}, path: {name}.parquet}}\n" for name in given)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: all\n  data_files:\n{files}---\n")
    return folder


def add_up(data):
    """Check that used and left-out images add up to all images of the source; return the left-out counts."""
    total = sum(1 for _ in open_source(data.name).rows())
    left_out = [int(note.split()[0]) for note in data.left_out]
    assert len(data.everything) + sum(left_out) == total
    assert len(set(data.everything.tolist())) == len(data.everything)
    return left_out


@pytest.mark.parametrize("names", NAMES, ids="-".join)
def test_split_folders_with_class_folders_are_read_as_splits(tmp_path, names):
    given = dict(zip(names, ({"cat": 5, "dog": 4}, {"cat": 2, "dog": 3}, {"cat": 1, "dog": 2}), strict=True))
    data = opened(draw_folders(tmp_path / "set", given), tmp_path / "work")
    assert [counts_of(data, part) for part in PARTS] == list(given.values())
    assert data.gallery_split == "train+validation"
    assert add_up(data) == []


@pytest.mark.parametrize("names", NAMES, ids="-".join)
def test_splits_are_recognised_by_all_common_names(tmp_path, names):
    counts = COUNTS, {"cat": 3, "dog": 1}, {"cat": 2, "fox": 4}
    data = opened(declare(tmp_path / "set", dict(zip(names, counts, strict=True))), tmp_path / "work")
    assert [counts_of(data, part) for part in PARTS] == list(counts)
    assert (data.described, data.splits) == ("the test split", names)
    assert data.gallery_split == "+".join(names[:2]), "by the names that the source has"
    assert add_up(data) == []


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_two_splits_for_the_same_part_are_both_used(tmp_path, kind):
    given = {"train": COUNTS, "val": {"cat": 3}, "validation": {"dog": 2}, "eval": {"eel": 3}, "test": {"fox": 1}}
    source = (draw_folders if kind == "folder" else declare)(tmp_path / "set", given)
    data = opened(source, tmp_path / "work")
    assert [counts_of(data, part) for part in PARTS] == [COUNTS, {"cat": 3, "dog": 2}, {"eel": 3, "fox": 1}]
    assert data.gallery_split == ("train+validation" if kind == "folder" else "train+val+validation")
    assert add_up(data) == []


@pytest.mark.parametrize("kind", ["parquet", "folder"])
def test_split_with_an_unknown_name_is_left_out_and_reported(tmp_path, kind):
    given = {"train": COUNTS, "extra": {"cat": 7, "owl": 1}, "validation": {"cat": 3}, "test": {"dog": 2}}
    source = (draw_folders if kind == "folder" else declare)(tmp_path / "set", given)
    data = opened(source, tmp_path / "work")
    assert [counts_of(data, part) for part in PARTS] == [COUNTS, {"cat": 3}, {"dog": 2}]
    assert data.left_out == ("8 images of the split 'extra', which is not recognised as training, validation or test",)
    assert add_up(data) == [8]
    assert data.gallery_split == "train+validation"
    recipe = tiny_recipe(data=str(source))
    gallery = open_splits(recipe, data.pinned, data.splits, data.gallery_split)
    assert len(list(gallery.rows())) == 45, "no image of it is in the gallery, either"


def test_unknown_splits_are_used_for_training_if_there_is_no_train(tmp_path):
    given = {"images": {"cat": 30, "dog": 30}, "more": {"eel": 20}, "dev": {"cat": 3, "eel": 3}}
    data = opened(declare(tmp_path / "set", given), tmp_path / "work")
    assert counts_of(data, "train") == {"cat": 30, "dog": 30, "eel": 20}
    assert data.described == "half of the validation split"
    assert data.gallery_split == "images+more+dev"
    assert add_up(data) == []


def test_used_and_left_out_images_add_up_to_the_total(tmp_path):
    held_out = {"validation": {"cat": 4, "yak": 3}, "test": {"dog": 4}, "extra": {"emu": 5}}
    folder = declare(tmp_path / "set", {"train": {}, **held_out})
    train = [*rows({"cat": 12, "dog": 12, "gnu": 1}), (png(5001), None), (png(5002), None), (b"no picture", "cat")]
    write_data_set(folder, train=train)
    recipe = tiny_recipe(data=str(folder), classes_per_batch=2, skip_unusable=True)
    data = open_data(recipe, tmp_path / "work")
    data = without(recipe, data, bad_rows(data))
    assert sorted(add_up(data)) == [1, 2, 4, 5]


def test_rows_are_read_once_and_again_only_after_a_change(tmp_path):
    folder = write_data_set(tmp_path / "set", train=rows(COUNTS), validation=rows({"cat": 9, "dog": 9}, 1))
    first = opened(folder, tmp_path / "work")
    (file,) = (tmp_path / "work").glob("*.arrow")
    written = file.stat().st_mtime_ns
    second = opened(folder, tmp_path / "work", seed=1)
    assert file.stat().st_mtime_ns == written
    assert second.labels == first.labels
    file.rename(file.with_suffix(".unfinished"))  # what a killed process leaves
    file.with_suffix(".unfinished").write_bytes(b"cut off")
    assert opened(folder, tmp_path / "work").labels == first.labels
    write_data_set(folder, train=rows({"cat": 8, "dog": 8}, 2))
    assert counts_of(opened(folder, tmp_path / "work"), "train") == {"cat": 8, "dog": 8}


# Held-out classes


@pytest.fixture(scope="module")
def ten_classes(tmp_path_factory):
    counts = {f"class {number}": 8 + number for number in range(10)}
    held = dict.fromkeys(counts, 4)
    return write_data_set(tmp_path_factory.mktemp("ten") / "set", train=rows(counts), validation=rows(held, 1))


def test_held_out_classes_are_kept_from_training(ten_classes, tmp_path):
    data = opened(ten_classes, tmp_path, hold_out_classes=0.3)
    assert len(data.held_out) == 3
    assert set(data.classes) == set(data.labels) - set(data.held_out)
    for part in PARTS:
        assert not {data.labels[row] for row in data.seen(part)} & set(data.held_out)
    assert np.array_equal(data.train, data.seen("train"))
    assert {data.labels[row] for row in data.unseen} == set(data.held_out)
    assert set(data.targets.tolist()) == set(range(7))
    seen = [row for part in PARTS for row in data.seen(part)]
    assert sorted([*seen, *data.unseen]) == sorted(data.everything)
    check_parts(data)
    drawn = {opened(ten_classes, tmp_path, hold_out_classes=0.3, seed=seed).held_out for seed in (0, 0, 1, 2, 3)}
    assert data.held_out in drawn
    assert 2 <= len(drawn) <= 4
    assert opened(ten_classes, tmp_path).held_out == ()


@pytest.mark.parametrize(("share", "count"), [(0.04, 0), (0.9, 9)])
def test_holding_out_too_few_or_too_many_classes_is_an_error(ten_classes, tmp_path, share, count):
    message = refused(ten_classes, tmp_path, hold_out_classes=share)
    assert message.startswith(f"hold_out_classes={share:g} of 10 classes is {count}: at least one")


# Folders and archives


def test_label_level_chooses_the_classes(tmp_path):
    for number in range(24):
        noise(tmp_path / "set" / ["cat", "dog"][number % 2] / ["old", "new"][number // 12] / f"{number}.png", number)
    assert opened(tmp_path / "set", tmp_path / "work").classes == ["new", "old"]
    assert opened(tmp_path / "set", tmp_path / "work", label_level=1).classes == ["cat", "dog"]


def test_splits_of_archives_are_used_and_what_is_left_out_is_told(tmp_path):
    (tmp_path / "set").mkdir()
    given = {"train": {"cat": 6, "dog": 6}, "val": {"cat": 2, "dog": 2}, "test": {"cat": 1, "dog": 3}}
    for start, (part, counts) in enumerate(given.items()):
        with zipfile.ZipFile(tmp_path / "set" / f"{part}-000.zip", "w") as archive:
            for label, count in counts.items():
                for number in range(count):
                    archive.writestr(f"{label}/{number}.png", png(100 * start + 10 * (label == "cat") + number))
            archive.writestr("more.zip", b"PK")
    data = opened(tmp_path / "set", tmp_path / "work")
    assert {part: counts_of(data, part) for part in PARTS} == dict(zip(PARTS, given.values(), strict=True))
    reason = "an archive inside an archive: unpack it first"
    assert data.notes == tuple(f"left out {part}-000.zip/more.zip: {reason}" for part in given)
    assert data.raw(0).read() == png(10)


# Errors before the first step


def test_missing_data_source_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="names no data: use --data"):
        open_data(tiny_recipe(), tmp_path)
    message = refused(tmp_path / "nothing", tmp_path / "work", SourceError)
    assert str(tmp_path / "nothing") in message


def test_data_without_labels_is_an_error(tmp_path):
    for seed in range(4):
        noise(tmp_path / "set" / f"{seed}.png", seed)
    words = "has no labels: training needs one for each image. Name the label column with --label-column"
    assert words in refused(tmp_path / "set", tmp_path / "work")
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.Value("string")})
    table = {"image": [{"bytes": data, "path": None} for data, _ in rows(COUNTS)], "kind": [k for _, k in rows(COUNTS)]}
    datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / "unlabelled" / "train.parquet")
    assert words in refused(tmp_path / "unlabelled", tmp_path / "work", skip_unusable=True)
    assert opened(tmp_path / "unlabelled", tmp_path / "work", label_column="kind").classes == sorted(COUNTS)


@pytest.mark.parametrize("names", [None, ["cat", "dog"]])
def test_images_without_a_label_are_an_error_or_left_out(tmp_path, names):
    given = rows({"cat": 30, "dog": 30})
    given[7:7] = [(png(98), None), (png(99), None)]
    folder = write_data_set(tmp_path / "set", names=names, train=given)
    message = refused(folder, tmp_path / "work")
    assert message.startswith(f"2 of 62 images of {folder} have no label, the first is train/7. Label them, or leave")
    assert message.endswith("--set skip_unusable=true.")
    data = opened(folder, tmp_path / "work", skip_unusable=True)
    assert data.left_out == ("2 images without a label",)
    assert data.classes == ["cat", "dog"]
    assert not {7, 8} & set(data.everything.tolist())
    check_parts(data, left_out=2)


def test_missing_column_is_an_error(tmp_path):
    folder = write_data_set(tmp_path / "set", train=rows(COUNTS))
    message = refused(folder, tmp_path / "work", SourceError, label_column="kind")
    assert message == f"{folder} has no column 'kind'; its columns are image, label."
    message = refused(folder, tmp_path / "work", SourceError, image_column="photo")
    assert "no image column 'photo'; its columns are image, label (choose one with --image-column)." in message
    noise(tmp_path / "pictures" / "cat" / "1.png", 1)
    assert "has no column 'kind'" in refused(tmp_path / "pictures", tmp_path / "work", SourceError, label_column="kind")
    assert not list((tmp_path / "work").glob("*"))


def test_class_with_a_single_image_is_an_error_or_left_out(tmp_path):
    folder = write_data_set(tmp_path / "set", train=rows({"cat": 30, "dog": 30, "gnu": 1, "yak": 1}))
    message = refused(folder, tmp_path / "work")
    assert message.startswith("2 of 4 classes have fewer than two training images: 'gnu' (1), 'yak' (1).")
    assert message.endswith("leave these classes out with --set skip_unusable=true.")
    data = opened(folder, tmp_path / "work", skip_unusable=True)
    assert data.left_out == ("2 images of 2 classes with fewer than two training images: 'gnu' (1), 'yak' (1)",)
    assert data.classes == ["cat", "dog"]
    check_parts(data, left_out=2)


def test_class_missing_from_train_is_an_error_or_left_out(tmp_path):
    splits = {"train": rows({"cat": 9, "dog": 9}), "validation": rows({"cat": 4, "gnu": 4}, 1)}
    folder = write_data_set(tmp_path / "set", **splits, test=rows({"dog": 3, "gnu": 3}, 2))
    assert "1 of 3 classes have fewer than two training images: 'gnu' (0)" in refused(folder, tmp_path / "work")
    data = opened(folder, tmp_path / "work", skip_unusable=True)
    assert (counts_of(data, "validation"), counts_of(data, "test")) == ({"cat": 4}, {"dog": 3})


def test_empty_class_is_an_error_or_left_out(tmp_path):
    folder = write_data_set(tmp_path / "set", names=["cat", "dog", "yeti"], train=rows({"cat": 30, "dog": 30}))
    assert "1 of 3 classes have fewer than two training images: 'yeti' (0)" in refused(folder, tmp_path / "work")
    data = opened(folder, tmp_path / "work", skip_unusable=True)
    assert data.classes == ["cat", "dog"]
    assert "'yeti' (0)" in data.left_out[0]
    for seed, label in enumerate(["cat"] * 20 + ["dog"] * 20):
        noise(tmp_path / "pictures" / label / f"{seed}.png", seed)
    (tmp_path / "pictures" / "yeti").mkdir()
    assert "'yeti' (0)" in refused(tmp_path / "pictures", tmp_path / "work")
    assert opened(tmp_path / "pictures", tmp_path / "work", skip_unusable=True).classes == ["cat", "dog"]


def test_single_class_is_an_error(tmp_path):
    folder = write_data_set(tmp_path / "set", train=rows({"cat": 30}))
    assert refused(folder, tmp_path / "work").endswith("has too few classes to train on: 1, at least 2 are needed.")
    assert "too few classes to train on: 1," in refused(folder, tmp_path / "work", epochs=0)


def test_batch_larger_than_the_data_is_an_error(tmp_path):
    folder = write_data_set(tmp_path / "set", train=rows(COUNTS), validation=rows(COUNTS, 1))
    message = refused(folder, tmp_path / "work", classes_per_batch=5)
    assert message == "a batch needs 5 classes, but the data has only 4: use --set classes_per_batch=4 or less."
    message = refused(folder, tmp_path / "work", classes_per_batch=4, images_per_class=11)
    assert message.startswith("a batch needs 4 x 11 = 44 images, but there are only 42 training images")
    options = {"triplet": "none", "images_per_class": 1}
    assert "43 x 1 = 43 images, but there are only 42" in refused(
        folder, tmp_path / "work", classes_per_batch=43, **options
    )
    opened(folder, tmp_path / "work", classes_per_batch=42, **options)  # with K = 1 any number of classes will do
    opened(folder, tmp_path / "work", classes_per_batch=99, epochs=0)
    message = refused(folder, tmp_path / "work", classes_per_batch=4, hold_out_classes=0.25)
    assert "a batch needs 4 classes, but the data has only 3" in message


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_no_images_left_for_validation_or_test_is_an_error(tmp_path, missing):
    """So few images that none is left for validation or test: reported now, not after the last epoch."""
    held = {"validation": {"test": rows({"cat": 3, "dog": 3}, 1)}, "test": {"validation": rows({"cat": 1}, 1)}}[missing]
    folder = write_data_set(tmp_path / "set", train=rows({"cat": 2, "dog": 2}), **held)
    assert missing in refused(folder, tmp_path / "work")


# Unreadable images


def spoiled(tmp_path, cats):
    """A dataset with `cats` cats and 12 dogs for training, where rows 0 and 5 cannot be opened."""
    train = [(png(number), "cat") for number in range(cats)] + [(png(100 + number), "dog") for number in range(12)]
    train[0] = (train[0][0][:60], train[0][1])
    train[5] = (b"no picture", train[5][1])
    held = rows({"cat": 4, "dog": 4}, 3)
    return write_data_set(tmp_path / "set", train=train, validation=held, test=rows({"cat": 2, "dog": 2}, 4))


def bad_rows(data):
    pixels = Pixels(data.raw, 32, "bilinear", 1)
    pixels.fill(data.everything.tolist())
    return pixels.bad


def test_images_that_cannot_be_opened_are_left_out_and_named(tmp_path):
    recipe = tiny_recipe(data=str(spoiled(tmp_path, 12)), classes_per_batch=2)
    data = open_data(recipe, tmp_path / "work")
    bad = bad_rows(data)
    assert sorted(bad) == [0, 5]
    rest = without(recipe, data, bad)
    assert sorted(set(data.everything) - set(rest.everything)) == [0, 5]
    assert {part: len(rows) for part, rows in rest.parts.items()} == {"train": 22, "validation": 8, "test": 4}
    assert rest.left_out == (f"2 images that cannot be opened; the first: train/0: {bad[0]}",)
    assert rest.skipped == (("train/0", bad[0]), ("train/5", bad[5]))
    assert without(recipe, data, {}) is data


def test_too_few_images_left_for_training_is_an_error(tmp_path):
    folder = spoiled(tmp_path, 2)  # one of the two cats cannot be opened
    recipe = tiny_recipe(data=str(folder), classes_per_batch=2)
    data = open_data(recipe, tmp_path / "work")
    with pytest.raises(TrainingError, match=r"1 of 2 classes have fewer than two training images: 'cat' \(1\)"):
        without(recipe, data, bad_rows(data))
    with pytest.raises(TrainingError, match="has too few classes to train on: 1,"):
        without(recipe.changed({"skip_unusable": True}), data, bad_rows(data))
    large = recipe.changed({"images_per_class": 7})
    assert len(open_data(large, tmp_path / "work").train) == 14
    shutil.rmtree(folder)
    recipe = tiny_recipe(data=str(spoiled(tmp_path, 12)), classes_per_batch=2, images_per_class=12)
    data = open_data(recipe, tmp_path / "work")
    with pytest.raises(TrainingError, match="2 x 12 = 24 images, but there are only 22 training images"):
        without(recipe, data, bad_rows(data))
