"""Build: images -> embeddings -> index -> artifact.

Embeddings are written in shards to a work folder next to the artifact. After an interruption, the same command resumes
from the last shard (see `retrieval.build.embed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from retrieval.arrays import Vectors
from retrieval.artifact.atomic import replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import check_target
from retrieval.artifact.parts.exported import write_int8
from retrieval.artifact.parts.map import PCA, check_method, write_map
from retrieval.artifact.parts.text import write_text
from retrieval.artifact.report import Report
from retrieval.build.embed import embed_source
from retrieval.build.large.seen import Seen
from retrieval.build.precision.calibration import check_float32, check_int8, quantized
from retrieval.build.precision.comparison import check_loss, compared
from retrieval.build.shards import Shards
from retrieval.build.write import Draft, write_artifact
from retrieval.console import Progress
from retrieval.encoders.engines.base import Precision
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, SourceError
from retrieval.files.names import beside
from retrieval.files.storing import storing
from retrieval.images.gallery import Gallery, write_gallery
from retrieval.sources.base import Source
from retrieval.sources.originals import with_originals
from retrieval.stores.choose import fit_index
from retrieval.stores.faiss import AUTO, FaissStore

if TYPE_CHECKING:
    from retrieval.encoders.text.encoder import TextEncoder


def build_artifact(
    source: Source,
    out: Path | str,
    encoder: Encoder,
    *,
    factory: str = AUTO,
    limit: int | None = None,
    progress: Progress | None = None,
    text: TextEncoder | None = None,
    map_method: str | None = None,
    originals: bool = False,
    precision: Precision = "float32",
    accept_loss: bool = False,
) -> Report:
    """Embed every image of a source and write the artifact `out`, replacing an existing artifact.

    Only the command `build` asks for `--force` before it replaces an artifact; a program has to check `out` itself.
    `factory` is a FAISS index factory string, or AUTO to choose one by size. `limit` is the maximum number of source
    images to read. With `text`, every thumbnail is also embedded by that model, for text queries. `map_method` (`pca`,
    `tsne` or `umap`) adds a map. With `originals`, the gallery keeps where each original lies: a path below
    the source's folder, or a web address without secrets. With the `precision` int8, the encoder is quantized on images
    of the source; if mAP on the gallery then falls by more than 0.005, PrecisionError is raised, unless `accept_loss`.
    Raises ArtifactError if `out` holds other files or is being written, SourceError if no image could be indexed,
    MissingExtraError if the map method or NNCF is not installed, and StoreError for an invalid `factory`.
    """
    check_method(PCA if map_method is None else map_method)
    source = with_originals(source) if originals else source
    options: dict[str, Any] = {"factory": factory, "limit": limit, "progress": progress}
    int8: dict[str, Any] = {"precision": precision, "accept_loss": accept_loss}
    with building(source, Path(out), encoder, **options, **int8) as (draft, report):
        draft.facts.update(write_map(draft.folder, draft.vectors, map_method))
        draft.facts.update(write_text(draft.folder, draft.gallery, text, draft.encoder, draft.store))
    return report


@contextmanager
def building(
    source: Source,
    out: Path,
    encoder: Encoder,
    *,
    factory: str = AUTO,
    limit: int | None = None,
    progress: Progress | None = None,
    precision: Precision = "float32",
    accept_loss: bool = False,
) -> Iterator[tuple[Draft, Report]]:
    """Like `build_artifact`, but yields the draft so the caller can add to it; the end of the block writes `out`."""
    check_target(out)
    FaissStore.check_factory(factory, encoder.dim)  # fail before hours of work
    check_float32(encoder)
    engine = check_int8(encoder) if precision == "int8" else None  # for the same reason
    encoder.use_fastest()
    with writing(out, LAYOUT.own()):
        float32, network = encoder, None
        if engine:
            encoder, network = quantized(float32, engine, source, work_folder(out), limit)
        shards = embed(source, out, encoder, None, limit, progress, f"build {source.fingerprint}")
        report = report_of(shards, source)
        if not report.indexed:
            shards.clear()
            raise nothing_indexed(report)
        with finishing(out, encoder, shards, report, source.about, factory) as draft:
            if network:
                check_loss(found := compared(float32, encoder, draft.gallery), accept=accept_loss)
                draft.facts.update(write_int8(draft.folder, network, found))
            yield draft, report
        shards.clear()


class Embedded(Protocol):
    """The images of an artifact to be written, embedded: the rows of its gallery, and their vectors."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of the gallery."""

    def tables(self) -> Iterator[pa.Table]:
        """The rows of the gallery, in order."""

    def vectors(self, dim: int) -> Vectors:
        """Their (N, D) float32 vectors."""


@contextmanager
def finishing(
    out: Path, encoder: Encoder, embedded: Embedded, report: Report, about: Mapping[str, str], factory: str
) -> Iterator[Draft]:
    """Write an artifact from embedded images; use this inside `writing`.

    Yields the draft, to which more can be added; the end of the block writes `out`. `about` is that of the source.
    """
    vectors = embedded.vectors(encoder.dim)
    with replacing(out, LAYOUT.own()) as folder:
        with storing(folder / LAYOUT.weights, ArtifactError, needed=encoder.size):
            encoder.save(folder)
        gallery = Gallery(write_gallery(folder / LAYOUT.gallery, embedded.tables(), embedded.schema))
        store = fit_index(vectors, factory)
        facts = {"build": {**report.summary(), "source": dict(about)}}
        draft = Draft(folder, encoder, store, gallery, vectors, facts)
        yield draft
        write_artifact(draft)


def embed(
    source: Source,
    out: Path,
    encoder: Encoder,
    known: Seen | None,
    limit: int | None,
    progress: Progress | None,
    key: str,
) -> Shards:
    """Embed a source into shards next to the artifact `out`, resuming an interrupted build.

    `key` identifies the kind of build and the source. With the same key, reading resumes where it stopped. With another
    key but the same encoder, embeddings of images with the same content are reused. `known` are the names of images to
    treat as duplicates, by their SHA-256.
    """
    shards = Shards(work_folder(out), key, encoder.fingerprint, source.schema)
    try:
        embed_source(source, encoder, shards, known=known, limit=limit, progress=progress)
    except BaseException:
        shards.clear_empty()
        raise
    shards.forget()
    return shards


def work_folder(out: Path) -> Path:
    """The folder for the unfinished work of a build, next to the artifact `out`."""
    return beside(out.resolve(), "building")


def report_of(shards: Shards, source: Source) -> Report:
    """Counts for the images recorded in the shards, and what the source leaves out."""
    left_out = left_out_of(source)
    found, duplicates, skipped = 0, [], []
    for fact in shards.facts():
        found = max(found, fact["consumed"])
        duplicates += [(name, same) for name, same in fact["duplicates"]]
        skipped += [(name, reason) for name, reason in fact["skipped"]]
    found += sum(count for _, _, count in left_out)
    return Report(found, shards.count, duplicates, skipped, left_out)


def left_out_of(source: Source) -> list[tuple[str, str, int]]:
    """What a source leaves out, as reports list it: name, reason and count."""
    return [(left.name, left.reason, left.count) for left in source.left_out]


def nothing_indexed(report: Report) -> SourceError:
    """The error for a source of which no image could be indexed, with the first reason."""
    if not report.found:
        return SourceError("the source has no images.")
    first = f" The first one: {report.skipped[0][0]}: {report.skipped[0][1]}" if report.skipped else ""
    return SourceError(f"none of the {report.found} files found could be indexed.{first}")
