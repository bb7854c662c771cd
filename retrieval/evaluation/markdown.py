"""Markdown for training runs and evaluation results, from the sections of metrics.json."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.metrics import Metrics, name_of
from retrieval.artifact.sections import (
    AuditSection,
    CalibrationSection,
    ClassFigures,
    EvaluationPart,
    EvaluationSection,
    LeaveOneOut,
    Point,
    TrainingSection,
)

# Part of an evaluation -> column header.
_COLUMNS = {
    "seen": "seen classes",
    "unseen": "unseen classes",
    "seen_without_near_duplicates": "seen, without near-duplicates",
    "unseen_without_near_duplicates": "unseen, without near-duplicates",
}
# Shown in this order, before any other plots.
_PLOTS = ("recall_at_k", "intervals", "per_class", "images_per_class", "history", "reliability")
_WORST = 5  # classes listed
_CLASS_HEAD = ("class", "training images", "queries", "hit@1", "P@5", "mAP", "most often confused with")


def plain(text: str) -> str:
    """Put untrusted text on one line and escape it, so Markdown and HTML show it literally.

    >>> plain("[a](http://b)\\n<c>")
    '\\\\[a\\\\](http://b) \\\\<c\\\\>'
    """
    return re.sub(r"([\\`<>\[\]])", r"\\\1", " ".join(str(text).split()))


def with_interval(point: Point) -> str:
    """A metric with its confidence interval, as text.

    >>> with_interval(Point(value=0.95, low=0.9362, high=0.9634))
    '0.950 [0.936, 0.963]'
    """
    return f"{point.value:.3f} [{point.low:.3f}, {point.high:.3f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; cell contents are escaped."""
    lines = [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in (head, *rows)]
    return [f"| {lines[0]} |", "|" + " --- |" * len(head), *(f"| {line} |" for line in lines[1:])]


def training_lines(training: TrainingSection) -> list[str]:
    """A list of facts about a training run: recipe, data, checkpoint, versions."""
    data, best = training.data, training.best
    run = [f"{training.steps:,} steps"] if training.steps is not None else []
    run += [f"{training.seconds / 60:.1f} minutes"] if training.seconds else []
    run += [f"seed {training.seed}"] if training.seed is not None else []
    chosen = best and f"of step {best.step:,}, chosen by {name_of(best.metric)} ({best.value:.3f})"
    facts = {
        "Recipe": plain(training.recipe),
        "Data": plain(data.source),
        "Images": ", ".join(f"{name} {size:,}" for name, size in data.split_sizes.items()),
        "Classes": f"{data.classes:,}" if data.classes is not None else "",
        "Classes held out": f"{len(data.held_out)}: {plain(', '.join(data.held_out))}" if data.held_out else "",
        "Left out": plain("; ".join(data.left_out)),
        "Run": ", ".join(run),
        "Checkpoint": chosen,
        "Validation": ", ".join(f"{name_of(key)} {value:.3f}" for key, value in training.finished.items()),
        "Versions": ", ".join(f"{name.replace('_', '-')} {version}" for name, version in training.versions.items()),
    }
    return [f"- **{name}:** {' '.join(fact.split())}" for name, fact in facts.items() if fact]


def settings_lines(settings: Mapping[str, Any]) -> list[str]:
    """All recipe settings, in a collapsed section."""
    if not settings:
        return []
    lines = [f"{name}: {' '.join(str(value).split())}" for name, value in settings.items()]
    return ["<details><summary>All settings of the recipe</summary>", "", "```", *lines, "```", "", "</details>"]


def evaluation_lines(evaluation: EvaluationSection) -> list[list[str]]:
    """The held-out metrics with confidence intervals, and the classes with the worst results."""
    parts = evaluation.parts()
    figures = [part.figures.by_name() for part in parts.values()]
    rows = [[name, *(with_interval(each[name]) for each in figures)] for name in figures[0]]
    rows.append(["queries", *(f"{part.queries:,}" for part in parts.values())])
    accuracy = evaluation.classifier_accuracy
    blocks = [
        [
            f"Images of `{evaluation.split}` as queries, `{evaluation.gallery}` as gallery; means over the queries, "
            "with 95% bootstrap intervals."
        ],
        table(["", *(_COLUMNS[part] for part in parts)], rows),
        [f"The run's classifier is correct for {with_interval(accuracy)} of the queries of seen classes."]
        if accuracy
        else [],
        _unseen(evaluation.unseen) if evaluation.unseen else [],
    ]
    worst = [row for row in evaluation.classes if row.queries][:_WORST]
    if worst:
        blocks += [["The classes with the lowest scores:"], table(_CLASS_HEAD, map(_class_row, worst))]
    return blocks


