"""The evaluation of a run, each part checked against metrics computed one query at a time."""

import json
import math
from collections import Counter

import numpy as np
import pytest

from retrieval.artifact.sections import ClassFigures
from retrieval.errors import QueryError
from retrieval.evaluation.metrics import FIGURES, bootstrap_interval, query_figures
from retrieval.stores.choose import fit_index
from training.results.evaluate import evaluate, evaluate_index

UNSEEN = ("d", "e")


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cloud(seed, count, classes="abcde", spread=1.5):
    """Vectors around a centre for each class, and their labels."""
    centres = np.random.default_rng(0).standard_normal((len(classes), 8))
    rng = np.random.default_rng(seed)
    of = rng.integers(len(classes), size=count)
    return unit(centres[of] + spread * rng.standard_normal((count, 8))), [classes[number] for number in of]


@pytest.fixture(scope="module")
def run():
    """Queries, labels, gallery, labels, which queries have a near-duplicate, and which were classified correctly."""
    rng = np.random.default_rng(5)
    return *cloud(1, 120), *cloud(2, 300), rng.random(120) < 0.2, rng.random(120) < 0.9


def evaluated(run, **options):
    queries, query_labels, gallery, gallery_labels, _, _ = run
    counts = {"a": 40, "b": 30, "c": 20, "never asked": 10}
    wanted = {"train_counts": counts, "split": "test", "gallery_name": "train+validation", **options}
    return evaluate(queries, query_labels, gallery, gallery_labels, **wanted)


def check_part(part, run, chosen):
    queries, query_labels, gallery, gallery_labels, _, _ = run
    found = query_figures(queries[chosen], [query_labels[row] for row in chosen], gallery, gallery_labels)
    figures = part.figures.by_name()
    assert list(figures) == list(FIGURES)
    for name, figure in figures.items():
        expected = found.values[name].mean(), *bootstrap_interval(found.values[name])
        assert (figure.value, figure.low, figure.high) == pytest.approx(expected)
    assert (part.queries, part.images, part.left_out) == (len(chosen), 300, 0)
    assert part.classes == len({query_labels[row] for row in chosen})
    assert part.curve.k == [1, 2, 5, 10, 20, 50, 100, 200]
    np.testing.assert_allclose(part.curve.hit, found.hit.mean(axis=0))
    np.testing.assert_allclose(part.curve.recall, found.recall.mean(axis=0))


def test_seen_and_unseen_queries_search_the_whole_gallery(run):
    labels, near = run[1], run[4]
    section = evaluated(run, unseen=UNSEEN, near_duplicate=near)
    assert (section.split, section.gallery) == ("test", "train+validation")
    parts = {
        "seen": [row for row in range(120) if labels[row] not in UNSEEN],
        "unseen": [row for row in range(120) if labels[row] in UNSEEN],
    }
    for name, rows in parts.items():
        check_part(getattr(section, name), run, rows)
        check_part(getattr(section, f"{name}_without_near_duplicates"), run, [row for row in rows if not near[row]])
    json.dumps(section.model_dump(), allow_nan=False)


def test_missing_parts_of_an_evaluation_are_null(run):
    section = evaluated(run)
    check_part(section.seen, run, list(range(120)))
    names = ["unseen", "seen_without_near_duplicates", "unseen_without_near_duplicates", "classifier_accuracy"]
    assert [getattr(section, name) for name in names] == [None] * 4
    near = np.array([label in UNSEEN for label in run[1]])
    assert evaluated(run, unseen=UNSEEN, near_duplicate=near).unseen_without_near_duplicates is None


def test_classifier_accuracy_covers_only_seen_classes(run):
    correct = run[5]
    of_seen = [right for right, label in zip(correct, run[1], strict=True) if label not in UNSEEN]
    accuracy = evaluated(run, unseen=UNSEEN, correct=correct).classifier_accuracy
    assert accuracy.value == pytest.approx(sum(of_seen) / len(of_seen))
    assert 0 < accuracy.low < accuracy.value < accuracy.high <= 1


