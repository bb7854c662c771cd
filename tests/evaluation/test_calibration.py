"""Calibration: evidence, match probability and threshold, checked against plain numpy and known clusters."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATA, contents, needs_data, noise
from exact_store import ExactStore
from PIL import Image, ImageDraw
from runs import build_run
from scipy.stats import beta, binomtest

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.artifact.sections import CalibrationSection
from retrieval.build.change import add_images, remove_images, update_metrics
from retrieval.encoders.image import Encoder
from retrieval.evaluation.calibration import PRECISION, REFUSED, Queries, calibrate
from retrieval.evaluation.confidence import Calibration, Confidence, Density, Nearest, class_codes, evidence, nearest
from retrieval.images.open import open_image
from retrieval.images.stored.encoded import encode
from retrieval.images.values import Values
from retrieval.sources.open import open_source
from retrieval.stores.choose import fit_index
from retrieval.stores.faiss import FaissStore, IndexSettings

LINE = Calibration((1.0, 2.0, 3.0), -4.0, (-1.0, 0.0, 2.0), (0.1, 0.5, 0.9), threshold=1.0, floor=0.6)


def column_of(labels):
    return Values("label", encode(pa.chunked_array([pa.array(list(labels), pa.string())])))


def exact(vectors):
    store = ExactStore(vectors.shape[1])
    store.add(vectors)
    return store


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def angles(*degrees):
    turned = np.radians(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def cosine(degrees):
    return math.cos(math.radians(degrees))


# Evidence


def test_evidence_matches_values_computed_by_hand():
    """Four images on a circle at 0, 10, 20 and 90 degrees, and a query at 5; the last image has no label."""
    vectors, codes = angles(0, 10, 20, 90), np.array([0, 0, 1, -1])
    store = exact(vectors)
    found = nearest(store, angles(5))
    assert found.rows.tolist() == [[0, 1, 2, 3, *[-1] * 6]]
    density = {
        0: (cosine(10) + cosine(20) + cosine(90)) / 3,
        1: (cosine(10) + cosine(10) + cosine(80)) / 3,
        2: (cosine(20) + cosine(10) + cosine(70)) / 3,
        3: (cosine(90) + cosine(80) + cosine(70)) / 3,
    }
    known = Density(store)
    np.testing.assert_allclose(known.of(np.array([[2, 0], [-1, 3]])), [[density[2], density[0]], [1, density[3]]], 1e-5)
    around = (cosine(5) + cosine(5) + cosine(15) + cosine(85)) / sum(density.values())
    hits = Nearest(np.array([[1, 2, 3, -1]]), np.array([[cosine(5), cosine(15), cosine(85), -np.inf]], np.float32))
    expected = [
        [1 / 2, cosine(5) / density[1], around],  # one of the two other labelled images has the same label
        [0, cosine(15) / density[2], around],
        [np.nan] * 3,  # no label
        [np.nan] * 3,  # no hit
    ]
    np.testing.assert_allclose(evidence(found, hits, codes, known)[0], expected, rtol=1e-5)


def test_gallery_image_used_as_query_does_not_find_itself():
    store = exact(angles(0, 10, 20, 90))
    found = nearest(store, angles(10, 10), own=np.array([1, -1]))
    assert found.rows[:, :4].tolist() == [[0, 2, 3, -1], [1, 0, 2, 3]]
    assert found.scores[0, 0] == pytest.approx(cosine(10))
    allowed = nearest(store, angles(10), allowed=np.array([3]))
    assert allowed.rows.tolist() == [[3, *[-1] * 9]]


def test_agreement_of_a_hit_outside_the_ten_nearest_counts_all_ten():
    """Twelve images: the eleventh is not among the ten nearest, so all ten count for it."""
    store, codes = exact(angles(*range(0, 24, 2))), np.array([0] * 5 + [1] * 7)
    found = nearest(store, angles(-1))
    assert found.rows[0].tolist() == list(range(10))
    hits = Nearest(np.array([[0, 5, 10]]), np.array([[1.0, 0.9, 0.8]], np.float32))
    agree = evidence(found, hits, codes, Density(store))[0, :, 0]
    assert agree.tolist() == [4 / 9, 4 / 9, 5 / 10]


def test_evidence_matches_plain_loops():
    rng = np.random.default_rng(1)
    vectors, codes = unit(rng.normal(size=(60, 5)) + 1), rng.integers(-1, 4, 60)
    queries, store = unit(rng.normal(size=(7, 5)) + 1), exact(vectors)
    found = nearest(store, queries)
    given = evidence(found, found, codes, Density(store))
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -9)
    density = np.sort(cosines, axis=1)[:, -10:].mean(axis=1)
    for query, scores in enumerate(queries @ vectors.T):
        ten = np.argsort(-scores)[:10]
        around = scores[ten].mean() / density[ten].mean()
        for place, row in enumerate(ten):
            same = np.mean([codes[other] == codes[row] for other in ten if other != row and codes[other] >= 0])
            expected = [same, scores[row] / density[row], around] if codes[row] >= 0 else [np.nan] * 3
            np.testing.assert_allclose(given[query, place], expected, rtol=1e-4)


# Strength, match probability and confidence


def test_calibration_gives_strength_probability_and_confidence():
    strength = LINE.strength(np.array([[[1, 1, 1], [0, 0.5, 1.5], [np.nan] * 3]]))
    assert strength.tolist() == [[2.0, 1.5, -np.inf]]
    assert LINE.chance(np.array([-5, -0.5, 1, 9, -np.inf])).tolist() == pytest.approx([0.1, 0.3, 0.7, 0.9, 0.1])
    assert LINE.confident(np.array([[1.0, 0.99], [3.0, 1.0]]), np.array([0.6, 0.59])).tolist() == [
        [True, False],
        [False, False],  # the best hit is too far away
    ]
    never = replace(LINE, threshold=None)
    assert not never.confident(np.array([[1e9]]), np.ones(1)).any()


# Fitting


def clusters(count, labels, per_label, seed, noisy=0.0, spread=0.5):
    """Clusters around the `labels` of `count` directions; a share `noisy` of the images lies in another cluster."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(count, 16))
    names = np.repeat(labels, per_label)
    places = np.where(rng.random(len(names)) < noisy, rng.choice(labels, len(names)), names)
    return unit(centres[places] + spread * rng.normal(size=(len(names), 16))), [str(name) for name in names]


