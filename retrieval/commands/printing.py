"""Print the progress, figures and reports of commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retrieval.console import progress_bar, say

if TYPE_CHECKING:
    from retrieval.artifact.report import Report
    from retrieval.build.sync import SyncReport
    from retrieval.sources.base import Source


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


def one_line(text: str) -> str:
    """A text without line ends and other control characters, which a file name may contain: they print as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def noted(source: Source) -> Source:
    """Print to standard error what is known of a source before the first image is read; returns the source."""
    for note in source.notes:
        say(one_line(f"note: {note}"))
    return source


def print_report(report: Report | None) -> None:
    """Print the images of a source that were skipped, duplicates or left out, one per line, and then the counts."""
    if report is None:
        return
    _print_others(report)
    print(
        f"found {report.found} = indexed {report.indexed} + skipped {len(report.skipped)} "
        f"+ duplicate {len(report.duplicates)} + left out {sum(count for _, _, count in report.left_out)}"
    )


def print_sync(report: SyncReport, dry_run: bool) -> None:
    """Print each change of a sync, one per line, and then the counts; unchanged images are only counted."""
    for name, sources in (("new", report.new), ("changed", report.changed), ("removed", report.removed)):
        for source in sources:
            print(one_line(f"{name} {source}"))
    _print_others(report)
    print(
        f"found {report.found} = new {len(report.new)} + changed {len(report.changed)} + unchanged {report.unchanged} "
        f"+ skipped {len(report.skipped)} + duplicate {len(report.duplicates)} "
        f"+ left out {sum(count for _, _, count in report.left_out)}; removed {len(report.removed)}"
    )
    if report.is_empty:
        print("the artifact is up to date")
    elif dry_run:
        print("nothing was written (--dry-run)")


def _print_others(report: Report | SyncReport) -> None:
    for source, reason in report.skipped:
        print(one_line(f"skipped {source}: {reason}"))
    for source, same in report.duplicates:
        print(one_line(f"duplicate {source}: the same content as {same}"))
    for name, reason, _ in report.left_out:
        print(one_line(f"left out {name}: {reason}"))
