"""Sync: an artifact becomes what its source is now, and no image is embedded twice.

Images are recognised by their content, so a renamed file is the same image with another source. The source is read
twice: once to compare hashes, labels and attributes, and once more for the images that are new. Addresses are fetched
once: a new picture is kept on disk until it is embedded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.artifact.atomic import writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import Artifact, load_artifact
from retrieval.artifact.parts.map import map_method_of
from retrieval.artifact.report import SyncReport, without
from retrieval.build.build import embed, left_out_of, report_of, work_folder
from retrieval.build.change import followed, replaced
from retrieval.build.large.seen import seen_in
from retrieval.build.shards import FETCHED, clear_finished
from retrieval.console import Progress
from retrieval.errors import ImageError, SourceError
from retrieval.images.gallery import BASE_SCHEMA, ORIGINAL, conform, read_tables
from retrieval.images.open import open_image
from retrieval.sources.base import RawImage, Source
from retrieval.sources.lists.ahead import Fetched, ahead
from retrieval.sources.originals import with_originals

Hashes = dict[tuple[str, int, int, int] | None, str]
"""The SHA-256 of files, by path, inode, size, and time of the last change in nanoseconds."""

_OWN = frozenset({"id", "thumbnail", "sha256"})  # columns that come from the content of an image


@dataclass
class _Compared:
    """A source compared with a gallery, row by row."""

    report: SyncReport
    kept: dict[int, dict[str, Any]] = field(default_factory=dict)  # gallery row -> its values in the source now
    fresh: set[int] = field(default_factory=set)  # numbers of the source rows to embed
    named: set[str] = field(default_factory=set)  # sources of these that are files or addresses, not numbers of rows
    unread: set[str] = field(default_factory=set)  # sources that cannot be read now: their images stay as they are


def sync_artifact(
    folder: Path | str,
    source: Source,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    originals: bool = False,
    waiting: Collection[str] = (),
    hashes: Hashes | None = None,
) -> SyncReport:
    """Make an artifact what its source is now: new images are embedded, missing ones are removed.

    Changed sources, labels and attributes of known images are taken over. A known image stays as it is if its file is
    there but cannot be read or decoded, or its address cannot be fetched, unless the server says that it is gone. The
    artifact is replaced as a whole, and only if something has changed. Rows keep their order; new ones follow. With
    `dry_run`, nothing is written; new images are decoded but not embedded. `originals` is the same as in
    `build_artifact`, and always true if the gallery keeps originals already.

    For syncs that follow each other: `waiting` names the sources of files that are still being written, which are not
    read either; `hashes` remembers the hashes of files for the next call. Raises SourceError if no image of the source
    can be read, and the errors of `open_artifact`.
    """
    folder = Path(folder)
    with writing(folder, LAYOUT.own()):
        old = load_artifact(folder)
        map_method_of(old.manifest)  # fail before hours of work
        source = with_originals(source) if originals or ORIGINAL in old.gallery.table.column_names else source
        fetched = None if dry_run else Fetched(work_folder(folder) / FETCHED)
        compared = _compare(source, old, waiting, {} if hashes is None else hashes, fetched)
        report = compared.report
        if not (report.new or report.changed or report.unchanged):
            raise _nothing(report)
        if dry_run:
            return report
        if report.is_empty:
            clear_finished(work_folder(folder), "sync ")  # of one that was killed when all was done
            return report
        return _written(old, source, compared, progress)


def _compare(
    source: Source, old: Artifact, waiting: Collection[str], hashes: Hashes, fetched: Fetched | None
) -> _Compared:
    """Compare; new pictures of addresses are kept in `fetched`. Without it, new images are decoded, as a trial."""
    row_of = {sha256: row for row, sha256 in enumerate(old.gallery.table["sha256"].to_pylist())}
    names = [*BASE_SCHEMA.names, *source.schema.names]
    first: dict[str, str] = {}  # SHA-256 -> source, of new images
    found: dict[int, list[dict[str, Any]]] = {}  # gallery row -> the values of each source row with that content
    compared = _Compared(SyncReport(left_out=left_out_of(source)))
    report = compared.report
    with closing(ahead(source.rows())) as rows:
        for number, raw in enumerate(rows):
            if raw.source in waiting:
                compared.unread.add(raw.source)
                report.left_out.append((raw.source, "still being written", 1))
                continue
            try:
                sha256 = _hash_of(raw, hashes)
            except ImageError as error:
                report.skipped.append((raw.source, str(error)))
                if raw.is_away or _is_there(raw):
                    compared.unread.add(raw.source)
                continue
            if sha256 in row_of:
                found.setdefault(row_of[sha256], []).append(_values(raw, names))
            elif sha256 in first:
                report.duplicates.append((raw.source, first[sha256]))
            elif fetched is None and (problem := _problem_of(raw)):  # copies of it have the same
                report.skipped.append((raw.source, problem))
                compared.unread.update([raw.source] if raw.path else [])
            else:
                first[sha256] = raw.source
                report.new.append(raw.source)
                compared.fresh.add(number)
                if raw.path:
                    compared.named.add(raw.source)
                if fetched and raw.fetch and raw.path and raw.data is not None:
                    fetched.put(raw.path, raw.data)
    compared.report = _known(compared, found, old)
    return compared


def _known(compared: _Compared, found: dict[int, list[dict[str, Any]]], old: Artifact) -> SyncReport:
    """The report with the images that the artifact has; of several copies, the one that it was made from stays."""
    table, report, unchanged = old.gallery.table, compared.report, 0
    before = {name: table[name].to_pylist() for name in table.column_names if name not in _OWN}
    for row, copies in found.items():
        was = {name: column[row] for name, column in before.items()}
        now = next((copy for copy in copies if copy["source"] == was["source"]), copies[0])
        compared.kept[row] = now
        report.duplicates.extend((copy["source"], now["source"]) for copy in copies if copy is not now)
        if now == dict.fromkeys(now) | was:
            unchanged += 1
        else:
            report.changed.append(now["source"])
    return replace(report, unchanged=unchanged, removed=_removed(compared, old))


def _removed(compared: _Compared, old: Artifact) -> list[str]:
    """The sources of the images that are gone, once those that cannot be read now are kept as they are."""
    table = old.gallery.table
    for row, source in enumerate(table["source"].to_pylist()):
        if source in compared.unread and row not in compared.kept:
            compared.kept[row] = {name: table[name][row].as_py() for name in table.column_names if name not in _OWN}
    gone = [row for row in range(len(old.gallery)) if row not in compared.kept]
    return [item.source for item in old.gallery.take(gone)]


def _is_there(raw: RawImage) -> bool:
    """Whether an image that cannot be read is a file of this machine that exists."""
    try:
        return raw.path is not None and "://" not in raw.path and Path(raw.path).exists()
    except (OSError, ValueError):  # ValueError: a null byte
        return True


def _hash_of(raw: RawImage, hashes: Hashes) -> str:
    """The SHA-256 of the bytes of an image, from `hashes` if its file has not changed; raises ImageError."""
    key = None
    if raw.data is None and raw.path and "://" not in raw.path:
        with suppress(OSError, ValueError):  # reading it fails, too, and says why
            stat = Path(raw.path).stat()
            key = (raw.path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key in hashes:
        return hashes[key]
    found = hashlib.sha256(raw.read()).hexdigest()
    if key:
        hashes[key] = found
    return found


def _problem_of(raw: RawImage) -> str | None:
    """Why an image cannot be decoded, if it cannot."""
    try:
        open_image(raw.read())
    except ImageError as error:
        return str(error)
    return None


def _values(raw: RawImage, names: list[str]) -> dict[str, Any]:
    """The values of a row that do not come from the content of its image."""
    return {name: None for name in names if name not in _OWN} | {
        **raw.attributes,
        "label": raw.label,
        "source": raw.source,
    }


def _written(old: Artifact, source: Source, compared: _Compared, progress: Progress | None) -> SyncReport:
    schema = pa.unify_schemas([BASE_SCHEMA, source.schema])

    def fresh() -> Iterator[RawImage]:
        # Without positions: they would be those of all rows.
        return (replace(raw, position=None) for number, raw in enumerate(source.rows()) if number in compared.fresh)

    new = replace(source, rows=fresh, total=len(compared.fresh))
    key = f"sync {source.fingerprint} {old.manifest['manifest_sha256']}"
    shards = embed(new, old.folder, old.encoder, seen_in(old.gallery), None, progress, key)
    embedded = report_of(shards, source)
    compared.unread.update(name for name, _ in embedded.skipped if name in compared.named)
    report = replace(without(compared.report, embedded.skipped), removed=_removed(compared, old))
    if report.is_empty:  # none of the new files could be embedded: the next sync finds them again
        shards.clear()
        return report
    kept = np.array(sorted(compared.kept), np.int64)
    if not len(kept) and not embedded.indexed:
        shards.clear()
        raise _nothing(report)
    vectors = followed(old, kept, shards)
    tables = chain(_updated(old.gallery.files, compared.kept, schema), shards.tables())
    replaced(old, kept, vectors, tables, schema, {"sync": {**report.summary(), "source": dict(source.about)}})
    shards.clear()
    return report


def _nothing(report: SyncReport) -> SourceError:
    told = "the source has no readable image, so the artifact would become empty; nothing changed."
    for name, reason in report.skipped[:1]:
        told += f" The first: {name}: {reason}"
    return SourceError(told)


def _updated(files: Sequence[Path], kept: dict[int, dict[str, Any]], schema: pa.Schema) -> Iterator[pa.Table]:
    """The kept rows of the files of a gallery with their thumbnails and ids, and the values of the source."""
    rows = iter(sorted(kept))
    for table in read_tables(files, np.array(sorted(kept), np.int64)):
        values = [kept[next(rows)] for _ in range(len(table))]
        own = table.select(sorted(_OWN)).to_pylist()
        yield conform(pa.Table.from_pylist([mine | new for mine, new in zip(own, values, strict=True)], schema), schema)


__all__ = ["SyncReport", "sync_artifact"]