@cache
def learned(noisy=0.15, spread=0.6):
    """30 classes of 30 images each, some of them mislabelled: store, labels and section."""
    vectors, labels = clusters(40, np.arange(30), 30, seed=0, noisy=noisy, spread=spread)
    store = exact(vectors)
    return store, labels, calibrate(store, labels, Queries(vectors, labels, np.arange(len(vectors))))


def answers(store, labels, section, queries):
    """For the ten hits of each query, each (Q, 10): match probability, confident or not, and label."""
    confidence = Confidence(Calibration.of(section), store, column_of(labels))
    rows, scores = store.search(queries, 10)
    given = [confidence.of(*each) for each in zip(queries, rows, scores, strict=True)]
    return np.array([each[0] for each in given]), np.array([each[1] for each in given]), np.array(labels)[rows]


def within(successes, trials):
    """The 99.9% confidence interval of a share."""
    ends = binomtest(int(successes), int(trials)).proportion_ci(0.999, "wilson")
    return ends.low, ends.high


def test_match_probability_equals_the_share_of_correct_hits():
    store, labels, section = learned()
    vectors, wanted = clusters(40, np.arange(30), 40, seed=1, noisy=0.15, spread=0.6)
    chances, _, found = answers(store, labels, section, vectors)
    first, right = chances[:, 0], found[:, 0] == wanted
    assert 0.3 < right.mean() < 0.95
    for low, high in ((0, 0.6), (0.6, 0.8), (0.8, 1.01)):
        mask = (first >= low) & (first < high)
        if mask.sum() >= 50:
            least, most = within(right[mask].sum(), mask.sum())
            assert least - 0.05 <= first[mask].mean() <= most + 0.05
    assert abs(chances.mean() - (found == np.array(wanted)[:, None]).mean()) < 0.05


