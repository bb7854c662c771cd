"""Comparing runs: one table and one plot from real artifacts, and unseen-class metrics added to cards."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from conftest import reseal, run_sections
from PIL import Image
from runs import build_run

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.artifact.metrics import key_of
from retrieval.errors import ArtifactError, IntegrityError
from retrieval.sources.open import open_source
from training.results.compare import compare, update_cards
from training.starter.catalogue import ARTICLES

COLUMNS = ["hit@1", "P@5", "mAP", "MAP@R", "R-precision"]


@pytest.fixture(scope="module")
def held_out(pictures, encoder, tmp_path_factory):
    """The same run with two classes held out."""
    folder = tmp_path_factory.mktemp("held out") / "without-two"
    evaluate = partial(run_sections, held_out=ARTICLES[:2])
    build_run(open_source(str(pictures)), folder, encoder, evaluate)
    return folder


@pytest.fixture
def runs(trained, held_out, tmp_path):
    """Copies of both runs that a test may change."""
    folders = [tmp_path / "full", tmp_path / "without-two"]
    return [Path(shutil.copytree(*each)) for each in zip((trained, held_out), folders, strict=True)]


def change(folder, edit):
    """Edit the metrics of a finished run and reseal it."""
    metrics = read_metrics(folder).model_dump()
    edit(metrics)
    (folder / LAYOUT.metrics).write_text(json.dumps(metrics))
    reseal(folder)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def shown(section):
    points = [section.figures.by_name()[name] for name in COLUMNS]
    return [f"{point.value:.3f} [{point.low:.3f}, {point.high:.3f}]" for point in points]


def test_run_and_its_matching_run_share_one_row(runs):
    lines = compare(runs).splitlines()
    assert cells(lines[0])[1:] == [f"{part} {name}" for part in ("seen", "unseen") for name in COLUMNS]
    seen, unseen = read_metrics(runs[0]).evaluation.seen, read_metrics(runs[1]).evaluation.unseen
    assert cells(lines[2]) == ["drawn (full)", *shown(seen), *shown(unseen)]
    assert lines[3:] == ["", "- unseen figures of drawn (full): from without-two, with classes held out"]
    assert compare(runs[::-1]) == compare(runs)


@pytest.mark.parametrize(
    "edit",
    [
        lambda metrics: metrics["training"].update(seed=8),
        lambda metrics: metrics["training"].update(recipe="another"),
        lambda metrics: metrics["training"]["settings"].update(epochs=3.0),
        lambda metrics: metrics["training"]["data"].update(source="other/data"),
        lambda metrics: metrics["evaluation"].update(unseen=None),
    ],
    ids=["seed", "recipe", "settings", "data", "no unseen metrics"],
)
def test_runs_with_other_settings_or_data_do_not_match(runs, edit):
    change(runs[1], edit)
    table = compare(runs).split("\n\n")[0].splitlines()
    assert [cells(line)[0].split(" ")[1] for line in table[2:]] == ["(full)", "(without-two)"]
    assert update_cards(runs) == []


@pytest.mark.parametrize("key", ["hold_out_classes", "save_steps", "workers"])
def test_irrelevant_settings_do_not_prevent_a_match(runs, key):
    change(runs[1], lambda metrics: metrics["training"]["settings"].update({key: 77}))
    assert len(update_cards(runs)) == 1


def test_each_run_has_at_most_one_matching_run(runs, tmp_path):
    again = Path(shutil.copytree(runs[1], tmp_path / "again"))
    table = compare([*runs, again]).split("\n\n")[0].splitlines()
    assert [cells(line)[0] for line in table[2:]] == ["drawn (full)", "drawn (again)"]
    assert compare([*runs, runs[0]]) == compare(runs)


def test_the_best_of_each_column_is_bold(runs, tmp_path):
    other = Path(shutil.copytree(runs[0], tmp_path / "other"))

    def figures(**values):
        def edit(metrics):
            metrics["training"]["recipe"] = "another"
            for name, value in values.items():
                metrics["evaluation"]["seen"]["figures"][key_of(name)] = {"value": value, "low": value, "high": value}

        return edit

    change(runs[0], figures(**{"hit@1": 0.9, "P@5": 0.5, "mAP": 0.70001}))
    change(other, figures(**{"hit@1": 0.8, "P@5": 0.6, "mAP": 0.70002}))
    first, second = (cells(line) for line in compare([runs[0], other]).splitlines()[2:4])
    assert [cell.startswith("**") for cell in first[1:4]] == [True, False, True]
    assert [cell.startswith("**") for cell in second[1:4]] == [False, True, True]
    assert first[1] == "**0.900 [0.900, 0.900]**"
    assert len(first) == 6, "there are no unseen classes, and no columns for them"


def test_runs_measured_on_different_images_are_noted(runs, tmp_path):
    text = compare(runs)
    assert "not all runs" not in text
    change(runs[1], lambda metrics: metrics["training"].update(seed=8))
    text = compare(runs)
    assert "- not all runs were measured on the same images:" in text
    assert "  - drawn (full): 20 queries from test, 40 gallery images (train+validation), me/drawings" in text


def test_comparison_is_saved_as_a_plot(runs, tmp_path):
    compare(runs, tmp_path / "runs.png")
    with Image.open(tmp_path / "runs.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > 800


def test_unseen_class_metrics_are_added_to_the_card(runs):
    before, text = read_metrics(runs[0]).model_dump(), compare(runs)
    assert update_cards(runs) == [runs[0]]
    load_artifact(runs[0])
    after, fellow = (read_metrics(run).model_dump() for run in runs)
    fellow = fellow["evaluation"]
    assert after["evaluation"] == {
        **before["evaluation"],
        "unseen": {**fellow["unseen"], "from_run": "without-two"},
        "unseen_without_near_duplicates": fellow["unseen_without_near_duplicates"]
        and {**fellow["unseen_without_near_duplicates"], "from_run": "without-two"},
    }
    assert {**after, "evaluation": 0} == {**before, "evaluation": 0}
    card = (runs[0] / LAYOUT.card).read_text()
    assert "unseen classes" in card
    assert "`without-two`" in card
    assert compare(runs) == text
    assert compare(runs[:1]).splitlines()[2] == text.splitlines()[2], "the figures are its own from now on"


def test_folder_that_cannot_be_compared_is_named_in_the_error(runs, copied_artifact, tmp_path):
    with pytest.raises(ArtifactError, match=rf"{tmp_path}/nothing does not contain a finished run: make one with `"):
        compare([runs[0], tmp_path / "nothing"])
    with pytest.raises(ArtifactError, match=rf"{copied_artifact} is an artifact without an evaluation"):
        compare([runs[0], copied_artifact])
    (runs[1] / LAYOUT.metrics).write_text("{}")
    for ask in (compare, update_cards):
        with pytest.raises(IntegrityError, match=rf"{runs[1]}: metrics\.json: size in bytes"):
            ask(runs)
    load_artifact(runs[0])
