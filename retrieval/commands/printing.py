"""Print the progress, figures and reports of commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.console import command, progress_bar, say, writes_all
from retrieval.errors import short
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.artifact.report import Report
    from retrieval.build.sync import SyncReport
    from retrieval.sources.base import Source

_SYNCED = ("new", "changed", "unchanged", "removed")  # counts of a sync in the manifest
_LONGEST = 60  # characters of an example
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


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
    """Print a value as indented JSON; a date as text."""
    print(json.dumps(value, indent=2, ensure_ascii=not writes_all(), default=str))


def one_line(text: str) -> str:
    """The text with line ends and other control characters escaped, which a file name or a value may contain."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def print_figures(figures: dict[str, Any], as_json: bool) -> None:
    """Print figures one per line, or as JSON."""
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        print(f"{name:<36} {f'{value:.4g}' if isinstance(value, float) else value}")


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


def print_unlike(count: int, artifact: object) -> None:
    """Say that `add` leaves images of the gallery as they are, although the source has other values for them."""
    if count:
        other = "another label or attribute" if count == 1 else "other labels or attributes"
        print(f"the source has {other} for {counted(count, 'image')} of the gallery, which add does not change;")
        print(f"`{command(f'sync {artifact} SOURCE')}` takes them over, and removes images that SOURCE does not have")


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


def print_built(report: Report, out: Path) -> None:
    """Print what a build found, and how to serve it."""
    print_report(report)
    print_originals(out)
    print(f"{out} is ready; serve it: {command(f'serve --artifact {out}')}")


def print_originals(folder: Path) -> None:
    """Print how many images of an artifact have an original, if it keeps where they lie."""
    import pyarrow.parquet as pq

    from retrieval.artifact.layout import LAYOUT
    from retrieval.images.gallery import ORIGINAL

    files = [folder / name for name in LAYOUT.gallery_in(folder)]
    if ORIGINAL not in pq.read_schema(files[0]).names:
        return
    columns = [pq.read_table(path, columns=[ORIGINAL])[ORIGINAL] for path in files]
    count, missing = sum(map(len, columns)), sum(column.null_count for column in columns)
    why = "; images inside archives or parquet files have none" if missing else ""
    print(f"originals: kept for {count - missing:,} of {counted(count, 'image')}{why}")


def _print_others(report: Report | SyncReport) -> None:
    for source, reason in report.skipped:
        print(one_line(f"skipped {source}: {reason}"))
    for source, same in report.duplicates:
        print(one_line(f"duplicate {source}: the same content as {same}"))
    for name, reason, _ in report.left_out:
        print(one_line(f"left out {name}: {reason}"))


def info_lines(facts: dict[str, Any]) -> Iterator[str]:
    """The facts about an artifact that `info` prints, one line each; see there for the keys."""
    return map(one_line, _info_lines(facts))


def _info_lines(facts: dict[str, Any]) -> Iterator[str]:
    from retrieval.encoders.presets.licences import weights_in
    from retrieval.images.columns import to_json

    yield f"{facts['artifact']}: {counted(facts['rows'], 'image')}, {facts['bytes'] / 1e6:.1f} MB"
    yield f"encoder  {facts['encoder']['architecture']}, {facts['dimension']} dimensions"
    if weights := weights_in(facts["encoder"]):
        yield f"weights  {weights.name}, licence {weights.license or 'none'}"
    yield f"index    {facts['index']['factory']}"
    if facts["text"]:
        of = weights_in(facts["text"])
        more = f", with {of.name}, licence {of.license or 'none'}" if of else ""
        yield f"words    searches by words are possible{more}"
    if facts["map"]:
        yield f"map      {facts['map']['method']}"
    if facts["build"]:
        yield f"source   {_told(facts['build'])}"
    for change in facts["changes"]:
        for kind, what in change.items():
            yield f"change   {kind}: {_told(what)}"
    yield ""
    yield "columns"
    for column in facts["columns"]:
        examples = ", ".join(short(to_json(value), _LONGEST) for value in column["examples"])
        missing = f", none in {counted(column['missing'], 'row')}" if column["missing"] else ""
        count = f"{counted(column['values'], 'value')}{missing}"
        yield f"  {column['name']:<20}  {column['type']:<8}  {count}: {examples}".removesuffix(": ")
    yield ""
    yield "files"
    for name, size in facts["files"].items():
        yield f"  {name:<30}  {size:>15,} bytes"


def _told(what: Any) -> str:
    """A build or a change as the manifest states it, in words."""
    if not (isinstance(what, dict) and "source" in what):
        return counted(what, "image") if isinstance(what, int) else ", ".join(map(str, what))
    name = what["source"].get("name", "unnamed")
    if "unchanged" in what:  # a sync
        return f"{name}: " + ", ".join(f"{_number(what[key])} {key}" for key in _SYNCED)
    counts = f"indexed {what['indexed']} + skipped {_number(what['skipped'])} + duplicate {what['duplicates']}"
    left_out = sum(count for _, _, count in what.get("left_out", []))
    return f"{name}: found {what['found']} = {counts}{f' + left out {left_out}' if left_out else ''}"


def _number(what: Any) -> str:
    return f"{what if isinstance(what, int) else len(what):,}"