def test_metrics_of_each_class_match_plain_loops(run):
    queries, query_labels, gallery, gallery_labels, _, _ = run
    rows = evaluated(run, unseen=UNSEEN).classes
    assert sorted(row.label for row in rows) == ["a", "b", "c", "d", "e", "never asked"]
    assert [row.map for row in rows[:-1]] == sorted(row.map for row in rows[:-1])
    assert rows[-1] == ClassFigures(label="never asked", images=10, queries=0)
    found = query_figures(queries, query_labels, gallery, gallery_labels)
    nearest = [gallery_labels[row] for row in (queries @ gallery.T).argmax(axis=1)]
    for row in rows[:-1]:
        label = row.label
        mine = [number for number, other in enumerate(query_labels) if other == label]
        assert row.queries == len(mine)
        assert row.images == {"a": 40, "b": 30, "c": 20}.get(label, 0)
        for name, value in (("hit@1", row.hit_at_1), ("P@5", row.p_at_5), ("mAP", row.map)):
            assert value == pytest.approx(math.fsum(found.values[name][mine]) / len(mine))
        wrong = Counter(nearest[number] for number in mine if nearest[number] != label)
        assert len(row.confusions) == min(3, len(wrong))
        assert [each.count for each in row.confusions] == sorted(wrong.values(), reverse=True)[:3]
        assert all(wrong[each.label] == each.count for each in row.confusions)
    assert any(row.confusions for row in rows)


def test_queries_without_a_relevant_gallery_image_are_counted(run):
    queries, query_labels, gallery, _, _, _ = run
    of_three = [label if label in "abc" else None for label in run[3]]
    arguments = {"train_counts": {}, "split": "test", "gallery_name": "train"}
    section = evaluate(queries, query_labels, gallery, of_three, unseen=["d"], **arguments)
    assert section.unseen is None
    assert section.seen.left_out == query_labels.count("e")
    assert section.seen.queries == sum(label in "abc" for label in query_labels)
    assert [None] in [[each.label for each in row.confusions][:1] for row in section.classes]
    with pytest.raises(QueryError, match="no query belongs to a seen class"):
        evaluate(queries, query_labels, gallery, of_three, unseen="abcde", **arguments)
    with pytest.raises(QueryError, match="nothing to evaluate"):
        evaluate(queries, query_labels, gallery, [None] * 300, **arguments)


@pytest.mark.parametrize("factory", ["Flat", "IVF16,SQ8"])
def test_index_recall_is_measured_against_exact_search(factory):
    vectors, _ = cloud(3, 2000, spread=3)
    queries, _ = cloud(4, 1200, spread=3)
    store = fit_index(vectors, factory)
    none = np.full(1200, -1)
    section = evaluate_index(store, vectors, queries, none)
    assert (section.factory, section.queries) == (factory, 1000)
    assert section.exact_ms > 0 < section.approximate_ms
    section = evaluate_index(store, vectors, queries[:50], none[:50])
    found = store.search(queries[:50], 10)[0]
    truth = np.argsort(-(queries[:50] @ vectors.T), axis=1)[:, :10]
    shared = [len(set(one) & set(other)) / 10 for one, other in zip(found.tolist(), truth.tolist(), strict=True)]
    assert section.recall_at_10 == pytest.approx(np.mean(shared), abs=0.003)  # scores may differ in the last digit
    assert section.queries == 50


def test_index_recall_ignores_an_image_finding_itself():
    vectors, _ = cloud(3, 2000, spread=3)
    store, own = fit_index(vectors, "IVF64,Flat"), np.arange(0, 2000, 40)
    store.settings.search["nprobe"] = 1
    found, truth = store.search(vectors[own], 11)[0], np.argsort(-(vectors[own] @ vectors.T), axis=1)
    others = [[row for row in line if row not in (-1, own[number])][:10] for number, line in enumerate(found)]
    exact = [[row for row in line if row != own[number]][:10] for number, line in enumerate(truth)]
    shared = [len(set(one) & set(other)) / 10 for one, other in zip(others, exact, strict=True)]
    assert 0 < np.mean(shared) < 0.95
    assert evaluate_index(store, vectors, vectors[own], own).recall_at_10 == pytest.approx(np.mean(shared), abs=0.003)


def test_index_with_fewer_than_ten_rows_has_full_recall():
    vectors, _ = cloud(3, 4)
    assert evaluate_index(fit_index(vectors), vectors, cloud(4, 6)[0], np.full(6, -1)).recall_at_10 == 1
