"""The model card: what a finished run did and how well, as text for people and as metadata for the Hub."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import yaml
from conftest import BACKBONE, noise

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.artifact.metrics import Metrics, key_of, name_of, new_metrics
from retrieval.artifact.sections import Point
from retrieval.build.card import write_card
from retrieval.build.change import add_images
from retrieval.encoders.image import Encoder
from retrieval.evaluation.markdown import table, with_interval
from retrieval.evaluation.metrics import FIGURES
from retrieval.sources.open import open_source


@pytest.fixture
def card(copied_run):
    """A function that rewrites the run's card with changed metrics; it returns the card's text and metadata."""
    artifact = load_artifact(copied_run)
    metrics = json.loads((copied_run / LAYOUT.metrics).read_text())

    def write(change=lambda metrics: None):
        mine = copy.deepcopy(metrics)
        change(mine)
        write_card(copied_run, artifact.encoder, artifact.store, artifact.gallery, new_metrics(mine), artifact.manifest)
        text = (copied_run / LAYOUT.card).read_text(encoding="utf-8")
        return text, yaml.safe_load(text.split("---\n")[1])

    return write


def row(text, first):
    """The cells of the first Markdown table row whose first cell is `first`."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_card_names_the_recipe_and_the_run(card):
    text, _ = card()
    for fact in (
        "**Recipe:** drawn",
        "**Data:** me/drawings",
        "train 30, test 20",
        "12 steps, 1.5 minutes, seed 7",
        "of step 8, chosen by validation mAP (0.750)",
        "**Versions:** torch ",
        f"backbone: {BACKBONE}",
        "epochs: 2.0",
        "Leak audit: 1 of 20 held-out images have a near-duplicate among the images of training and validation",
        "`test` as queries, `train+validation` as gallery",
        "The run's classifier is correct for 0.800 [",
        "**Gallery:** 60 images",
        "Leave-one-out over 60 images and 5 labels. The encoder was trained on some of these",
    ):
        assert fact in text


def test_card_shows_the_figures_of_the_metrics(card):
    sections = {}

    def unseen(metrics):
        metrics["evaluation"]["unseen"] = {**metrics["evaluation"]["seen"], "from_run": "fellow", "queries": 1234}
        metrics["evaluation"]["seen"]["figures"]["map"] = {"value": 0.5, "low": 0.25, "high": 0.75}
        sections.update(metrics["evaluation"])

    text, _ = card(unseen)
    head = ["", "seen classes", "unseen classes", "seen, without near-duplicates"]
    assert [cell.strip() for cell in text.split("intervals.\n\n")[1].splitlines()[0].strip("|").split("|")] == head
    assert row(text, "mAP")[1] == "0.500 [0.250, 0.750]"
    for key, figure in sections["unseen"]["figures"].items():
        assert row(text, name_of(key))[2] == f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
    assert row(text, "queries") == ["queries", "20", "1,234", "19"]
    said = "held out of another run of the same recipe, `fellow`, which measured them. Each of their images is a query"
    assert said in text


def test_card_explains_what_limits_the_figures(card):
    def alone(metrics):
        metrics["evaluation"]["unseen"] = metrics["evaluation"]["seen"]
        metrics["evaluation"]["seen_without_near_duplicates"] = None
        metrics["training"]["data"]["left_out"] = ["2 images without a label", "1 class with one image"]

    text, _ = card(alone)
    assert "held out of training. Each of their images is a query in a gallery of " in text
    assert "Without these, no query of seen and unseen classes is left: the metrics may reflect nothing else." in text
    assert "**Left out:** 2 images without a label; 1 class with one image" in text
    assert "Without these" not in card()[0]
    assert "was trained on some" not in card(lambda metrics: metrics["training"].update(steps=0))[0]


