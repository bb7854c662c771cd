"""Report: what a run was and how well it finds, as Markdown, from the sections of metrics.json."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval.artifact.layout import LAYOUT

# A part of an evaluation -> the head of its column.
_COLUMNS = {
    "seen": "seen classes",
    "unseen": "unseen classes",
    "seen_without_near_duplicates": "seen, without near-duplicates",
    "unseen_without_near_duplicates": "unseen, without near-duplicates",
}
# In this order, then any others.
_PLOTS = ("recall_at_k", "intervals", "per_class", "images_per_class", "history", "reliability")
_WORST = 5  # classes named
_CLASS_HEAD = ("class", "training images", "queries", "hit@1", "P@5", "mAP", "most often taken for")

Section = Mapping[str, Any]


def plain(text: str) -> str:
    """Anybody's text in one line, which Markdown and HTML then show as it stands.

    >>> plain("[a](http://b)\\n<c>")
    '\\\\[a\\\\](http://b) \\\\<c\\\\>'
    """
    return re.sub(r"([\\`<>\[\]])", r"\\\1", " ".join(str(text).split()))


def with_interval(point: Section) -> str:
    """A figure with the ends of its interval.

    >>> with_interval({"value": 0.95, "low": 0.9362, "high": 0.9634})
    '0.950 [0.936, 0.963]'
    """
    return f"{point['value']:.3f} [{point['low']:.3f}, {point['high']:.3f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; whatever stands in a cell stays in it."""
    lines = [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in (head, *rows)]
    return [f"| {lines[0]} |", "|" + " --- |" * len(head), *(f"| {line} |" for line in lines[1:])]


def training_lines(training: Section) -> list[str]:
    """A run: recipe, data, checkpoint, versions."""
    data, best = training.get("data") or {}, training.get("best") or {}
    sizes = ", ".join(f"{name} {size:,}" for name, size in (data.get("split sizes") or {}).items())
    held_out = data.get("held out") or []
    run = [f"{training['steps']:,} steps"] if "steps" in training else []
    run += [f"{training['seconds'] / 60:.1f} minutes"] if training.get("seconds") else []
    run += [f"seed {training['seed']}"] if "seed" in training else []
    versions = ", ".join(f"{name} {version}" for name, version in (training.get("versions") or {}).items())
    facts = {
        "Recipe": plain(training.get("recipe", "")),
        "Data": plain(data.get("source", "")),
        "Images": sizes,
        "Classes": f"{data['classes']:,}" if "classes" in data else "",
        "Classes held out": f"{len(held_out)}: {plain(', '.join(held_out))}" if held_out else "",
        "Left out": plain("; ".join(data.get("left out") or [])),
        "Run": ", ".join(run),
        "Checkpoint": f"of step {best['step']:,}, chosen by {best['metric']} ({best['value']:.3f})" if best else "",
        "Validation": ", ".join(f"{name} {value:.3f}" for name, value in (training.get("finished") or {}).items()),
        "Versions": versions,
    }
    return [f"- **{name}:** {' '.join(fact.split())}" for name, fact in facts.items() if fact]


def settings_lines(settings: Section) -> list[str]:
    """Every key of the recipe, folded away."""
    if not settings:
        return []
    lines = [f"{name}: {' '.join(str(value).split())}" for name, value in settings.items()]
    return ["<details><summary>All settings of the recipe</summary>", "", "```", *lines, "```", "", "</details>"]