def test_confident_hits_are_correct_and_unknown_classes_are_refused():
    store, labels, section = learned(noisy=0.03)
    vectors, wanted = clusters(40, np.arange(30), 30, seed=2, noisy=0.03, spread=0.6)
    _, confident, found = answers(store, labels, section, vectors)
    shown, right = confident[:, 0], found[:, 0] == wanted
    assert shown.mean() > 0.3
    assert within(right[shown].sum(), shown.sum())[1] >= PRECISION
    strangers, _ = clusters(40, np.arange(30, 40), 40, seed=3, spread=0.6)
    refused = ~answers(store, labels, section, strangers)[1][:, 0]
    assert within(refused.sum(), len(refused))[1] >= REFUSED
    nothing = unit(np.random.default_rng(4).normal(size=(300, 16)))
    refused = ~answers(store, labels, section, nothing)[1][:, 0]
    assert within(refused.sum(), len(refused))[1] >= REFUSED


def test_no_hit_is_confident_when_labels_are_random():
    rng = np.random.default_rng(0)
    vectors, labels = unit(rng.normal(size=(300, 8))), [str(code) for code in rng.integers(0, 5, 300)]
    section = calibrate(exact(vectors), labels, Queries(vectors, labels, np.arange(300)))
    assert section.threshold is None
    assert section.checked.precision is None
    assert (section.checked.shown, section.checked.refused) == (0, 1)
    assert max(section.chances) < 0.5


def test_threshold_is_the_lowest_that_meets_both_targets():
    """On the queries used for fitting, with lower bounds of the Clopper-Pearson interval."""
    store, labels, section = learned(noisy=0.03)
    one, codes = Calibration.of(section), np.array([int(label) for label in labels])
    vectors, own = store.vectors(np.arange(len(store))), np.arange(len(store))
    found = nearest(store, vectors, own)
    absent = [nearest(store, vectors[[row]], allowed=np.flatnonzero(codes != codes[row])) for row in own]
    absent = Nearest(np.concatenate([each.rows for each in absent]), np.concatenate([each.scores for each in absent]))
    density, strengths = Density(store), {}
    for name, each in (("known", found), ("strange", absent)):
        first = one.strength(evidence(each, each, codes, density))[:, 0]
        likely = (each.scores[:, 0] >= one.floor) & (one.chance(first) > 0.5)
        strengths[name] = np.where(likely, first, -np.inf)
    right = codes[found.rows[:, 0]] == codes
    assert one.floor == np.sort(found.scores[right, 0])[int(0.05 * (right.sum() - 1))]

    def keeps(threshold):
        shown, below = strengths["known"] >= threshold, (strengths["strange"] < threshold).sum()
        precise = beta.ppf(0.05, right[shown].sum(), (~right[shown]).sum() + 1)
        refusing = beta.ppf(0.05, below, len(codes) - below + 1)
        return bool(precise >= PRECISION and refusing >= REFUSED)

    assert keeps(one.threshold - 1e-9)  # a query has exactly this strength
    lower = np.unique(strengths["known"][np.isfinite(strengths["known"]) & (strengths["known"] < one.threshold - 1e-9)])
    assert not any(keeps(strength) for strength in lower[1:])


def test_calibration_error_and_curve_come_from_the_checking_queries():
    store, labels, _ = learned()
    taught, checked = (clusters(40, np.arange(30), 20, seed=seed, noisy=0.15, spread=0.6) for seed in (5, 6))
    section = calibrate(store, labels, Queries(*taught), Queries(*checked))
    assert section.held_out is True
    assert section.queries == section.checked.queries == 600
    chances, confident, found = answers(store, labels, section, checked[0])
    confident = confident.astype(bool)  # without a threshold, none is
    right = found == np.array(checked[1])[:, None]
    error, curve = 0.0, {"chance": [], "share": [], "pairs": []}
    for low in np.arange(10) / 10:
        mask = (chances >= low) & ((chances < low + 0.1) | (low == 0.9))
        if mask.any():
            error += mask.mean() * abs(chances[mask].mean() - right[mask].mean())
            for name, value in zip(curve, (chances[mask].mean(), right[mask].mean(), mask.sum()), strict=True):
                curve[name].append(float(value))
    given = section.checked
    # The last digits of a cosine depend on whether queries are searched together or one by one.
    assert given.expected_calibration_error == pytest.approx(error, abs=1e-3)
    for name, values in curve.items():
        assert getattr(given.reliability, name) == pytest.approx(values, abs=2 if name == "pairs" else 1e-3)
    assert given.shown == pytest.approx(confident[:, 0].mean())
    if given.precision:
        assert given.precision.value == pytest.approx(right[confident[:, 0], 0].mean())


