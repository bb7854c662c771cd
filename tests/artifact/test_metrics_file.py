"""metrics.json: every version of the file is read into one typed model; a damaged file gives a clear error."""

import doctest
import json
import math
import re
from collections import Counter

import pytest
from conftest import ROOT, reseal

from retrieval.artifact import metrics as module
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.artifact.metrics import METRICS_FORMAT, Metrics, key_of, name_of, new_metrics, parse_metrics
from retrieval.artifact.sections import FIGURE_NAMES
from retrieval.build.change import update_metrics
from retrieval.errors import IntegrityError
from retrieval.evaluation import markdown
from retrieval.evaluation.confidence import Calibration
from retrieval.evaluation.metrics import FIGURES
from retrieval.installed import VERSION
from retrieval.search import Searcher

STARTER = ROOT / "retrieval" / "starter" / LAYOUT.metrics
POINT = {"value": 0.5, "low": 0.25, "high": 0.75}
SEEN = {
    "figures": dict.fromkeys(FIGURES, POINT),
    "queries": 20,
    "images": 40,
    "classes": 5,
    "left_out": 0,
    "curve": {"k": [1, 2], "hit": [0.5, 0.75], "recall": [0.25, 0.5]},
}
OLD = {
    "leave_one_out": {**dict.fromkeys(FIGURES, 0.5), "queries": 60, "images": 61, "labels": 5},
    "training": {
        "recipe": "drawn",
        "settings": {"epochs": 2.0, "hold_out_classes": 0.2, "unfreeze": [1.0], "weights": None},
        "data": {
            "source": "me/drawings",
            "about": {"name": "me/drawings", "license": "cc-by-4.0"},
            "split sizes": {"train": 30, "test": 20},
            "classes": 5,
            "held out": ["cup"],
            "left out": ["2 images without a label"],
            "skipped": [{"image": "train/3", "reason": "it is no picture"}],
        },
        "seed": 7,
        "seconds": 90,
        "steps": 12,
        "best": {"step": 8, "metric": "validation mAP", "value": 0.75},
        "finished": {"hit@1": 0.5, "P@5": 0.25, "mAP": 0.125},
        "versions": {"python": "3.11.7", "faiss-cpu": "1.15.1", "pytorch-metric-learning": "2.9.0"},
        "threads": 2,
        "history": [{"step": 4, "loss": 0.5, "grad_norm": math.nan}, {"step": 8, "validation mAP": 0.75}],
    },
    "audit": {
        "queries": 1,
        "audited": 20,
        "across classes": 0,
        "listed": [{"held_out": "a", "label": "cup", "other": "b", "other_label": "cup", "similarity": 0.97}],
    },
    "evaluation": {
        "split": "test",
        "gallery": "40 images of train",
        "seen": SEEN,
        "unseen": {**SEEN, "from": "another-run"},
        "seen_without_near_duplicates": None,
        "unseen_without_near_duplicates": None,
        "classes": [
            {
                "label": "cup",
                "images": 6,
                "queries": 4,
                "hit@1": 0.5,
                "P@5": 0.25,
                "mAP": 0.125,
                "confusions": [["vase", 2], [None, 1]],
            },
            {"label": "P@5", "images": 1, "queries": 0, "hit@1": None, "P@5": None, "mAP": None, "confusions": []},
        ],
        "classifier_accuracy": POINT,
    },
    "index": {"recall@10": 1.0, "exact_ms": 1.0, "approximate_ms": 0.5, "queries": 20, "factory": "Flat"},
    "calibration": {
        "weights": [1.0, 2.0, 3.0],
        "bias": -4.0,
        "strengths": [-1.0, 0.0, 2.0],
        "chances": [0.1, 0.5, 0.9],
        "threshold": 1.0,
        "floor": 0.6,
        "queries": 60,
        "held_out": False,
        "wanted": {"precision": 0.95, "refused": 0.9},
        "checked": {
            "queries": 60,
            "expected_calibration_error": 0.04,
            "reliability": {"chance": [0.1], "share": [0.2], "pairs": [600]},
            "precision": POINT,
            "shown": 0.5,
            "refused": 0.95,
        },
    },
}  # as version 0.4.0 wrote it
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def keys_in(data):
    """Every key, at any depth."""
    if isinstance(data, dict):
        yield from data
        for value in data.values():
            yield from keys_in(value)
    elif isinstance(data, list):
        for value in data:
            yield from keys_in(value)


@pytest.fixture
def old():
    """The metrics that a training run of version 0.4.0 wrote."""
    return parse_metrics(json.dumps(OLD))


# Old files