def test_card_lists_the_five_worst_classes(card):
    def classes(metrics):
        mine = {"images": 30, "queries": 4, "hit_at_1": 0.5, "p_at_5": 0.25}
        metrics["evaluation"]["classes"] = [
            {
                "label": f"class|{n}",
                **mine,
                "map": n / 10,
                "confusions": [{"label": "cup\nor mug", "count": 3}, {"label": None, "count": 1}],
            }
            for n in range(7)
        ]

    text, _ = card(classes)
    cells = "| 30 | 4 | 0.500 | 0.250 | 0.400 | cup or mug (3), (no label) (1) |"
    assert f"| class\\|4 {cells}" in text
    assert "class\\|5" not in text


def test_card_shows_every_plot(card, copied_run, artifact):
    shutil.copyfile(artifact / LAYOUT.plots / "reliability.png", copied_run / LAYOUT.plots / "reliability.png")
    text, _ = card()
    plots = LAYOUT.plots_in(copied_run)
    assert len(plots) == 6
    assert next(line for line in text.splitlines() if line.startswith("![")) == "![recall at k](plots/recall_at_k.png)"
    for plot in plots:
        assert f"]({plot})" in text


def test_card_states_how_reliable_match_probabilities_are(card):
    assert "confident" not in card()[0]
    checked = {
        "queries": 1234,
        "expected_calibration_error": 0.0416,
        "reliability": {"chance": [], "share": [], "pairs": []},
        "precision": {"value": 0.98, "low": 0.96, "high": 0.99},
        "shown": 0.613,
        "refused": 0.921,
    }
    curve = {"weights": [1.0, 1.0, 1.0], "bias": 0.0, "strengths": [0.0], "chances": [0.5]}
    section = {**curve, "threshold": 1.0, "floor": 0.5, "queries": 60, "held_out": True, "checked": checked}
    section["wanted"] = {"precision": 0.95, "refused": 0.9}
    text, _ = card(lambda metrics: metrics.update(calibration=section))
    assert "expected calibration error is 0.042, measured on 1,234 other held-out images" in text
    assert (
        "The top hit is confident for 61% of these queries, and 0.980 [0.960, 0.990] of those hits show the same"
        in text
    )
    assert "92% of the queries have no confident hit" in text
    checked["precision"] = None
    text, _ = card(lambda metrics: metrics.update(calibration={**section, "held_out": False}))
    assert "on 1,234 other gallery images, each excluded from its own search" in text
    assert "No hit is called confident or not" in text


def test_metadata_names_library_tags_data_set_and_base_model(card):
    _, data = card()
    assert data["library_name"] == "timm"
    assert data["tags"] == ["image-search", "faiss", "triplet-loss", "metric-learning"]
    assert data["datasets"] == ["me/drawings"]
    assert "base_model" not in data, "the settings do not say that it started from the Hub's weights"

    def start(**settings):
        return lambda metrics: metrics["training"]["settings"].update(settings)

    assert card(start(pretrained=True, weights=None))[1]["base_model"] == f"timm/{BACKBONE}.r160_in1k"
    assert card(start(pretrained=True, backbone=f"hf-hub:timm/{BACKBONE}.r160_in1k"))[1]["base_model"]
    for settings in (
        {"pretrained": True, "weights": "mine.safetensors"},
        {"pretrained": False},
        {"pretrained": True, "backbone": "hf-hub:me/mine"},
    ):
        assert "base_model" not in card(start(**settings))[1]


def about(**facts):
    return lambda metrics: metrics["training"]["data"].update(about=facts)


def test_card_states_the_data_set_and_its_licence(card):
    text, data = card()
    assert data["license"] == "cc-by-4.0"
    assert "[me/drawings](https://huggingface.co/datasets/me/drawings), config small, revision 0000000000" in text
    assert "- **Licence:** cc-by-4.0" in text
    text, data = card(about(name="pictures"))
    assert "datasets" not in data
    assert data["license"] == "unknown"
    assert "- **Images:** pictures" in text
    assert "- **Licence:** not stated; check" in text
    assert card(about(name="x", license="MIT"))[1]["license"] == "mit"
    text, data = card(about(name="<b>x</b> [y](http://z)", license="Free: for all\n[x]"))
    assert (data["license"], data["license_name"]) == ("other", "free-for-all-x")
    assert "<b>" not in text.split("---\n")[2]
    assert "- **Licence:** Free: for all \\[x\\]\n" in text


