"""Retrieval metrics, checked against loops that follow the definitions literally, and against scikit-learn."""

import doctest
import math
import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from retrieval.errors import QueryError
from retrieval.evaluation import metrics
from retrieval.evaluation.metrics import (
    LADDER,
    average_precision,
    bootstrap_interval,
    hit_at_k,
    leave_one_out,
    map_at_r,
    precision_at_k,
    query_figures,
    r_precision,
)
from retrieval.stores import recall
from retrieval.stores.recall import recall_at_k

SEEDS = range(12)


# The reference: plain Python over one ranked list of booleans.


def slow_precision(ranked, k):
    return sum(ranked[:k]) / k


def slow_average_precision(ranked):
    precisions = [slow_precision(ranked, i + 1) for i, relevant in enumerate(ranked) if relevant]
    return sum(precisions) / len(precisions) if precisions else 0.0


def slow_map_at_r(ranked):
    total = sum(ranked)
    return sum(slow_precision(ranked, i + 1) for i in range(total) if ranked[i]) / total if total else 0.0


SLOW = {
    "hit@1": lambda ranked: float(any(ranked[:1])),
    "hit@5": lambda ranked: float(any(ranked[:5])),
    "hit@10": lambda ranked: float(any(ranked[:10])),
    "P@1": lambda ranked: slow_precision(ranked, 1),
    "P@5": lambda ranked: slow_precision(ranked, 5),
    "P@10": lambda ranked: slow_precision(ranked, 10),
    "mAP": slow_average_precision,
    "MAP@R": slow_map_at_r,
    "R-precision": lambda ranked: slow_precision(ranked, sum(ranked)) if any(ranked) else 0.0,
}


def order(query, gallery, leave_out=-1):
    """The rows of a gallery, best first; rows with equal scores keep their order."""
    scores = {row: float(query @ vector) for row, vector in enumerate(gallery) if row != leave_out}
    return sorted(scores, key=lambda row: -scores[row])


def ranking(vectors, labels, query):
    """Whether each other image is relevant to the query, best hit first."""
    return [labels[row] == labels[query] for row in order(vectors[query], vectors, query)]


def slow_leave_one_out(vectors, labels):
    queries = [q for q, label in enumerate(labels) if label is not None and labels.count(label) > 1]
    ranked = [ranking(vectors, labels, query) for query in queries]
    return {name: math.fsum(map(figure, ranked)) / len(ranked) for name, figure in SLOW.items()}


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def case(seed, ties=False, dim=None):
    """Vectors and labels; some labels are None, some occur only once."""
    rng, pick = np.random.default_rng(seed), random.Random(seed)
    rows, dim = pick.randint(2, 90), dim or pick.choice([2, 3, 16])
    # With ties: unit axes, so that every dot product is exactly 0, 1 or -1 in any order of summation.
    axes = np.concatenate([np.eye(dim), -np.eye(dim)])
    vectors = axes[rng.integers(2 * dim, size=rows)] if ties else rng.standard_normal((rows, dim))
    names = [None, "", "cup", "Cup", "cup ", "größe", *(f"class {i}" for i in range(pick.randint(0, 6)))]
    labels = [*pick.choices(names, k=rows - 2), "pair", "pair"]
    pick.shuffle(labels)
    if rows > 4:
        labels[labels.index(next(label for label in labels if label != "pair"))] = "alone"
    return unit(vectors), labels


def relevance(seed):
    rng = np.random.default_rng(seed)
    return rng.random((rng.integers(1, 20), rng.integers(1, 40))) < rng.random()


@pytest.mark.parametrize("seed", SEEDS)
def test_ranking_metrics_match_plain_loops(seed):
    relevant = relevance(seed)
    rows = relevant.tolist()
    for k in (1, 2, 5, 10, 100):
        np.testing.assert_allclose(hit_at_k(relevant, k), [float(any(row[:k])) for row in rows])
        np.testing.assert_allclose(precision_at_k(relevant, k), [slow_precision(row, k) for row in rows])
    np.testing.assert_allclose(average_precision(relevant), [slow_average_precision(row) for row in rows])
    np.testing.assert_allclose(map_at_r(relevant), [slow_map_at_r(row) for row in rows])
    np.testing.assert_allclose(r_precision(relevant), [SLOW["R-precision"](row) for row in rows])


