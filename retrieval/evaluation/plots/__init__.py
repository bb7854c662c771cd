"""Evaluation plots: PNG files for an artifact's card, and a comparison of several runs.

The colours are the Okabe-Ito palette, which is safe for colour-blind readers; markers and line styles differ as well.
matplotlib is imported only when something is drawn, and without its global state, so drawing is thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.metrics import Metrics, name_of
from retrieval.artifact.sections import Checked, ClassFigures, EvaluationSection, Number, Point
from retrieval.errors import short
from retrieval.evaluation.plots.files import key_of, panels_of, save, shows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _VERMILION, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
# Part of an evaluation -> its display name, colour and marker.
_PARTS = {
    "seen": ("seen classes", _BLUE, "o"),
    "unseen": ("unseen classes", _VERMILION, "s"),
    "seen_without_near_duplicates": ("seen, without near-duplicates", _GREEN, "^"),
    "unseen_without_near_duplicates": ("unseen, without near-duplicates", _PURPLE, "D"),
}
_DRAWN = ("recall_at_k", "intervals", "images_per_class", "per_class", "history", "reliability")
_WORST = 20  # classes in the plot of the worst classes
_NAMED = 40  # with more classes, the names under the bars would not be legible
_short = partial(short, longest=32)  # truncates a label to the room there is
_NO_FIGURES = {"step", "epoch", "learning_rate", "grad_norm"}  # history keys that are neither losses nor metrics


def draw(folder: Path, metrics: Metrics) -> None:
    """Write the plots for the sections `evaluation`, `training` and `calibration` to `folder`/plots.

    The files are recall_at_k.png, intervals.png, images_per_class.png, per_class.png, history.png and reliability.png.
    Existing files of these names stay if they show the same figures; otherwise they are replaced, or deleted if there
    is no data for them.
    """
    wanted = _wanted(metrics)
    keys = {name: key_of(name, shown) for name, (shown, _) in wanted.items()}
    plots = folder / LAYOUT.plots
    for name in (f"{each}.png" for each in _DRAWN):
        if name in wanted and shows(plots / name, keys[name]):
            continue
        (plots / name).unlink(missing_ok=True)  # it may be a hard link shared with another artifact
        if name in wanted:
            save(wanted[name][1](), plots / name, keys[name])
    if plots.is_dir() and not any(plots.iterdir()):
        plots.rmdir()


def _wanted(metrics: Metrics) -> dict[str, tuple[object, Callable[[], Figure]]]:
    """The plots there is data for: name -> what it shows, as JSON, and a function that draws it."""
    wanted: dict[str, tuple[object, Callable[[], Figure]]] = {}
    if evaluation := metrics.evaluation:
        parts = evaluation.model_dump(mode="json", exclude={"classes"})
        wanted["recall_at_k.png"] = parts, partial(_curves, evaluation)
        wanted["intervals.png"] = parts, partial(_intervals, evaluation)
        if classes := evaluation.classes:
            rows = [row.model_dump(mode="json") for row in classes]
            wanted["images_per_class.png"] = rows, partial(_images_per_class, classes)
            wanted["per_class.png"] = rows, partial(_worst_classes, classes)
    history = metrics.training.history if metrics.training else []
    names = list(dict.fromkeys(name for entry in history for name in entry if name not in _NO_FIGURES))
    if names:
        wanted["history.png"] = history, partial(_history, history, names)
    if metrics.calibration:
        checked = metrics.calibration.checked
        wanted["reliability.png"] = checked.model_dump(mode="json"), partial(_reliability, checked)
    return wanted


def draw_comparison(path: Path, runs: Sequence[tuple[str, EvaluationSection]], names: Sequence[str]) -> None:
    """Write one plot comparing several runs, given as (name, evaluation): one panel for each metric in `names`, one row
    for each run."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = panels_of(rows, columns, width=3 + 3 * columns, height=rows * (1.2 + 0.35 * len(runs)))
    for axes, name in zip(panels, names, strict=False):
        for part, offset in (("seen", -0.12), ("unseen", 0.12)):
            parts = [(row + offset, run.parts()[part]) for row, (_, run) in enumerate(runs) if part in run.parts()]
            points = [(place, each.figures.by_name()[name]) for place, each in parts]
            if points:
                _bars(axes, *zip(*points, strict=True), part=part, upright=False)
        axes.set_yticks(range(len(runs)), [_short(run) for run, _ in runs], parse_math=False)
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_title(name)
        axes.set_xlabel("mean over the queries")
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", alpha=0.3)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    figure.suptitle("Runs compared (bars: 95% bootstrap intervals)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(figure, path)


