"""Very large galleries are evaluated on a sample that says so, and what is compact gives the same results."""

import io

import numpy as np
import pytest
from exact_store import ExactStore
from PIL import Image

from retrieval.artifact.metrics import key_of, new_metrics
from retrieval.artifact.sections import LeaveOneOut
from retrieval.evaluation import calibration, metrics
from retrieval.evaluation.calibration import Queries, calibrate
from retrieval.evaluation.large.labels import Labels, sample
from retrieval.evaluation.large.pictures import FewPictures, few_pictures
from retrieval.evaluation.markdown import leave_one_out_lines
from retrieval.evaluation.metrics import leave_one_out
from retrieval.images.compare import Pictures

ROWS, CLASSES = 3_000, 150


@pytest.fixture(scope="module")
def classes():
    """Vectors around the centres of classes, and their labels, some without."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, CLASSES, ROWS)
    vectors = rng.standard_normal((CLASSES, 32))[kinds] + 0.8 * rng.standard_normal((ROWS, 32))
    labels = [None if row % 11 == 0 else f"class {kind}" for row, kind in enumerate(kinds.tolist())]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_labels_are_the_sequence_that_they_were_made_of(classes):
    labels = Labels(classes[1])
    assert list(labels) == classes[1]
    assert (len(labels), labels[0], labels[-1], labels[5:8]) == (ROWS, None, classes[1][-1], classes[1][5:8])
    assert labels.at(np.array([7, 0])) == [classes[1][7], None]


def test_figures_are_the_same_from_compact_labels(classes):
    vectors, labels = classes
    assert leave_one_out(vectors, Labels(labels)) == leave_one_out(vectors, labels)
    own = Queries(vectors, Labels(labels), np.arange(ROWS))
    store = ExactStore(32)
    store.add(vectors)
    assert calibrate(store, Labels(labels), own) == calibrate(store, labels, Queries(vectors, labels, np.arange(ROWS)))


def test_sample_has_whole_classes_and_its_share_of_rows_without_a_label(classes):
    labels = Labels(classes[1])
    rows = sample(labels, 1_000, np.random.default_rng(0))
    assert np.array_equal(rows, np.unique(rows))
    assert 900 <= len(rows) <= 1_000
    drawn = labels.codes[rows]
    sizes, all_sizes = (np.bincount(codes[codes >= 0], minlength=CLASSES) for codes in (drawn, labels.codes))
    assert ((sizes == 0) | (sizes == np.minimum(all_sizes, 20))).all()
    assert abs((drawn < 0).mean() - (labels.codes < 0).mean()) < 0.05


@pytest.mark.parametrize("sizes", [(900,), (900, 100), (1,) * 1_000, (500, 1, 1, 1)])
def test_sample_of_any_classes_is_about_as_large_and_has_two(sizes):
    labels = Labels([str(kind) for kind, size in enumerate(sizes) for _ in range(size)])
    rows = sample(labels, 100, np.random.default_rng(0))
    assert 0 < len(rows) <= 100
    assert len(set(labels.at(rows))) == min(2, len(sizes)) or len(rows) > 10


def test_leave_one_out_of_more_images_is_of_a_sample_and_says_so(classes, monkeypatch):
    whole = leave_one_out(*classes)
    monkeypatch.setattr(metrics, "MOST_IMAGES", ROWS - 1)
    monkeypatch.setattr(metrics, "_SAMPLED", 1_500)
    part = leave_one_out(*classes)
    assert (whole["images"], "sampled_from" in whole) == (ROWS, False)
    assert part["sampled_from"] == ROWS
    assert 1_300 < part["images"] <= 1_500
    assert part["mAP"] == pytest.approx(whole["mAP"], abs=0.1)
    section = {key_of(name): value for name, value in part.items()}
    told = new_metrics({"leave_one_out": LeaveOneOut.model_validate(section)})
    assert f"in a sample of {part['images']:,} of the 3,000 images" in leave_one_out_lines(told)[0][0]
    assert '"sampled_from": 3000' in told.to_json()


def test_metrics_of_a_gallery_that_is_not_sampled_say_nothing_of_samples(classes):
    section = {key_of(name): value for name, value in leave_one_out(*classes).items()}
    told = new_metrics({"leave_one_out": LeaveOneOut.model_validate(section)})
    assert "sample" not in told.to_json() + leave_one_out_lines(told)[0][0]


def test_calibration_finds_strangers_without_a_filter_as_with_one(classes, monkeypatch):
    vectors, labels = classes
    store, own = ExactStore(32), Queries(vectors, labels, np.arange(ROWS))
    store.add(vectors)
    with_filter = calibrate(store, labels, own)
    monkeypatch.setattr(calibration, "_FILTERED_UP_TO", 0)
    for far in (500, 12):  # with so few, most queries still need the filter
        monkeypatch.setattr(calibration, "_FAR", far)
        assert calibrate(store, labels, own) == with_filter


class _Thumbnails:
    """Pictures of which every third shows the same as the one before."""

    def __len__(self):
        return 200

    def thumbnail(self, row):
        shown = row - 1 if row % 3 == 1 else row
        pixels = np.random.default_rng(shown).integers(0, 256, (12, 12, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((96, 96)).save(file, "JPEG", quality=90 - 10 * (row % 3))
        return file.getvalue()


@pytest.mark.parametrize("rows", [200, 40])
def test_pictures_of_few_rows_are_compared_as_those_of_all(rows):
    gallery = _Thumbnails()
    few, every, rng = FewPictures(gallery, rows), Pictures(gallery), np.random.default_rng(0)
    found = 0
    for row in rng.integers(0, 199, 30).tolist():
        others = np.append(rng.choice(200, 12), [row + 1, max(row - 1, 0)])
        np.testing.assert_array_equal(few.same(row, others), every.same(row, others))
        found += few.same(row, others).sum()
    assert found > 10


def test_small_galleries_are_compared_as_before():
    assert isinstance(few_pictures(_Thumbnails()), Pictures)