def test_small_gallery_without_a_threshold_says_of_no_hit_whether_it_is_a_match():
    vectors, labels = clusters(40, np.arange(6), 5, seed=0)
    store = exact(vectors)
    section = calibrate(store, labels, Queries(vectors, labels, np.arange(30)))
    assert section.threshold is None
    chances, confident, _ = answers(store, labels, section, vectors)
    assert chances[:, 0].min() > 0.5
    assert (confident == None).all()  # noqa: E711


def test_match_probability_never_falls_as_strength_rises():
    one = Calibration.of(learned()[2])
    chances = one.chance(np.linspace(-30, 30, 5000))
    assert (np.diff(chances) >= 0).all()
    assert 0 <= chances[0] < chances[-1] <= 1


def test_calibration_is_deterministic_and_survives_json():
    store, labels, section = learned()
    vectors = store.vectors(np.arange(len(store)))
    again = calibrate(store, labels, Queries(vectors, labels, np.arange(len(vectors))))
    assert again.model_dump_json() == section.model_dump_json()
    read = CalibrationSection.model_validate_json(section.model_dump_json())
    assert read == section
    assert Calibration.of(read) == Calibration.of(section)


def test_unsuitable_labels_give_no_calibration():
    vectors, labels = clusters(40, np.arange(4), 20, seed=0)

    def of(labels, rows=slice(None)):
        mine = vectors[rows]
        return calibrate(exact(mine), labels[rows], Queries(mine, labels[rows], np.arange(len(mine))))

    assert of(labels)
    assert of([None] * 80) is None
    assert of(["one"] * 80) is None
    assert of([str(row) for row in range(80)]) is None  # no label has two images
    assert of(labels, slice(15, 30)) is None  # too few queries
    queries = Queries(vectors, ["another"] * 80)
    assert calibrate(exact(vectors), labels, queries) is None


def test_calibration_ignores_unlabelled_images():
    vectors, labels = clusters(40, np.arange(30), 30, seed=0, spread=0.4)
    some = [label if row % 3 else None for row, label in enumerate(labels)]
    store = exact(vectors)
    section = calibrate(store, some, Queries(vectors, some, np.arange(len(vectors))))
    assert section.queries == sum(label is not None for label in some)
    # As with all labels: unlabelled images of the query's own class are not taken for hits of an unknown class.
    assert section.checked.refused >= REFUSED - 0.05
    assert section.checked.shown > 0.3
    chances, confident, found = answers(store, some, section, vectors[:60])
    for given in (chances, confident):
        assert ((given == None) == (found == None)).all()  # noqa: E711
    assert confident[found != None].mean() > 0.3  # noqa: E711


def test_confidence_handles_no_hits_and_a_query_from_the_gallery():
    store, labels, section = learned()
    confidence, vectors = Confidence(Calibration.of(section), store, column_of(labels)), store.vectors(np.arange(50))
    assert confidence.of(vectors[0], np.empty(0, np.int64), np.empty(0, np.float32)) == ([], [])
    rows, scores = store.search(vectors, 6)
    assert rows[:, 0].tolist() == list(range(50))
    found = [confidence.of(*each)[0][1:] for each in zip(vectors, rows, scores, strict=True)]
    own = [confidence.of(vectors[row], rows[row, 1:], scores[row, 1:], own=row)[0] for row in range(50)]
    assert found != own  # without `own`, a query that equals a gallery image has that image among its nearest