def test_older_file_is_converted_to_the_current_fields(old):
    assert (old.version, old.lookalike) == (METRICS_FORMAT, None)
    assert old.leave_one_out.by_name() == dict.fromkeys(FIGURES, 0.5)
    assert (old.leave_one_out.queries, old.leave_one_out.images, old.leave_one_out.labels) == (60, 61, 5)
    training = old.training
    assert training.data.split_sizes == {"train": 30, "test": 20}
    assert (training.data.held_out, training.data.left_out) == (["cup"], ["2 images without a label"])
    assert training.best.metric == "validation_map"
    assert training.finished == {"hit_at_1": 0.5, "p_at_5": 0.25, "map": 0.125}
    assert training.versions == {"python": "3.11.7", "faiss_cpu": "1.15.1", "pytorch_metric_learning": "2.9.0"}
    assert training.history == [{"step": 4, "loss": 0.5, "grad_norm": None}, {"step": 8, "validation_map": 0.75}]
    assert training.settings == OLD["training"]["settings"]
    assert training.data.about == OLD["training"]["data"]["about"]
    assert old.audit.across_classes == 0
    assert (old.index.recall_at_10, old.index.factory) == (1.0, "Flat")
    evaluation = old.evaluation
    assert list(evaluation.parts()) == ["seen", "unseen"]
    assert (evaluation.seen.from_run, evaluation.unseen.from_run) == (None, "another-run")
    for part in evaluation.parts().values():
        assert {name: point.model_dump() for name, point in part.figures.by_name().items()} == SEEN["figures"]
        assert part.curve.model_dump() == SEEN["curve"]
    cup, last = evaluation.classes
    assert (cup.hit_at_1, cup.p_at_5, cup.map) == (0.5, 0.25, 0.125)
    assert [(each.label, each.count) for each in cup.confusions] == [("vase", 2), (None, 1)]
    assert (last.label, last.map, last.confusions) == ("P@5", None, []), "a label is no key, and stays as it is"
    assert old.calibration.model_dump() == OLD["calibration"]
    assert old.is_trained


def test_converting_an_older_file_loses_no_value(old):
    """Every number and string is still there; only NaN has become null."""

    def leaves(data):
        if not isinstance(data, dict | list):
            return [] if data is None or data != data else [data]
        values = data.values() if isinstance(data, dict) else data
        return [leaf for value in values for leaf in leaves(value)]

    kept = leaves(old.model_dump())
    kept.remove(METRICS_FORMAT)
    kept[kept.index("validation_map")] = "validation mAP"
    assert Counter(kept) == Counter(leaves(OLD))


def test_starter_written_by_0_4_0_is_read():
    held, metrics = json.loads(STARTER.read_text()), read_metrics(STARTER.parent)
    counts = {name: held["leave_one_out"][name] for name in ("queries", "images", "labels")}
    assert {**metrics.leave_one_out.by_name(), **counts} == held["leave_one_out"]
    assert metrics.calibration.model_dump() == held["calibration"]
    confidence = Searcher.open(STARTER.parent).confidence
    assert confidence._calibration == Calibration.of(metrics.calibration)


def test_file_of_0_1_0_without_hit_at_10_is_read():
    figures = {name: 0.5 for name in FIGURES if name != "hit@10"}
    old = parse_metrics(json.dumps({"leave_one_out": {**figures, "queries": 4, "images": 4, "labels": 2}}))
    assert old.leave_one_out.by_name() == figures
    assert old.leave_one_out.hit_at_10 is None


def test_updating_an_older_artifact_writes_the_current_format(copied_run):
    before = read_metrics(copied_run)
    (copied_run / LAYOUT.metrics).write_text(json.dumps(OLD))
    reseal(copied_run)
    update_metrics(copied_run, {"index": before.index})
    held = json.loads((copied_run / LAYOUT.metrics).read_text())
    assert (held["version"], held["lookalike"]) == (METRICS_FORMAT, VERSION)
    assert held["training"]["data"]["split_sizes"] == {"train": 30, "test": 20}
    assert load_artifact(copied_run)


# Files of this version


def test_metrics_survive_a_json_round_trip(trained, old):
    for metrics in (read_metrics(trained), old, Metrics()):
        again = parse_metrics(metrics.to_json())
        assert again == metrics
        assert again.to_json() == metrics.to_json()


def test_file_states_its_format_and_the_version_that_wrote_it(artifact):
    held = json.loads((artifact / LAYOUT.metrics).read_text())
    assert (held["version"], held["lookalike"]) == (METRICS_FORMAT, VERSION)
    assert (held["training"], held["evaluation"]) == (None, None)


def test_every_key_is_snake_case(trained, old):
    schema = Metrics.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    keys = [key for model in models for key in model["properties"]]
    assert len(keys) > 80
    keys += [*keys_in(read_metrics(trained).model_dump()), *keys_in(old.model_dump())]
    assert [key for key in keys if not SNAKE_CASE.fullmatch(key)] == []


