"""Printing: progress, figures and reports, as the commands show them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retrieval.console import progress_bar

if TYPE_CHECKING:
    from retrieval.artifact.report import Report


class Bar:
    """Progress on standard error: images a second and the time left; a line now and then where it is no terminal."""

    def __enter__(self) -> Bar:
        self._bar = progress_bar(unit="images", smoothing=0.05, delay=0.5)
        self._started = False
        return self

    def __call__(self, done: int, total: int | None) -> None:
        """Show that `done` images of `total` are done; None where it is not known how many there are."""
        if not self._started:
            self._bar.initial = self._bar.n = done - 1  # what an earlier run has done does not count as speed
            self._bar.total = total
            self._started = True
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def print_json(value: Any) -> None:
    """A value as JSON that a person can read, too."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_figures(figures: dict[str, Any], as_json: bool) -> None:
    """A line a figure, or JSON."""
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        print(f"{name:<36} {f'{value:.4g}' if isinstance(value, float) else value}")


def print_report(report: Report | None) -> None:
    """What became of the images of a source: a line for each that was left out, and how many there were of each."""
    if report is None:
        return
    for source, reason in report.skipped:
        print(f"skipped {source}: {reason}")
    for source, same in report.duplicates:
        print(f"duplicate {source}: the same content as {same}")
    print(
        f"found {report.found} = indexed {report.indexed} + skipped {len(report.skipped)} "
        f"+ duplicate {len(report.duplicates)}"
    )