def _curves(evaluation: EvaluationSection) -> Figure:
    figure, (axes,) = panels_of(1, 1, width=7, height=4.5)
    for key, part in (("seen", evaluation.seen), ("unseen", evaluation.unseen)):
        if part:
            curve, (name, colour, marker) = part.curve, _PARTS[key]
            axes.plot(curve.k, curve.hit, color=colour, marker=marker, label=f"hit@k, {name}")
            axes.plot(curve.k, curve.recall, color=colour, marker=marker, ls="--", label=f"recall@k, {name}")
    axes.set_xscale("log")
    ticks = evaluation.seen.curve.k
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("k, the number of images shown (log scale)")
    axes.set_ylabel("mean over the queries")
    axes.set_title("Hits and recall within the first k results")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _intervals(evaluation: EvaluationSection) -> Figure:
    figure, (axes,) = panels_of(1, 1, width=8, height=4.5)
    parts, names = evaluation.parts(), list(evaluation.seen.figures.by_name())
    for number, (key, part) in enumerate(parts.items()):
        offset = 0.16 * (number - (len(parts) - 1) / 2)
        points = list(part.figures.by_name().values())
        _bars(axes, [place + offset for place in range(len(names))], points, part=key, upright=True)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("metric")
    axes.set_ylabel("mean over the queries")
    axes.set_title("Metrics with 95% bootstrap intervals")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _bars(axes: Axes, places: Sequence[float], points: Sequence[Point], *, part: str, upright: bool) -> None:
    """Draw points with error bars for their intervals."""
    name, colour, marker = _PARTS[part]
    values = [point.value for point in points]
    spread = [[point.value - point.low for point in points], [point.high - point.value for point in points]]
    style: dict[str, Any] = {"fmt": marker, "color": colour, "capsize": 3, "markersize": 5, "label": name}
    if upright:
        axes.errorbar(places, values, yerr=spread, **style)
    else:
        axes.errorbar(values, places, xerr=spread, **style)


def _images_per_class(classes: Sequence[ClassFigures]) -> Figure:
    ordered = sorted(classes, key=lambda row: (-row.images, row.label))
    counts = [row.images for row in ordered]
    figure, (axes,) = panels_of(1, 1, width=8, height=4.5)
    axes.bar(range(len(counts)), counts, color=_BLUE, width=0.9)
    if len(counts) <= _NAMED:
        labels = [_short(row.label) for row in ordered]
        axes.set_xticks(range(len(counts)), labels, rotation=90, parse_math=False)
        axes.set_xlabel("class")
    else:
        axes.set_xlabel(f"the {len(counts)} classes, from the largest to the smallest")
    middle = sorted(counts)[len(counts) // 2]
    axes.axhline(middle, color=_VERMILION, ls="--", label=f"median: {middle:,} images")
    most, least = ordered[0], ordered[-1]
    axes.set_title(
        f"Training images per class: from {most.images:,} ({_short(most.label)}) to "
        f"{least.images:,} ({_short(least.label)})",
        parse_math=False,
    )
    axes.set_ylabel("images")
    axes.legend()
    return figure


def _worst_classes(classes: Sequence[ClassFigures]) -> Figure:
    worst = [row for row in classes if row.queries][:_WORST]
    figure, (axes,) = panels_of(1, 1, width=8, height=1.6 + 0.27 * len(worst))
    values = [row.map or 0.0 for row in worst]
    axes.barh(range(len(worst)), values, color=_BLUE, height=0.75)
    for place, (row, value) in enumerate(zip(worst, values, strict=True)):
        text = ""
        if row.confusions:
            label, count = row.confusions[0].label, row.confusions[0].count
            text = f"  confused with {'(no label)' if label is None else _short(label)} ({count} of {row.queries})  "
        # A long bar leaves no room beside it, so its text goes inside.
        inside = value > 0.5
        style: dict[str, Any] = {"ha": "right", "color": "white"} if inside else {"ha": "left", "color": _GREY}
        axes.text(value, place, text, va="center", fontsize=8, parse_math=False, **style)
    axes.set_yticks(range(len(worst)), [_short(row.label) for row in worst], parse_math=False)
    axes.set_ylim(len(worst) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("mAP")
    axes.set_ylabel("class")
    axes.set_title(f"The {len(worst)} classes with the lowest mAP, and what they are most often confused with")
    return figure


def _reliability(checked: Checked) -> Figure:
    figure, (axes, sizes) = panels_of(2, 1, width=6, height=6.5)
    curve = checked.reliability
    axes.plot([0, 1], [0, 1], color=_GREY, ls="--", label="perfect calibration")
    axes.plot(curve.chance, curve.share, color=_BLUE, marker="o", label="measured")
    axes.set_ylim(0, 1.03)
    axes.set_ylabel("share of hits of the same class")
    error = f"expected calibration error {checked.expected_calibration_error:.3f}"
    axes.set_title(f"Match probability and measured share\n({error})")
    axes.grid(alpha=0.3)
    axes.legend()
    sizes.bar(curve.chance, curve.pairs, width=0.04, color=_BLUE)
    sizes.set_xlim(0, 1.03)
    sizes.set_xlabel("match probability")
    sizes.set_ylabel("hits")
    return figure


def _history(history: Sequence[Mapping[str, Number | None]], names: Sequence[str]) -> Figure:
    figures = [name for name in names if name.startswith("validation")]
    losses = [name for name in names if name not in figures]
    shown = [(title, group) for title, group in (("loss", losses), ("validation", figures)) if group]
    figure, panels = panels_of(len(shown), 1, width=7, height=1 + 2.7 * len(shown))
    for axes, (title, group) in zip(panels, shown, strict=True):
        for number, name in enumerate(group):
            points = [(entry["step"], entry[name]) for entry in history if entry.get(name) is not None]
            marker = "osD^v"[number % 5] if len(points) < 60 else ""
            colour = (_BLUE, _VERMILION, _GREEN, _PURPLE, _GREY)[number % 5]
            label = name_of(name).removeprefix("validation").strip()
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=label)
        axes.set_xlabel("step")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0].set_title("Training history")
    return figure