def test_every_figure_name_maps_to_a_key_and_back():
    assert list(FIGURE_NAMES.values()) == list(FIGURES)
    for name in (*FIGURES, *(f"validation {name}" for name in FIGURES), "loss", "triplet"):
        assert SNAKE_CASE.fullmatch(key_of(name))
        assert name_of(key_of(name)) == name


def test_docstring_examples_pass():
    for each in (module, markdown):
        result = doctest.testmod(each)
        assert (result.failed, result.attempted) == (0, 2)


# Newer files


def test_fields_of_a_newer_version_are_kept(copied_run):
    held = json.loads((copied_run / LAYOUT.metrics).read_text())
    held = {**held, "lookalike": "9.0.0", "speed": {"images_per_second": 100}}
    held["training"]["device"] = "a GPU"
    (copied_run / LAYOUT.metrics).write_text(json.dumps(held))
    reseal(copied_run)
    update_metrics(copied_run, {"audit": None})
    again = json.loads((copied_run / LAYOUT.metrics).read_text())
    assert again == {**held, "lookalike": VERSION, "audit": None}


@pytest.mark.parametrize("version", [METRICS_FORMAT + 1, 1, 0, "2", None, [2]])
def test_unknown_format_is_refused(version):
    with pytest.raises(IntegrityError, match=r"metrics\.json has format .* reads format 2 and older: upgrade"):
        parse_metrics(json.dumps({"version": version}))


# Damaged files


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"steps": "many"}}, "training.steps must be a valid integer, found 'many'"),
        ({"training": {"steps": True}}, "training.steps must be a valid integer, found True"),
        ({"training": 7}, "training must be an object, found 7"),
        ({"training": {"data": {"split sizes": [1]}}}, "training.data.split_sizes must be a valid dictionary"),
        ({"training": {"history": [{"loss": "low"}]}}, "training.history.0.loss must be a valid"),
        ({"leave_one_out": {"queries": 4}}, "metrics.json has no leave_one_out.hit_at_1"),
        ({"evaluation": {"split": "test"}}, "metrics.json has no evaluation.gallery"),
        (
            {"evaluation": {**OLD["evaluation"], "seen": None}},
            "evaluation.seen must be an object, found",
        ),
        ({"evaluation": {**OLD["evaluation"], "classes": [{"confusions": 5}]}}, "no evaluation.classes.0.label"),
        ({"index": {**OLD["index"], "recall@10": "all"}}, "index.recall_at_10 must be a valid number, found 'all'"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_damaged_file_is_refused_with_a_clear_error(change, said):
    with pytest.raises(IntegrityError) as raised:
        parse_metrics(json.dumps({**OLD, **change}))
    assert said in str(raised.value)
    assert "build it again" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [1.0, 2.0]},
        {"weights": [1.0, 2.0, math.nan]},
        {"weights": [[1.0, 2.0, 3.0]]},
        {"weights": "abc"},
        {"bias": math.inf},
        {"bias": None},
        {"bias": 10**400},
        {"strengths": [-1.0, 0.0]},
        {"strengths": [0.0, -1.0, 2.0]},
        {"strengths": [], "chances": []},
        {"strengths": 1.0},
        {"strengths": [[-1.0, 0.0, 2.0]]},
        {"chances": [0.1, 0.5, 1.2]},
        {"chances": [-0.1, 0.5, 0.9]},
        {"chances": [0.5, 0.1, 0.9]},
        {"chances": [0.1, math.nan, 0.9]},
        {"threshold": "high"},
        {"floor": None},
        {"wanted": {"precision": "high"}},
    ],
    ids=str,
)
def test_damaged_calibration_is_refused_with_a_clear_error(change):
    calibration = OLD["calibration"]
    less = {name: value for name, value in calibration.items() if name not in change}
    for section in ({**calibration, **change}, less, [], 5):
        with pytest.raises(IntegrityError, match=r"metrics\.json.* calibration.*build it again\.$") as raised:
            parse_metrics(json.dumps({"calibration": section}))
        assert "\n" not in str(raised.value)


def test_artifact_with_damaged_metrics_is_refused(copied_run):
    (copied_run / LAYOUT.metrics).write_text(json.dumps({"version": 2, "calibration": {"weights": "abc"}}))
    reseal(copied_run)
    for read in (read_metrics, Searcher.open):
        with pytest.raises(IntegrityError, match=r"metrics\.json.* calibration"):
            read(copied_run)


def test_metrics_cannot_be_changed_in_place(old):
    with pytest.raises(ValueError, match="frozen"):
        old.training.steps = 3
    with pytest.raises(ValueError, match="no_sections"):
        new_metrics({"training": "no_sections"})
