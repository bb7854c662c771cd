"""Print the progress, figures and reports of commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retrieval.console import progress_bar

if TYPE_CHECKING:
    from retrieval.artifact.report import Report
    from retrieval.build.sync import SyncReport


class Bar:
    """Progress bar on standard error, with images per second and time left; occasional lines without a terminal."""

    def __enter__(self) -> Bar:
        self._bar = progress_bar(unit="images", smoothing=0.05, delay=0.5)
        self._started = False
        return self

    def __call__(self, done: int, total: int | None) -> None:
        """Show that `done` of `total` images are done; `total` is None if unknown."""
        if not self._started:
            self._bar.initial = self._bar.n = done - 1  # images done by an earlier run do not count as speed
            self._bar.total = total
            self._started = True
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_figures(figures: dict[str, Any], as_json: bool) -> None:
    """Print figures one per line, or as JSON."""
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        print(f"{name:<36} {f'{value:.4g}' if isinstance(value, float) else value}")


def print_report(report: Report | None) -> None:
    """Print the skipped and duplicate images of a source, one per line, and then the counts."""
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


def print_sync(report: SyncReport, dry_run: bool) -> None:
    """Print each change of a sync, one per line, and then the counts; unchanged images are only counted."""
    for name, sources in (("new", report.new), ("changed", report.changed), ("removed", report.removed)):
        for source in sources:
            print(f"{name} {source}")
    for source, reason in report.skipped:
        print(f"skipped {source}: {reason}")
    for source, same in report.duplicates:
        print(f"duplicate {source}: the same content as {same}")
    print(
        f"found {report.found} = new {len(report.new)} + changed {len(report.changed)} + unchanged {report.unchanged} "
        f"+ duplicate {len(report.duplicates)} + skipped {len(report.skipped)}; removed {len(report.removed)}"
    )
    if report.is_empty:
        print("the artifact is up to date")
    elif dry_run:
        print("nothing was written (--dry-run)")
