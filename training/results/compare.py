"""Runs side by side: one table and one picture from the figures that lie in their artifacts.

The unseen figures of a recipe come from a second run with some classes kept from it. Where both runs are there they are
one row: seen figures from the run that learned from every class, and unseen ones from its fellow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval.artifact.load import read_metrics
from retrieval.artifact.sections import EvaluationSection, Point, TrainingSection
from retrieval.build.change import update_metrics
from retrieval.errors import ArtifactError, IntegrityError, LookalikeError
from retrieval.evaluation.markdown import table, with_interval
from retrieval.evaluation.plots import draw_comparison

_FIGURES = ("hit@1", "P@5", "mAP", "MAP@R", "R-precision")
_PARTS = ("seen", "unseen")
# Settings that two runs may differ in and yet be of one recipe: what was kept from it, and what only costs time.
_NO_MATTER = {"hold_out_classes", "about", "data_license", "threads", "workers", "cache_gb", "save_steps"}


@dataclass(frozen=True)
class _Run:
    """A finished run: its folder, and two sections of its metrics.json."""

    folder: Path
    training: TrainingSection
    evaluation: EvaluationSection
    paired: bool = False
    """Whether the unseen figures are those of a fellow that was given too."""

    @property
    def name(self) -> str:
        return f"{self.training.recipe or 'run'} ({self.folder.name})"

    @property
    def settings(self) -> dict[str, Any]:
        # A key that has come since an older run was made is null in one that does not use it.
        return {
            key: value for key, value in self.training.settings.items() if key not in _NO_MATTER and value is not None
        }

    @property
    def recipe(self) -> tuple[Any, ...]:
        """What two runs have in common if they are of one recipe and one data set."""
        training, data = self.training, self.training.data
        # Folders of one name can hold other images; the held-out ones are among the parts of a run that kept them, too.
        images = sum(data.split_sizes.values())
        return training.recipe, training.seed, data.source, data.about.get("revision"), images, self.settings

    def is_fellow_of(self, other: _Run) -> bool:
        """Whether this run is the other one with some of the classes kept from it."""
        held_out, theirs = self.training.data.held_out, other.training.data.held_out
        return self.recipe == other.recipe and bool(held_out) and not theirs

    def with_unseen_of(self, fellow: _Run) -> _Run:
        """This run with the other's figures of the classes that it had not."""
        parts, run = fellow.evaluation.parts(), {"from_run": fellow.folder.name}
        names = ("unseen", "unseen_without_near_duplicates")
        unseen = {name: parts[name].model_copy(update=run) if name in parts else None for name in names}
        return replace(self, evaluation=self.evaluation.model_copy(update=unseen), paired=True)

    def point(self, part: str, name: str) -> Point | None:
        """A figure with its interval; None where there is none."""
        found = self.evaluation.parts().get(part)
        return found.figures.by_name()[name] if found else None


def compare(folders: Sequence[Path], plot: Path | None = None) -> str:
    """A Markdown table, a row a run, with the best of each column in bold; and the same as a picture at `plot`.

    Raises ArtifactError, naming the folder, where one is no artifact or has no evaluation, and LookalikeError for a
    picture that is to be no PNG file.
    """
    if plot and plot.suffix.lower() != ".png":
        raise LookalikeError(f"{plot}: the picture is a PNG file; give it a name that ends in .png.")
    runs = _paired(_read(folders))
    if plot:
        draw_comparison(plot, [(run.name, run.evaluation) for run in runs], _FIGURES)
    columns = [(part, name) for part in _PARTS for name in _FIGURES if any(run.point(part, name) for run in runs)]
    cells = [_column([run.point(*column) for run in runs]) for column in columns]
    rows = [[run.name, *row] for run, row in zip(runs, zip(*cells, strict=True), strict=True)]
    lines = table(["run", *(f"{part} {name}" for part, name in columns)], rows)
    return "\n".join([*lines, *_notes(runs)]) + "\n"


def update_cards(folders: Sequence[Path]) -> list[Path]:
    """Put the unseen figures of a run with held-out classes into the artifact of its fellow that has all classes.

    Returns the folders that were changed: none where no two of the runs belong together. Raises as `compare` does.
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
                f"{folder} holds no finished run: `python -m training RECIPE --out {folder}` makes one, and with "
                "--resume ends one that was broken off."
            ) from error
        if not metrics.evaluation:
            raise ArtifactError(
                f"{folder} is an artifact without an evaluation; those that `python -m training RECIPE --out DIR` "
                "makes have one."
            )
        runs.append(_Run(folder, metrics.training or TrainingSection(), metrics.evaluation))
    return runs


def _paired(runs: Sequence[_Run]) -> list[_Run]:
    """The runs, those with held-out classes as part of a fellow that has all of them, where it is there."""
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
    """The cells of a column; what is best, as it is shown, is bold."""
    values = [f"{point.value:.3f}" for point in points if point]
    best = max(values)
    cells = [with_interval(point) if point else "" for point in points]
    return [f"**{cell}**" if len(values) > 1 and cell.startswith(best) else cell for cell in cells]


def _notes(runs: Sequence[_Run]) -> list[str]:
    """What a reader of the table has to know besides: where figures come from, and what cannot be compared."""
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
    seen, source = run.evaluation.seen, run.training.data.source or "no source named"
    return f"{seen.queries} of {run.evaluation.split} in {seen.images} of {run.evaluation.gallery}, {source}"
