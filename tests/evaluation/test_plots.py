"""The plots of an evaluation: valid, non-empty PNG files for any metrics."""

import copy
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from conftest import ROOT
from PIL import Image, ImageColor

import retrieval
from retrieval.artifact.load import read_metrics
from retrieval.artifact.metrics import new_metrics
from retrieval.artifact.sections import EvaluationSection
from retrieval.evaluation import plots
from retrieval.evaluation.plots import draw_comparison

EVALUATED = ["images_per_class.png", "intervals.png", "per_class.png", "recall_at_k.png"]
ALL = ["history.png", *EVALUATED, "reliability.png"]
CHECKED = {
    "queries": 480,
    "expected_calibration_error": 0.04,
    "reliability": {"chance": [0.1, 0.5, 0.9], "share": [0.2, 0.45, 0.9], "pairs": [30, 50, 400]},
    "precision": None,
    "shown": 0.0,
    "refused": 1.0,
}
CALIBRATION = {
    "weights": [1.0, 1.0, 1.0],
    "bias": 0.0,
    "strengths": [0.0],
    "chances": [0.5],
    "threshold": None,
    "floor": 0.0,
    "queries": 60,
    "held_out": True,
    "wanted": {"precision": 0.95, "refused": 0.9},
}


@pytest.fixture
def metrics(trained):
    """The sections of a finished run, including metrics of unseen classes and a calibration."""
    sections = read_metrics(trained).model_dump()
    sections["evaluation"]["unseen"] = copy.deepcopy(sections["evaluation"]["seen"])
    return {**sections, "calibration": {**CALIBRATION, "checked": CHECKED}}


def draw(folder, sections):
    plots.draw(folder, new_metrics(sections))


def drawn(folder):
    return sorted(path.name for path in (folder / "plots").iterdir())


def check_picture(path):
    """A PNG of a sensible size that shows more than an empty frame."""
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert 400 <= image.width <= 2400
        assert 150 <= image.height <= 3000
        colours = image.convert("RGB").getcolors(image.width * image.height)
        counts = Counter({colour: count for count, colour in colours})
    assert len(counts) > 20
    assert 0.01 < 1 - counts[255, 255, 255] / counts.total() < 0.9
    return {colour for colour, count in counts.items() if count > 30}


def has(colours, name):
    return ImageColor.getrgb(name) in colours


def test_every_plot_is_drawn_for_a_full_set_of_metrics(metrics, tmp_path):
    draw(tmp_path, metrics)
    assert drawn(tmp_path) == ALL
    colours = {name: check_picture(tmp_path / "plots" / name) for name in ALL}
    for name in ("recall_at_k.png", "intervals.png"):
        assert has(colours[name], "#0072B2"), "seen classes"
        assert has(colours[name], "#D55E00"), "unseen classes"
    metrics["evaluation"]["unseen"] = None
    draw(tmp_path, metrics)
    assert not has(check_picture(tmp_path / "plots" / "recall_at_k.png"), "#D55E00")


def test_same_metrics_give_identical_plot_files(metrics, tmp_path):
    for name in ("one", "two"):
        draw(tmp_path / name, metrics)
    for name in ALL:
        assert (tmp_path / "one" / "plots" / name).read_bytes() == (tmp_path / "two" / "plots" / name).read_bytes()


def test_plots_of_the_same_figures_are_not_drawn_again(metrics, tmp_path):
    def files():
        return {name: (tmp_path / "plots" / name).stat().st_ino for name in ALL}

    draw(tmp_path, metrics)
    for name in ALL:  # a number stays free as long as the file is there
        (tmp_path / name).hardlink_to(tmp_path / "plots" / name)
    before = files()
    draw(tmp_path, metrics)
    assert files() == before
    draw(tmp_path, {**metrics, "calibration": {**CALIBRATION, "checked": {**CHECKED, "queries": 481}}})
    assert {name for name in ALL if files()[name] != before[name]} == {"reliability.png"}
    metrics["evaluation"]["classes"].pop()
    shutil.copy(tmp_path / "plots" / "history.png", tmp_path / "plots" / "intervals.png")
    draw(tmp_path, metrics)
    assert {name for name in ALL if files()[name] == before[name]} == {"history.png", "recall_at_k.png"}


def test_only_plots_with_data_are_drawn(metrics, tmp_path):
    for number, sections in enumerate(
        [
            {},
            {"leave_one_out": metrics["leave_one_out"]},
            {"training": {}},
            {"training": {"history": []}, "evaluation": None, "calibration": None},
        ]
    ):
        draw(tmp_path / str(number), sections)
        assert not (tmp_path / str(number)).exists()
    draw(tmp_path / "training", {"training": metrics["training"]})
    assert drawn(tmp_path / "training") == ["history.png"]
    draw(tmp_path / "evaluation", {"evaluation": metrics["evaluation"]})
    assert drawn(tmp_path / "evaluation") == EVALUATED
    draw(tmp_path / "calibration", {"calibration": metrics["calibration"]})
    assert drawn(tmp_path / "calibration") == ["reliability.png"]
    without_classes = {**metrics["evaluation"], "classes": []}
    draw(tmp_path / "no classes", {"evaluation": without_classes})
    assert drawn(tmp_path / "no classes") == ["intervals.png", "recall_at_k.png"]


