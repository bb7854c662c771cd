"""Merging the parts of a build into one artifact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.arrays import Vectors
from retrieval.artifact.atomic import writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import check_target
from retrieval.artifact.parts.map import PCA, check_method, write_map
from retrieval.artifact.parts.text import write_text
from retrieval.artifact.report import Report
from retrieval.build.build import finishing, nothing_indexed
from retrieval.build.large.seen import FileRows, Hashes
from retrieval.build.parts.check import read_parts
from retrieval.build.parts.folder import BuiltPart
from retrieval.build.shards import ROW, VECTOR, facts_of, vectors_in
from retrieval.encoders.image import Encoder
from retrieval.errors import IntegrityError
from retrieval.files.stacked import stacked
from retrieval.stores.faiss import AUTO, FaissStore

if TYPE_CHECKING:
    from retrieval.encoders.text.encoder import TextEncoder


def merge_parts(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    factory: str = AUTO,
    text: TextEncoder | None = None,
    map_method: str | None = None,
) -> Report:
    """Write the artifact `out` from all parts that `build_part` wrote, replacing an existing artifact.

    The artifact is the same, byte for byte, as that of one `build_artifact` of the source on such a machine, and so is
    the report. The order of `folders` does not matter; they stay as they are. `factory`, `text` and `map_method` are
    those of `build_artifact`. Raises ArtifactError if a folder is no part, a part is missing or there twice, or two
    parts are of different builds, IntegrityError if a part is damaged, SourceError if no image could be indexed, and
    the errors of `build_artifact` for `out` and the options.
    """
    out = Path(out)
    check_method(PCA if map_method is None else map_method)
    check_target(out)
    parts = read_parts([Path(folder) for folder in folders])
    FaissStore.check_factory(factory, parts[0].stated["encoder"]["dimension"])
    encoder = _encoder(parts[0])
    with writing(out, LAYOUT.own()):
        merged = Merged(parts, out.resolve().parent)
        if not merged.report.indexed:
            raise nothing_indexed(merged.report)
        about = parts[0].stated["source"]["about"]
        with finishing(out, encoder, merged, merged.report, about, factory) as draft:
            draft.facts.update(write_map(draft.folder, draft.vectors, map_method))
            draft.facts.update(write_text(draft.folder, draft.gallery, text, encoder, draft.store))
    return merged.report


class Merged:
    """The rows of all parts in the order of the source, without those that an earlier part has, too."""

    def __init__(self, parts: Sequence[BuiltPart], place: Path) -> None:
        """`place` is a folder with room for their vectors."""
        self._place = place
        own = {VECTOR, ROW}
        first = pq.read_schema(parts[0].files()[0]).remove_metadata()
        self.schema = pa.schema([column for column in first if column.name not in own])
        self._hashes, self._rows = Hashes(), FileRows(["sha256", "source"])  # of all files, also of rows that go
        self._kept: list[tuple[Path, Any]] = []  # the files, with the rows of each that stay
        duplicates: list[tuple[str, str]] = []
        for part in parts:
            duplicates += self._take(part)
        self._hashes, self._rows = Hashes(), FileRows([])  # the memory is needed for other things
        reports = [part.report() for part in parts]
        left_out = [(name, reason, count) for name, reason, count in parts[0].stated["source"]["left_out"]]
        self.report = Report(
            found=sum(report.found for report in reports) + sum(count for _, _, count in left_out),
            indexed=self._count(),
            duplicates=duplicates,
            skipped=[pair for report in reports for pair in report.skipped],
            left_out=left_out,
        )

    def _take(self, part: BuiltPart) -> list[tuple[str, str]]:
        """Take over a part; returns its duplicates, in the order of the source."""
        found: list[tuple[int, str, str]] = []  # row, source, SHA-256
        for path in part.files():
            table = pq.read_table(path, columns=["sha256", "source", ROW])
            hashes, names, rows = (table[column].to_pylist() for column in ("sha256", "source", ROW))
            # A part has an image once, so what was seen before is of an earlier part.
            stays = ~self._hashes.likely(hashes)
            stays[~stays] = [self._first(hashes[row]) is None for row in np.flatnonzero(~stays).tolist()]
            found += [copy for copy, stay in zip(zip(rows, names, hashes, strict=True), stays, strict=True) if not stay]
            self._rows.add(path, len(hashes))
            self._hashes.add(hashes)
            facts = facts_of(path)
            for (number, sha256), (name, _) in zip(facts["copies"], facts["duplicates"], strict=True):
                found.append((number, name, sha256))
            self._kept.append((path, stays))
        return [(name, str(self._first(sha256))) for _, name, sha256 in sorted(found)]

    def _first(self, sha256: str) -> str | None:
        """The source of the first image with this content; None if it was not there yet."""
        for row in sorted(self._hashes.rows(sha256)):
            values = self._rows.get(row)
            if values["sha256"].as_py() == sha256:
                return str(values["source"].as_py())
        return None

    def tables(self) -> Iterator[pa.Table]:
        """The rows of each file, without the vectors."""
        for path, stays in self._kept:
            yield pq.read_table(path, columns=self.schema.names).filter(pa.array(stays))

    def vectors(self, dim: int) -> Vectors:
        """All vectors, (N, D) float32, in row order; many are in a file next to the artifact."""
        parts = (vectors_in(path, dim)[stays] for path, stays in self._kept)
        return stacked(self._place, self._count(), dim, parts)

    def _count(self) -> int:
        return int(sum(stays.sum() for _, stays in self._kept))


def _encoder(part: BuiltPart) -> Encoder:
    """The encoder of the build, which the first part holds."""
    encoder = Encoder.load(part.folder, engine="torch")
    stated = part.stated["encoder"]["fingerprint"]
    if encoder.fingerprint != stated:
        raise IntegrityError(
            f"{part.folder}: the encoder has the fingerprint {encoder.fingerprint[:12]}, and the part states "
            f"{str(stated)[:12]}: build the part again with --force."
        )
    encoder.use_fastest()
    return encoder