@pytest.mark.parametrize("factory", ["IVF8,SQfp16", "HNSW16"])
def test_approximate_index_gives_nearly_the_same_calibration(factory):
    store, labels, section = learned(noisy=0.03)
    vectors = store.vectors(np.arange(len(store)))
    approximate = FaissStore(16, IndexSettings(factory, search={"nprobe": 6}))
    approximate.train(vectors)
    approximate.add(vectors)
    again = calibrate(approximate, labels, Queries(vectors, labels, np.arange(len(vectors))))
    assert again.checked.shown == pytest.approx(section.checked.shown, abs=0.1)
    assert again.weights == pytest.approx(section.weights, rel=0.3)
    queries, _ = clusters(40, np.arange(30), 3, seed=8, spread=0.6)
    mine, theirs = (answers(each, labels, section, queries)[0] for each in (store, approximate))
    assert np.abs(mine[:, 0] - theirs[:, 0]).mean() < 0.05


# In an artifact


def section_of(folder):
    return read_metrics(folder).calibration


def test_artifact_calibration_is_computed_from_its_own_images(artifact):
    opened = load_artifact(artifact)
    rows = np.arange(60)
    again = calibrate(
        opened.store, opened.gallery.labels, Queries(opened.store.vectors(rows), opened.gallery.labels, rows)
    )
    assert section_of(artifact) == again
    assert Calibration.of(again).threshold is None  # 60 images are too few to be sure of 95%


def test_adding_and_removing_images_recalibrates(copied_artifact, tmp_path):
    before = section_of(copied_artifact)
    for seed in range(3):
        noise(tmp_path / "more" / "noise" / f"{seed}.png", seed)
    add_images(copied_artifact, open_source(str(tmp_path / "more")))
    grown = section_of(copied_artifact)
    assert (before.queries, grown.queries) == (60, 63)
    assert grown.weights != before.weights
    gallery = load_artifact(copied_artifact).gallery
    remove_images(copied_artifact, gallery.ids[10:])
    assert section_of(copied_artifact) is None  # a single label, or too few queries
    assert not (copied_artifact / LAYOUT.plots).exists()


def test_calibration_from_held_out_images_is_kept_when_adding(copied_artifact, tmp_path):
    own = section_of(copied_artifact)
    update_metrics(copied_artifact, {"calibration": own.model_copy(update={"held_out": True})})
    noise(tmp_path / "more" / "noise" / "a.png", 1)
    add_images(copied_artifact, open_source(str(tmp_path / "more")))
    assert section_of(copied_artifact) == own.model_copy(update={"held_out": True})
    assert "other held-out images" in (copied_artifact / LAYOUT.card).read_text()


def test_evaluation_can_override_the_calibration(pictures, encoder, tmp_path):
    build_run(open_source(str(pictures)), tmp_path / "it", encoder, lambda _: {"calibration": None})
    assert section_of(tmp_path / "it") is None
    assert not (tmp_path / "it" / LAYOUT.plots).exists()


def test_adding_images_leaves_hard_linked_artifacts_unchanged(copied_artifact, tmp_path):
    for name in contents(copied_artifact):
        (tmp_path / "linked" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "linked" / name).hardlink_to(copied_artifact / name)
    before = contents(copied_artifact)
    for seed in range(3):
        noise(tmp_path / "more" / "noise" / f"{seed}.png", seed)
    add_images(copied_artifact, open_source(str(tmp_path / "more")))
    assert contents(copied_artifact)["plots/reliability.png"] != before["plots/reliability.png"]
    assert contents(tmp_path / "linked") == before
    load_artifact(tmp_path / "linked")


# With photographs


def photographs(split, kinds, most):
    """Up to `most` images of each class of the real data: pictures and labels."""
    import datasets

    path = DATA / "caltech101" / f"{split}.parquet"
    names = datasets.load_dataset("parquet", data_files=str(path), split="train").features["label"].names
    table, chosen = pq.read_table(path, columns=["label"])["label"].to_numpy(), []
    for kind in kinds:
        chosen += np.flatnonzero(table == names.index(kind))[:most].tolist()
    images = pq.read_table(path, columns=["image"])["image"].take(chosen).to_pylist()
    return [open_image(image["bytes"]) for image in images], [names[table[row]] for row in chosen]