def evaluation_lines(evaluation: Section) -> list[list[str]]:
    """The figures of the test images, with intervals, and the classes that are found worst."""
    parts = {part: evaluation[part] for part in _COLUMNS if evaluation.get(part)}
    names = [name for name in parts["seen"]["figures"] if all(name in part["figures"] for part in parts.values())]
    rows = [[name, *(with_interval(part["figures"][name]) for part in parts.values())] for name in names]
    rows.append(["queries", *(f"{part['queries']:,}" for part in parts.values())])
    accuracy, unseen = evaluation.get("classifier_accuracy"), parts.get("unseen", {})
    blocks = [
        [
            f"Images of `{evaluation['split']}` as queries, `{evaluation['gallery']}` as gallery; means over the "
            "queries, with 95% bootstrap intervals."
        ],
        table(["", *(_COLUMNS[part] for part in parts)], rows),
        [f"The classifier of the run is right for {with_interval(accuracy)} of the seen classes' queries."]
        if accuracy
        else [],
        _unseen(unseen) if unseen else [],
    ]
    worst = [row for row in evaluation.get("classes") or [] if row["queries"]][:_WORST]
    if worst:
        blocks += [["The classes that are found worst:"], table(_CLASS_HEAD, map(_class_row, worst))]
    return blocks


def _unseen(part: Section) -> list[str]:
    run = f"another run of the same recipe, `{part['from']}`, which they are from" if part.get("from") else "training"
    return [
        f"The unseen classes were kept from {run}: all of their images are queries, each left out of its own search in "
        f"{part['images']:,} images."
    ]


def _class_row(row: Section) -> list[str]:
    figures = [f"{row[name]:.3f}" for name in ("hit@1", "P@5", "mAP")]
    confusions = ", ".join(
        f"{'(no label)' if label is None else plain(label)} ({count})" for label, count in row["confusions"]
    )
    return [plain(row["label"]), f"{row['images']:,}", f"{row['queries']:,}", *figures, confusions]


def audit_lines(audit: Section, evaluation: Section) -> list[str]:
    """What the leak audit found."""
    if not audit:
        return []
    found = (
        f"Leak audit: {audit['queries']:,} of {audit['audited']:,} held-out images have a near-duplicate among the "
        "images of training and validation; `metrics.json` lists them."
    )
    alone = [part for part in ("seen", "unseen") if evaluation.get(part)]
    without = [part for part in alone if not evaluation.get(f"{part}_without_near_duplicates")]
    if audit["queries"] and without:
        found += f" Without them no query of {' and '.join(without)} classes is left: the figures may show no more."
    return [found]


def plot_lines(folder: Path) -> list[list[str]]:
    """The pictures of an artifact's folder."""
    names = [Path(plot).stem for plot in LAYOUT.plots_in(folder)]
    ordered = sorted(names, key=lambda name: _PLOTS.index(name) if name in _PLOTS else len(_PLOTS))
    return [[f"![{name.replace('_', ' ')}]({LAYOUT.plots}/{name}.png)"] for name in ordered]


def leave_one_out_lines(figures: Section, *, trained: bool) -> list[list[str]]:
    """The figures of the gallery's own images."""
    if not figures:
        return [["There are no labels to evaluate by."]]
    values = {name: value for name, value in figures.items() if isinstance(value, float)}
    learned = " The encoder has learned from some of them: for new images see the evaluation." if trained else ""
    return [
        [f"Leave-one-out over {figures['queries']:,} images and {figures['labels']:,} labels.{learned}"],
        table(list(values), [[f"{value:.3f}" for value in values.values()]]),
    ]


def calibration_lines(calibration: Section) -> list[str]:
    """What a hit's chance and the word confident are worth."""
    if not calibration:
        return []
    checked, wanted = calibration["checked"], calibration["wanted"]
    own = "images of the gallery, each left out of its search"
    of = "images that were held out" if calibration["held_out"] else own
    lines = [
        "A hit has a chance that it is of the query's kind, learned from queries whose label is known. Its expected "
        f"calibration error is {checked['expected_calibration_error']:.3f}, on {checked['queries']:,} {of}: others "
        "than those that it was learned from."
    ]
    if not checked["precision"]:
        share = f"{wanted['precision']:.0%}"
        return [*lines, f"No first hit is called confident: none could be promised to be right {share} of the time."]
    return [
        *lines,
        f"The first hit of {checked['shown']:.0%} of them is confident, and {with_interval(checked['precision'])} of "
        f"these are right; {wanted['precision']:.0%} is what was aimed at. Searched among the images of all other "
        f"labels, as a query of no kind in the gallery, {checked['refused']:.0%} of them have no confident hit.",
    ]
