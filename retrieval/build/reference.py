"""Embed a source for one comparison, without making an artifact of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from retrieval.artifact.report import Report
from retrieval.build.build import embed, report_of
from retrieval.console import Progress
from retrieval.encoders.image import Encoder
from retrieval.errors import SourceError
from retrieval.files.held import temporary_folder
from retrieval.images.gallery import Gallery, write_gallery
from retrieval.sources.base import Source
from retrieval.stores.base import Store
from retrieval.stores.choose import fit_index


@dataclass(frozen=True)
class Reference:
    """The images of a source, embedded: it can be compared like an artifact."""

    encoder: Encoder
    store: Store
    gallery: Gallery
    report: Report


@contextmanager
def embedded(source: Source, encoder: Encoder, progress: Progress | None = None) -> Iterator[Reference]:
    """Embed a source into a temporary folder, removed at the end; raises SourceError if it contains no image."""
    with temporary_folder() as folder:
        shards = embed(source, folder / "reference", encoder, None, None, progress, source.fingerprint)
        report = report_of(shards, source)
        if not report.indexed:
            raise SourceError(f"the reference contains no image that can be read; {report.found} were found.")
        files = write_gallery(folder / "gallery.parquet", shards.tables(), shards.schema)
        store = fit_index(shards.vectors(encoder.dim), "Flat")
        yield Reference(encoder, store, Gallery(files), report)
