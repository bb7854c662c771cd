"""Compare runs: one table and one plot from the metrics in their artifacts.

The unseen figures of a recipe come from a second run with some classes held out. If both runs are given, they share one
row: seen figures of the run trained on all classes, unseen figures of its partner with held-out classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval.artifact.load import read_metrics
from retrieval.artifact.sections import EvaluationSection, Point, TrainingSection
from retrieval.build.change import update_metrics
from retrieval.console import command
from retrieval.errors import ArtifactError, IntegrityError, LookalikeError
from retrieval.evaluation.markdown import table, with_interval
from retrieval.evaluation.plots import draw_comparison

_FIGURES = ("hit@1", "P@5", "mAP", "MAP@R", "R-precision")
_PARTS = ("seen", "unseen")
# Settings that may differ between runs of the same recipe: held-out classes, texts, and what only affects speed.
_NO_MATTER = {"hold_out_classes", "about", "data_license", "threads", "workers", "cache_gb", "save_steps"}


@dataclass(frozen=True)
class _Run:
    """A finished run: its folder and two sections of its metrics.json."""

    folder: Path
    training: TrainingSection
    evaluation: EvaluationSection
    paired: bool = False
    """Whether the unseen figures were taken from a partner run."""

    @property
    def name(self) -> str:
        return f"{self.training.recipe or 'run'} ({self.folder.name})"

    @property
    def settings(self) -> dict[str, Any]:
        # Older runs lack newer keys: treat a missing key like null.
        return {
            key: value for key, value in self.training.settings.items() if key not in _NO_MATTER and value is not None
        }

    @property
    def recipe(self) -> tuple[Any, ...]:
        """The key that two runs share if they use the same recipe and dataset."""
        training, data = self.training, self.training.data
        # Folders of the same name can differ, so compare image counts; the parts include images of held-out classes.
        images = sum(data.split_sizes.values())
        return training.recipe, training.seed, data.source, data.about.get("revision"), images, self.settings

    def is_fellow_of(self, other: _Run) -> bool:
        """Whether this run is the same as `other`, but with classes held out."""
        held_out, theirs = self.training.data.held_out, other.training.data.held_out
        return self.recipe == other.recipe and bool(held_out) and not theirs

    def with_unseen_of(self, fellow: _Run) -> _Run:
        """This run with the unseen figures of its partner."""
        parts, run = fellow.evaluation.parts(), {"from_run": fellow.folder.name}
        names = ("unseen", "unseen_without_near_duplicates")
        unseen = {name: parts[name].model_copy(update=run) if name in parts else None for name in names}
        return replace(self, evaluation=self.evaluation.model_copy(update=unseen), paired=True)

    def point(self, part: str, name: str) -> Point | None:
        """The figure `name` of a part with its confidence interval; None if the run lacks that part."""
        found = self.evaluation.parts().get(part)
        return found.figures.by_name()[name] if found else None


def compare(folders: Sequence[Path], plot: Path | None = None) -> str:
    """A Markdown table with one row per run and the best value of each column in bold; optionally plotted to `plot`.

    Raises ArtifactError, with the folder, if one is not an artifact or has no evaluation, and LookalikeError if `plot`
    does not end in .png.
    """
    if plot and plot.suffix.lower() != ".png":
        raise LookalikeError(f"{plot}: the plot is a PNG file, so its name must end in .png.")
    runs = _paired(_read(folders))
    if plot:
        draw_comparison(plot, [(run.name, run.evaluation) for run in runs], _FIGURES)
    columns = [(part, name) for part in _PARTS for name in _FIGURES if any(run.point(part, name) for run in runs)]
    cells = [_column([run.point(*column) for run in runs]) for column in columns]
    rows = [[run.name, *row] for run, row in zip(runs, zip(*cells, strict=True), strict=True)]
    lines = table(["run", *(f"{part} {name}" for part, name in columns)], rows)
    return "\n".join([*lines, *_notes(runs)]) + "\n"


def update_cards(folders: Sequence[Path]) -> list[Path]:
    """Copy the unseen figures of a run with held-out classes into the artifact of its partner trained on all classes.

    Returns the changed folders; empty if no two runs are partners. Raises as `compare` does.
    """
    runs = [run for run in _paired(_read(folders)) if run.paired]
    for run in runs:
        update_metrics(run.folder, {"evaluation": run.evaluation})
    return [run.folder for run in runs]


def _read(folders: Sequence[Path]) -> list[_Run]:
    runs = []
    for folder in dict.fromkeys(each.resolve() for each in folders):
        try:
            metrics = read_metrics(folder)
        except IntegrityError as error:
            raise IntegrityError(f"{folder}: {error}") from error
        except ArtifactError as error:
            raise ArtifactError(
                f"{folder} does not contain a finished run: make one with `{command(f'train RECIPE --out {folder}')}`, "
                "adding --resume to finish one that was interrupted."
            ) from error
        if not metrics.evaluation:
            raise ArtifactError(
                f"{folder} is an artifact without an evaluation; `{command('train RECIPE --out DIR')}` makes artifacts "
                "with one."
            )
        runs.append(_Run(folder, metrics.training or TrainingSection(), metrics.evaluation))
    return runs


def _paired(runs: Sequence[_Run]) -> list[_Run]:
    """Merge each run with held-out classes into its partner trained on all classes, if that is among `runs`."""
    fellows: dict[Path, _Run] = {}
    for run in runs:
        for other in runs:
            if run.is_fellow_of(other) and other.folder not in fellows and run.evaluation.unseen:
                fellows[other.folder] = run
                break
    merged = {fellow.folder for fellow in fellows.values()}
    return [
        run.with_unseen_of(fellows[run.folder]) if run.folder in fellows else run
        for run in runs
        if run.folder not in merged
    ]


def _column(points: Sequence[Point | None]) -> list[str]:
    """The cells of a column, with the best value in bold; values equal after rounding tie."""
    values = [f"{point.value:.3f}" for point in points if point]
    best = max(values)
    cells = [with_interval(point) if point else "" for point in points]
    return [f"**{cell}**" if len(values) > 1 and cell.startswith(best) else cell for cell in cells]


def _notes(runs: Sequence[_Run]) -> list[str]:
    """Notes below the table: the origin of unseen figures, and runs measured on different images."""
    notes = [
        f"- unseen figures of {run.name}: from {run.evaluation.unseen.from_run}, with classes held out"
        for run in runs
        if run.evaluation.unseen and run.evaluation.unseen.from_run
    ]
    measured = [_measured(run) for run in runs]
    if len(set(measured)) > 1:
        notes += ["- not all runs were measured on the same images:"]
        notes += [f"  - {run.name}: {images}" for run, images in zip(runs, measured, strict=True)]
    return ["", *notes] if notes else []


def _measured(run: _Run) -> str:
    seen, source = run.evaluation.seen, run.training.data.source or "unknown source"
    images = (
        f"{seen.queries} queries from {run.evaluation.split}, {seen.images} gallery images ({run.evaluation.gallery})"
    )
    return f"{images}, {source}"