@pytest.mark.parametrize(
    "figure",
    [average_precision, map_at_r, r_precision, lambda ranked: hit_at_k(ranked, 3)],
    ids=["average precision", "MAP@R", "R-precision", "hit@3"],
)
def test_perfect_ranking_scores_one_and_no_relevant_hit_zero(figure):
    first, last, none = [1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1], [0] * 7
    assert figure(np.array([first, last, none], bool)).tolist()[::2] == [1, 0]


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    relevant = rng.random((8, 50)) < 0.3
    relevant[:, 7] = True  # scikit-learn needs at least one
    falling = np.arange(50, 0, -1.0)
    expected = [average_precision_score(row, falling) for row in relevant]
    np.testing.assert_allclose(average_precision(relevant), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_average_precision_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((70, 16)))
    labels = [f"{label}" for label in [0, 0, 1, 1, 2, 2, 3, 3, *rng.integers(4, size=62)]]
    expected = []
    for query in range(70):
        others = np.delete(np.arange(70), query)
        relevant = [labels[other] == labels[query] for other in others]
        expected.append(average_precision_score(relevant, vectors[others] @ vectors[query]))
    assert leave_one_out(vectors, labels)["mAP"] == pytest.approx(np.mean(expected), abs=1e-9)


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
@pytest.mark.parametrize("seed", SEEDS)
def test_leave_one_out_matches_plain_loops(seed, ties):
    vectors, labels = case(seed, ties)
    found = leave_one_out(vectors, labels)
    expected = slow_leave_one_out(vectors, labels)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["queries"] == sum(label is not None and labels.count(label) > 1 for label in labels)
    assert found["images"] == len(labels)
    assert found["labels"] == len({label for label in labels if label is not None and labels.count(label) > 1})


def test_images_without_a_label_are_neither_queries_nor_relevant():
    vectors = unit(np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [0, 1]]))
    found = leave_one_out(vectors, ["", None, None, None, ""])
    # The only other image labelled "" is the farthest of four.
    assert (found["queries"], found["labels"]) == (2, 1)
    assert found["mAP"] == pytest.approx(1 / 4)
    assert found["hit@1"] == found["MAP@R"] == 0
    assert found["hit@5"] == 1


def test_only_image_of_a_class_is_no_query_but_ranks_as_a_wrong_hit():
    vectors = unit(np.array([[1, 0], [1, 0.1], [1, 0.2]]))
    found = leave_one_out(vectors, ["cup", "alone", "cup"])
    assert (found["queries"], found["images"], found["labels"]) == (2, 3, 1)
    assert found["hit@1"] == 0
    assert found["mAP"] == 0.5


def test_perfectly_separated_classes_score_one():
    vectors = np.repeat(np.eye(4, dtype=np.float32), 12, axis=0)
    found = leave_one_out(vectors, [f"class {row // 12}" for row in range(48)])
    assert all(found[name] == 1 for name in SLOW)


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_leave_one_out_does_not_depend_on_the_chunk_size(monkeypatch, chunk):
    vectors, labels = unit(np.random.default_rng(0).standard_normal((300, 8))), [f"{i % 7}" for i in range(300)]
    before = leave_one_out(vectors, labels)
    monkeypatch.setattr(metrics, "_CHUNK", chunk)
    assert leave_one_out(vectors, labels) == pytest.approx(before, abs=1e-12)