def test_card_names_every_source_of_the_gallery(copied_artifact, tmp_path):
    (tmp_path / "more").mkdir()
    noise(tmp_path / "more" / "one.png", 1)
    more = replace(open_source(str(tmp_path / "more")), about={"name": "more", "license": "mit"})
    add_images(copied_artifact, more)
    text = (copied_artifact / LAYOUT.card).read_text()
    assert "- **Added:** more\n- **Licence:** mit\n- **In the gallery:** 61, after additions" in text
    data = yaml.safe_load(text.split("---\n")[1])
    assert (data["license"], data["license_name"]) == ("other", "several")


def test_model_index_shows_the_figures_of_the_metrics(card, copied_run):
    evaluation = json.loads((copied_run / LAYOUT.metrics).read_text())["evaluation"]
    _, data = card()
    [model] = data["model-index"]
    result = next(result for result in model["results"] if result["task"]["name"] == "Image retrieval")
    assert result["dataset"] == {
        "type": "me/drawings",
        "name": "me/drawings",
        "config": "small",
        "split": "test",
        "revision": "0" * 40,
    }
    for metric in result["metrics"]:
        point = evaluation["seen"]["figures"][key_of(metric["type"])]
        assert metric["value"] == round(point["value"], 4)
        assert metric["args"] == {"confidence": 0.95, "low": round(point["low"], 4), "high": round(point["high"], 4)}
    assert [metric["type"] for metric in result["metrics"]] == list(FIGURES)


@pytest.mark.parametrize(
    "gone",
    [
        ["training"],
        ["evaluation"],
        ["audit"],
        ["index"],
        ["leave_one_out"],
        ["training", "evaluation", "audit", "index", "leave_one_out"],
        ["training/settings", "training/data", "training/best", "training/versions", "training/history"],
        ["training/recipe", "training/seed", "training/seconds", "training/steps"],
        ["evaluation/classes", "evaluation/classifier_accuracy", "evaluation/seen_without_near_duplicates"],
    ],
    ids=" ".join,
)
def test_card_omits_missing_sections(card, gone):
    def without(metrics):
        for name in gone:
            section, _, key = name.partition("/")
            del (metrics[section] if key else metrics)[key or section]

    text, data = card(without)
    assert "None" not in text.replace("[None]", "")
    assert all(heading in text for heading in ("## Use", "## Data", "## Limits"))
    assert ("triplet-loss" in data["tags"]) == ("training" not in gone)
    assert "\n\n\n" not in text


def test_card_without_a_training_run_shows_leave_one_out_figures(artifact):
    text = (artifact / LAYOUT.card).read_text()
    data = yaml.safe_load(text.split("---\n")[1])
    assert data["tags"] == ["image-search", "faiss"]
    assert data["model-index"][0]["results"][0]["task"]["name"] == "Image retrieval, leave-one-out"
    headings = ["# Image search artifact", "## Use", "## Data", "## How it was made", "## Evaluation", "## Limits"]
    assert [line for line in text.splitlines() if line.startswith("## ") or line == headings[0]] == headings
    assert "60 found, 60 indexed, 0 duplicates, 0 skipped" in text


def test_card_says_when_timm_cannot_load_the_head(card, copied_run):
    assert "timm.create_model(" in card()[0]
    artifact = load_artifact(copied_run)
    encoder = Encoder.create(BACKBONE, pretrained=False, head="16-relu-8", seed=0)
    write_card(copied_run, encoder, artifact.store, artifact.gallery, Metrics(), {})
    text = (copied_run / LAYOUT.card).read_text()
    assert "timm.create_model(" not in text
    assert "retrieval.Encoder.load" in text


def test_tables_escape_cells_and_intervals_have_three_decimals():
    assert table(["a", "b"], [["1|2", "x\ny"], ["", " 3 "]]) == [
        "| a | b |",
        "| --- | --- |",
        "| 1\\|2 | x y |",
        "|  | 3 |",
    ]
    assert with_interval(Point(value=0.9496, low=0, high=1)) == "0.950 [0.000, 1.000]"