def of_nothing():
    """Noise, plain colours and lines of text."""
    rng = np.random.default_rng(0)
    for number in range(12):
        side = (7, 28, 112, 224)[number % 4]
        yield Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize((224, 224))
        yield Image.new("RGB", (224, 224), tuple(rng.integers(0, 256, 3).tolist()))
        page = Image.new("RGB", (224, 224), ("white", "black", "navy")[number % 3])
        for line in range(12):
            ImageDraw.Draw(page).text((6, 6 + 18 * line), " ".join(rng.choice(list("abcdefg"), 20)), fill="grey")
        yield page


@needs_data
def test_photographs_match_and_noise_or_text_images_are_refused():
    kinds = ["airplanes", "Motorbikes", "accordion", "garfield", "pagoda", "minaret", "dollar_bill", "trilobite"]
    weights = DATA / "weights" / "mobilenetv2_100.imagenet.safetensors"
    encoder = Encoder.create("mobilenetv2_100", weights=weights)
    images, labels = photographs("train", kinds, 16)
    vectors = encoder.embed_images(images)
    store, own = exact(vectors), np.arange(len(labels))
    section = calibrate(store, labels, Queries(vectors, labels, own))
    new, wanted = photographs("validation", kinds, 8)
    _, confident, found = answers(store, labels, section, encoder.embed_images(new))
    shown, right = confident[:, 0], found[:, 0] == wanted
    assert shown.mean() > 0.5
    assert within(right[shown].sum(), shown.sum())[1] >= PRECISION
    _, confident, _ = answers(store, labels, section, encoder.embed_images(list(of_nothing())))
    assert 1 - confident[:, 0].mean() >= 0.9


@pytest.mark.parametrize("name", ["BACKGROUND_Google", "background", "Other", "unknown", "misc"])
def test_catch_all_labels_such_as_background_are_never_a_match(name):
    """It counts as evidence against other hits, but its own hits are never confident and have no match probability."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 24))
    vectors = np.repeat(centres, 40, axis=0) + 0.15 * random.normal(size=(240, 24))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    labels = [name if row < 40 else f"kind {row // 40}" for row in range(240)]
    store = fit_index(vectors)
    section = calibrate(store, labels, Queries(vectors, labels, np.arange(240)))
    assert section.queries == 200
    confidence = Confidence(Calibration.of(section), store, column_of(labels))
    for row, expected in ((5, [False]), (100, [True])):
        rows, scores = store.search(vectors[row : row + 1], 2)
        chances, sure = confidence.of(vectors[row], rows[0, 1:], scores[0, 1:], row)
        assert sure == expected
        assert (chances[0] is None) == (row == 5)


@pytest.mark.parametrize(
    "name", ["mother", "Other Stories", "Nothing Phone (2)", "none of these", "backgrounds of red"]
)
def test_ordinary_labels_are_not_taken_for_catch_all_labels(name):
    assert (class_codes([name])[0] >= 0).all()


def test_near_duplicates_do_not_influence_calibration():
    """When every gallery image has a copy, new pictures without one still get confident matches."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(12, 32))

    def drawn(each):
        vectors = np.repeat(centres, each, axis=0) + 0.25 * random.normal(size=(12 * each, 32))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    plain, fresh = drawn(20), drawn(10)
    vectors = np.repeat(plain, 2, axis=0)
    labels = [f"kind {row // 40}" for row in range(480)]
    store = fit_index(vectors)
    queries = Queries(vectors, labels, np.arange(480))
    twins = calibrate(store, labels, queries, same=lambda row, others, _: others // 2 == row // 2)
    fooled = calibrate(store, labels, queries)
    assert fooled.floor > 0.999 > twins.floor
    confidence = Confidence(Calibration.of(twins), store, column_of(labels))
    sure = []
    for number, vector in enumerate(fresh):
        rows, scores = store.search(vector[None], 1)
        sure.append(confidence.of(vector, rows[0], scores[0])[1][0])
        assert not sure[-1] or labels[rows[0, 0]] == f"kind {number // 10}"
    assert np.mean(sure) > 0.7