def test_memory_use_stays_bounded_for_many_images(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_QUERIES", 64)
    vectors, labels = unit(np.random.default_rng(0).standard_normal((100_000, 4))), [f"{i % 9}" for i in range(100_000)]
    tracemalloc.start()
    try:
        leave_one_out(vectors, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * 2**20, "64 rankings of 100,000 at once would take 180 MB"


def test_queries_over_the_limit_are_sampled_by_seed(monkeypatch):
    vectors, labels = unit(np.random.default_rng(0).standard_normal((400, 8))), [f"{i % 3}" for i in range(400)]
    whole = leave_one_out(vectors, labels)
    monkeypatch.setattr(metrics, "MAX_QUERIES", 400)
    assert leave_one_out(vectors, labels) == whole
    monkeypatch.setattr(metrics, "MAX_QUERIES", 100)
    sample = leave_one_out(vectors, labels)
    assert (sample["queries"], sample["images"], sample["labels"]) == (100, 400, 3)
    assert leave_one_out(vectors, labels, seed=0) == sample
    assert leave_one_out(vectors, labels, seed=1)["mAP"] != sample["mAP"]
    assert sample["mAP"] == pytest.approx(whole["mAP"], abs=0.05)


def test_labels_without_a_sampled_query_are_not_counted(monkeypatch):
    vectors = unit(np.random.default_rng(0).standard_normal((40, 8)))
    monkeypatch.setattr(metrics, "MAX_QUERIES", 3)
    assert leave_one_out(vectors, [f"pair {row // 2}" for row in range(40)])["labels"] <= 3


def test_sampled_metric_equals_that_of_the_sampled_query(monkeypatch):
    vectors, labels = case(3)
    monkeypatch.setattr(metrics, "MAX_QUERIES", 1)
    one_each = {leave_one_out(vectors, labels, seed=seed)["mAP"] for seed in range(30)}
    queries = [q for q, label in enumerate(labels) if label is not None and labels.count(label) > 1]
    each = [slow_average_precision(ranking(vectors, labels, query)) for query in queries]
    assert len(one_each) > 1
    assert all(min(abs(value - own) for own in each) < 1e-9 for value in one_each)


@pytest.mark.parametrize("labels", [[], [None] * 5, ["a", "b", "c"], ["a", None, None, None]])
def test_no_two_images_with_the_same_label_is_an_error(labels):
    with pytest.raises(QueryError, match="no two images have the same label"):
        leave_one_out(np.zeros((len(labels), 4), np.float32), labels)


# Queries against a separate gallery


def gallery_case(seed, ties=False):
    """Queries and a gallery; on both sides some labels are None or do not occur on the other side."""
    dim = 2 + seed % 6
    return *case(seed + 1000, ties, dim), *case(seed, ties, dim)


def check_against_loops(found, queries, query_labels, gallery, gallery_labels, exclude):
    ladder = [k for k in LADDER if k <= len(gallery)]
    assert found.ladder == ladder
    expected = {}
    for row, (query, label) in enumerate(zip(queries, query_labels, strict=True)):
        rows = order(query, gallery, exclude[row])
        relevant = [label is not None and gallery_labels[other] == label for other in rows]
        if any(relevant):
            expected[row] = relevant, gallery_labels[rows[0]]
    assert found.rows.tolist() == list(expected)
    assert found.top == [top for _, top in expected.values()]
    for name, figure in SLOW.items():
        np.testing.assert_allclose(found.values[name], [figure(ranked) for ranked, _ in expected.values()], atol=1e-12)
    for column, k in enumerate(ladder):
        hit = [any(ranked[:k]) for ranked, _ in expected.values()]
        recall = [sum(ranked[:k]) / sum(ranked) for ranked, _ in expected.values()]
        np.testing.assert_allclose(found.hit[:, column], hit, atol=1e-12)
        np.testing.assert_allclose(found.recall[:, column], recall, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
@pytest.mark.parametrize("seed", SEEDS)
def test_query_metrics_match_plain_loops(seed, ties):
    given = gallery_case(seed, ties)
    nobody = np.full(len(given[0]), -1)
    check_against_loops(query_figures(*given), *given, nobody)
    # For some queries one gallery image is excluded, for others none is (-1).
    exclude = np.random.default_rng(seed).integers(-1, len(given[2]), len(given[0]))
    check_against_loops(query_figures(*given, exclude=exclude), *given, exclude)


@pytest.mark.parametrize("seed", SEEDS)
def test_leave_one_out_equals_querying_each_image_against_the_rest(seed):
    vectors, labels = case(seed)
    everyone = np.arange(len(vectors))
    found = query_figures(vectors, labels, vectors, labels, exclude=everyone)
    check_against_loops(found, vectors, labels, vectors, labels, everyone)
    expected = leave_one_out(vectors, labels)
    assert found.means() == pytest.approx({name: expected[name] for name in SLOW}, abs=1e-12)
    assert len(found.rows) == expected["queries"]


def test_queries_without_a_relevant_gallery_image_are_left_out():
    queries = unit(np.array([[1, 0], [0, 1], [1, 1], [1, 2]]))
    gallery = unit(np.array([[1, 0.1], [0, 1]]))
    found = query_figures(queries, ["cup", "plate", None, "fork"], gallery, ["cup", "fork"])
    assert found.rows.tolist() == [0, 3]
    assert found.top == ["cup", "fork"]
    assert found.means()["mAP"] == 1
    alone = np.array([0, -1, -1, -1])  # the only cup is excluded, so the first query has no relevant image
    assert query_figures(queries, ["cup", "plate", None, "fork"], gallery, ["cup", "fork"], exclude=alone).rows == [3]


def test_an_image_without_a_label_can_be_the_best_hit():
    found = query_figures(unit(np.array([[1, 0]])), ["cup"], unit(np.array([[1, 0], [1, 1]])), [None, "cup"])
    assert found.top == [None]
    assert found.hit.tolist() == [[0, 1]]


@pytest.mark.parametrize("gallery_labels", [[None] * 5, ["plate"] * 5, []])
def test_no_query_with_a_relevant_gallery_image_is_an_error(gallery_labels):
    gallery = np.zeros((len(gallery_labels), 4), np.float32)
    with pytest.raises(QueryError, match="no image in the gallery has the label of a query"):
        query_figures(np.zeros((2, 4), np.float32), ["cup", None], gallery, gallery_labels)


def test_label_and_image_counts_must_match():
    three, two = np.zeros((3, 4), np.float32), ["cup", "cup"]
    with pytest.raises(QueryError, match="2 labels for 3 gallery images, and 3 labels for 3 queries"):
        query_figures(three, [*two, "cup"], three, two)
    with pytest.raises(QueryError, match="3 labels for 3 gallery images, and 2 labels for 3 queries"):
        query_figures(three, two, three, [*two, "cup"])


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_query_metrics_do_not_depend_on_the_chunk_size(monkeypatch, chunk):
    rng = np.random.default_rng(0)
    queries, gallery = unit(rng.standard_normal((40, 8))), unit(rng.standard_normal((300, 8)))
    labels = [f"{i % 7}" for i in range(300)]
    before = query_figures(queries, labels[:40], gallery, labels)
    monkeypatch.setattr(metrics, "_CHUNK", chunk)
    after = query_figures(queries, labels[:40], gallery, labels)
    assert after.top == before.top
    np.testing.assert_allclose(after.recall, before.recall, atol=1e-12)
    for name in SLOW:
        np.testing.assert_allclose(after.values[name], before.values[name], atol=1e-12)


# Intervals


def plain_bootstrap(values, resamples, confidence):
    rng = np.random.default_rng(12345)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    return np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("kind", ["shares", "yes or no"])
def test_interval_matches_a_plain_bootstrap(kind, confidence):
    rng = np.random.default_rng(1)
    values = rng.random(150) if kind == "shares" else (rng.random(150) < 0.9).astype(float)
    low, high = bootstrap_interval(values, resamples=20_000, confidence=confidence)
    expected = plain_bootstrap(values, 20_000, confidence)
    assert (low, high) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]) + 1 / 150)
    assert low < values.mean() < high