def _unseen(part: EvaluationPart) -> list[str]:
    run = f"another run of the same recipe, `{part.from_run}`, which measured them" if part.from_run else "training"
    return [
        f"The unseen classes were held out of {run}. Each of their images is a query in a gallery of "
        f"{part.images:,} images; the query itself is excluded."
    ]


def _class_row(row: ClassFigures) -> list[str]:
    figures = ["" if value is None else f"{value:.3f}" for value in (row.hit_at_1, row.p_at_5, row.map)]
    confusions = ", ".join(
        f"{'(no label)' if each.label is None else plain(each.label)} ({each.count})" for each in row.confusions
    )
    return [plain(row.label), f"{row.images:,}", f"{row.queries:,}", *figures, confusions]


def audit_lines(audit: AuditSection | None, evaluation: EvaluationSection | None) -> list[str]:
    """The result of the leakage audit."""
    if not audit:
        return []
    found = (
        f"Leak audit: {audit.queries:,} of {audit.audited:,} held-out images have a near-duplicate among the "
        "images of training and validation; `metrics.json` lists them."
    )
    parts = evaluation.parts() if evaluation else {}
    without = [part for part in ("seen", "unseen") if part in parts and f"{part}_without_near_duplicates" not in parts]
    if audit.queries and without:
        classes = " and ".join(without)
        found += f" Without these, no query of {classes} classes is left: the metrics may reflect nothing else."
    return [found]


def plot_lines(folder: Path) -> list[list[str]]:
    """Image links to the plots in an artifact's folder."""
    names = [Path(plot).stem for plot in LAYOUT.plots_in(folder)]
    ordered = sorted(names, key=lambda name: _PLOTS.index(name) if name in _PLOTS else len(_PLOTS))
    return [[f"![{name.replace('_', ' ')}]({LAYOUT.plots}/{name}.png)"] for name in ordered]


def leave_one_out_lines(metrics: Metrics) -> list[list[str]]:
    """The leave-one-out metrics of the gallery."""
    figures: LeaveOneOut | None = metrics.leave_one_out
    if not figures:
        return [["There are no labels, or only one, so there is nothing to evaluate."]]
    values = figures.by_name()
    sampled = ""
    if figures.sampled_from:
        sampled = (
            f", in a sample of {figures.images:,} of the {figures.sampled_from:,} images: classes drawn at random, and "
            "of very large ones a part. Among all images, the figures would be lower"
        )
    learned = " The encoder was trained on some of these images: for new images, see the evaluation."
    return [
        [
            f"Leave-one-out over {figures.queries:,} images and {figures.labels:,} labels{sampled}."
            f"{learned if metrics.is_trained else ''}"
        ],
        table(list(values), [[f"{value:.3f}" for value in values.values()]]),
    ]


def calibration_lines(calibration: CalibrationSection | None) -> list[str]:
    """The quality of match probabilities and of confident hits."""
    if not calibration:
        return []
    checked, wanted = calibration.checked, f"{calibration.wanted.precision:.0%}"
    own = "gallery images, each excluded from its own search"
    of = "held-out images" if calibration.held_out else own
    lines = [
        "The match probability of a hit is the estimated probability that it shows the same class as the query. It is "
        "learned from queries with known labels. Its expected calibration error is "
        f"{checked.expected_calibration_error:.3f}, measured on {checked.queries:,} other {of}."
    ]
    if not checked.precision:
        return [*lines, f"No hit is called confident or not: no threshold reaches a precision of {wanted}."]
    return [
        *lines,
        f"The top hit is confident for {checked.shown:.0%} of these queries, and {with_interval(checked.precision)} of "
        f"those hits show the same class; the target is {wanted}. When the gallery has no image of the query's class, "
        f"{checked.refused:.0%} of the queries have no confident hit.",
    ]