def test_outdated_plots_are_deleted_and_other_files_kept(metrics, tmp_path):
    draw(tmp_path, metrics)
    (tmp_path / "plots" / "own.png").write_bytes(b"mine")
    draw(tmp_path, {"training": metrics["training"], "calibration": None})
    assert drawn(tmp_path) == ["history.png", "own.png"]


def test_redrawing_leaves_hard_linked_plots_unchanged(metrics, tmp_path):
    draw(tmp_path / "old", metrics)
    before = {name: (tmp_path / "old" / "plots" / name).read_bytes() for name in ALL}
    (tmp_path / "new" / "plots").mkdir(parents=True)
    for name in ALL:
        (tmp_path / "new" / "plots" / name).hardlink_to(tmp_path / "old" / "plots" / name)
    changed = {**CHECKED, "expected_calibration_error": 0.5}
    draw(tmp_path / "new", {"calibration": {**CALIBRATION, "checked": changed}})
    assert drawn(tmp_path / "new") == ["reliability.png"]
    assert (tmp_path / "new" / "plots" / "reliability.png").read_bytes() != before["reliability.png"]
    assert {name: (tmp_path / "old" / "plots" / name).read_bytes() for name in ALL} == before


def test_reliability_plot_works_with_a_single_probability(tmp_path):
    one = {
        **CHECKED,
        "expected_calibration_error": 0.0,
        "reliability": {"chance": [1.0], "share": [1.0], "pairs": [200]},
    }
    draw(tmp_path, {"calibration": {**CALIBRATION, "checked": one}})
    check_picture(tmp_path / "plots" / "reliability.png")


@pytest.mark.parametrize(
    "history",
    [
        [{"step": 1, "loss": 2.0}],
        [{"step": 5, "validation_map": 0.5, "epoch": 1.0}],
        [{"step": step, "loss": 1 / step, "triplet": None, "epoch": step / 9} for step in range(1, 200)],
    ],
    ids=["one loss", "one validation score", "many losses"],
)
def test_history_plot_works_for_short_and_long_histories(history, tmp_path):
    draw(tmp_path, {"training": {"history": history}})
    check_picture(tmp_path / "plots" / "history.png")


def test_history_without_losses_or_scores_is_not_drawn(tmp_path):
    draw(tmp_path, {"training": {"history": [{"step": 1, "epoch": 0.5}]}})
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("count", [1, 40, 300])
def test_class_plots_work_for_any_number_of_classes_and_any_names(metrics, tmp_path, count):
    names = ["$x^", "a$b$c", "a very long name that would take more room than there is", "größe\nzwei", "%s {}", "_"]
    other, none = {"label": "$y$", "count": 2}, {"label": None, "count": 1}
    metrics["evaluation"]["classes"] = [
        {
            "label": names[number] if number < len(names) else f"class {number}",
            "images": 3 * number,
            "queries": number + 1,
            "hit_at_1": 0.5,
            "p_at_5": 0.5,
            "map": (number + 1) / count,
            "confusions": [other, none] if number % 2 else [none] if number % 3 else [],
        }
        for number in range(count)
    ]
    metrics["evaluation"]["classes"].append({"label": "never asked", "images": 9, "queries": 0, "confusions": []})
    draw(tmp_path, metrics)
    check_picture(tmp_path / "plots" / "images_per_class.png")
    check_picture(tmp_path / "plots" / "per_class.png")


@pytest.mark.parametrize("count", [1, 2, 12])
def test_comparison_plot_shows_one_or_many_runs(metrics, tmp_path, count):
    evaluation = EvaluationSection.model_validate(metrics["evaluation"])
    runs = [(f"recipe (run {number})", evaluation) for number in range(count)]
    runs[0] = ("recipe ($only$ seen)", evaluation.model_copy(update={"unseen": None}))
    draw_comparison(tmp_path / "deeper" / "runs.png", runs, ["hit@1", "P@5", "mAP", "MAP@R", "R-precision"])
    colours = check_picture(tmp_path / "deeper" / "runs.png")
    assert has(colours, "#0072B2")
    assert has(colours, "#D55E00") == (count > 1)
    draw_comparison(tmp_path / "runs.png", runs, ["mAP"])
    check_picture(tmp_path / "runs.png")


def test_public_names_load_no_matplotlib_and_plots_no_pyplot(tmp_path):
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    code = f"""
import sys, retrieval
print([getattr(retrieval, name).__name__ for name in retrieval.__all__])
import retrieval.build.build, retrieval.search
assert "matplotlib" not in sys.modules
from pathlib import Path
from retrieval.artifact.metrics import new_metrics
from retrieval.evaluation.plots import draw
draw(Path({str(tmp_path)!r}), new_metrics({{"training": {{"history": {history}}}}}))
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == f"{list(retrieval.__all__)}\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        retrieval.nothing  # noqa: B018