def test_interval_covers_the_true_value_at_its_confidence_level():
    rng = np.random.default_rng(0)
    samples = rng.random((200, 80)) < 0.8
    covered = [low <= 0.8 <= high for low, high in map(bootstrap_interval, samples.astype(float))]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_interval_is_deterministic_and_has_no_width_for_equal_values():
    values = np.random.default_rng(0).random(60)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    assert bootstrap_interval(np.ones(40)) == (1, 1)
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25)
    with pytest.raises(QueryError, match="there are none"):
        bootstrap_interval(np.array([]))


def test_importing_metrics_does_not_load_scipy():
    code = "import sys, retrieval.evaluation.metrics; print('scipy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_recall_at_k_counts_only_neighbours_that_exist():
    assert recall_at_k(np.array([[3, 2, 1]]), np.array([[1, 2, 3]])) == 1
    assert recall_at_k(np.array([[1, 2, 9], [7, 8, 9]]), np.array([[1, 2, 3], [1, 2, 3]])) == pytest.approx(2 / 6)
    assert recall_at_k(np.array([[4, -1, -1]]), np.array([[4, -1, -1]])) == 1, "there was only one to find"
    assert recall_at_k(np.array([[-1, -1, -1]]), np.array([[4, 5, -1]])) == 0
    assert recall_at_k(np.array([[-1]]), np.array([[-1]])) == 1


def test_docstring_examples_are_correct():
    for module, examples in ((metrics, 5), (recall, 1)):
        result = doctest.testmod(module)
        assert result.failed == 0
        assert result.attempted >= examples
