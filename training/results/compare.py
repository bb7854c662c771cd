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
    training: dict[str, Any]
    evaluation: dict[str, Any]
    paired: bool = False
    """Whether the unseen figures are those of a fellow that was given too."""

    @property
    def name(self) -> str:
        return f"{self.training.get('recipe', 'run')} ({self.folder.name})"

    @property
    def data(self) -> dict[str, Any]:
        return self.training.get("data") or {}

    @property
    def settings(self) -> dict[str, Any]:
        settings = self.training.get("settings") or {}
        # A key that has come since an older run was made is null in one that does not use it.
        return {key: value for key, value in settings.items() if key not in _NO_MATTER and value is not None}

    @property
    def commit(self) -> str | None:
        """Of a data set on the Hub."""
        return (self.data.get("about") or {}).get("revision")

    def is_fellow_of(self, other: _Run) -> bool:
        """Whether this run is the other one with some of the classes kept from it."""
        same = all(self.training.get(key) == other.training.get(key) for key in ("recipe", "seed"))
        same = same and self.data.get("source") == other.data.get("source") and self.settings == other.settings
        # Folders of one name can hold other images; the held-out ones are among the parts of a run that kept them, too.
        sizes = [sum((run.data.get("split sizes") or {}).values()) for run in (self, other)]
        same = same and self.commit == other.commit and sizes[0] == sizes[1]
        return same and bool(self.data.get("held out")) and not other.data.get("held out")

    def with_unseen_of(self, fellow: _Run) -> _Run:
        """This run with the other's figures of the classes that it had not."""
        others = {part: fellow.evaluation.get(part) for part in ("unseen", "unseen_without_near_duplicates")}
        others = {part: section and {**section, "from": fellow.folder.name} for part, section in others.items()}
        return replace(self, evaluation={**self.evaluation, **others}, paired=True)

    def point(self, part: str, name: str) -> dict[str, float] | None:
        """A figure with its interval; None where there is none."""
        section = self.evaluation.get(part)
        return section["figures"][name] if section else None


def compare(folders: Sequence[Path], plot: Path | None = None) -> str:
    """A Markdown table, a row a run, with the best of each column in bold; and the same as a picture at `plot`.

    Raises ArtifactError, naming the folder, where one is no artifact or has no evaluation, and LookalikeError for a
    picture that is to be no PNG file.
    """
    if plot and plot.suffix.lower() != ".png":
        raise LookalikeError(f"{plot}: the picture is a PNG file; give it a name that ends in .png.")
    runs = _paired(_read(folders))
    if plot:
        shown = [(run.name, {part: run.evaluation.get(part) for part in _PARTS}) for run in runs]
        draw_comparison(plot, shown, _FIGURES)
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
        if not metrics.get("evaluation"):
            raise ArtifactError(
                f"{folder} is an artifact without an evaluation; those that `python -m training RECIPE --out DIR` "
                "makes have one."
            )
        runs.append(_Run(folder, metrics.get("training") or {}, metrics["evaluation"]))
    return runs


def _paired(runs: Sequence[_Run]) -> list[_Run]:
    """The runs, those with held-out classes as part of a fellow that has all of them, where it is there."""
    fellows: dict[Path, _Run] = {}
    for run in runs:
        for other in runs:
            if run.is_fellow_of(other) and other.folder not in fellows and run.evaluation.get("unseen"):
                fellows[other.folder] = run
                break
    merged = {fellow.folder for fellow in fellows.values()}
    return [
        run.with_unseen_of(fellows[run.folder]) if run.folder in fellows else run
        for run in runs
        if run.folder not in merged
    ]


def _column(points: Sequence[dict[str, float] | None]) -> list[str]:
    """The cells of a column; what is best, as it is shown, is bold."""
    values = [f"{point['value']:.3f}" for point in points if point]
    best = max(values)
    cells = [with_interval(point) if point else "" for point in points]
    return [f"**{cell}**" if len(values) > 1 and cell.startswith(best) else cell for cell in cells]


def _notes(runs: Sequence[_Run]) -> list[str]:
    """What a reader of the table has to know besides: where figures come from, and what cannot be compared."""
    notes = [
        f"- unseen figures of {run.name}: from {run.evaluation['unseen']['from']}, with classes held out"
        for run in runs
        if (run.evaluation.get("unseen") or {}).get("from")
    ]
    measured = [_measured(run) for run in runs]
    if len(set(measured)) > 1:
        notes += ["- not all runs were measured on the same images:"]
        notes += [f"  - {run.name}: {images}" for run, images in zip(runs, measured, strict=True)]
    return ["", *notes] if notes else []


def _measured(run: _Run) -> str:
    seen = run.evaluation["seen"]
    split, gallery = run.evaluation.get("split"), run.evaluation.get("gallery")
    return f"{seen['queries']} of {split} in {seen['images']} of {gallery}, {run.data.get('source', 'no source named')}"
