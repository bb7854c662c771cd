"""Build: images -> embeddings -> index -> artifact.

Embeddings are written in shards as they are made, into a work folder beside the artifact, so that the same command
after a kill goes on where it was (see `retrieval.build.embed`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from retrieval.artifact.atomic import replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import check_target
from retrieval.artifact.map import PCA, check_method, write_map
from retrieval.artifact.report import Report
from retrieval.artifact.text import write_text
from retrieval.build.embed import Progress, Shards, embed_source
from retrieval.build.write import Draft, write_artifact
from retrieval.encoders.image import Encoder
from retrieval.encoders.text import TextEncoder
from retrieval.errors import SourceError
from retrieval.images.gallery import Gallery, write_gallery
from retrieval.images.sources import Source
from retrieval.stores.choose import fit_index
from retrieval.stores.faiss import AUTO, FaissStore


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
) -> Report:
    """Embed every image of a source and write the artifact `out`, in the place of one that may be there.

    `factory` is a FAISS index factory string, or AUTO to choose by size; `limit` stops after so many images.
    `text` has every thumbnail embedded by that model, too; `map_method` has a map stored, `pca`, `tsne` or `umap`.
    Raises ArtifactError where `out` holds something else or is being written, SourceError where no image could be
    indexed, MapError where the method's package is not here.
    """
    check_method(map_method or PCA)
    with building(source, Path(out), encoder, factory=factory, limit=limit, progress=progress) as (draft, report):
        draft.facts.update(write_map(draft.folder, draft.vectors, map_method))
        draft.facts.update(write_text(draft.folder, draft.gallery, text))
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
) -> Iterator[tuple[Draft, Report]]:
    """The same for whoever adds something to the draft, in the block: it becomes the artifact `out` when that ends."""
    check_target(out)
    FaissStore.check_factory(factory, encoder.dim)  # before hours of work
    with writing(out, LAYOUT.own()):
        shards = embed(source, out, encoder, {}, limit, progress, f"build {source.fingerprint} {limit}")
        report = report_of(shards)
        if not report.indexed:
            shards.clear()
            raise SourceError(_nothing(report))
        vectors = shards.vectors(encoder.dim)
        with replacing(out, LAYOUT.own()) as folder:
            encoder.save(folder)
            write_gallery(folder / LAYOUT.gallery, shards.tables(), shards.schema)
            gallery, store = Gallery(folder / LAYOUT.gallery), fit_index(vectors, factory)
            facts = {"build": {**report.summary(), "source": dict(source.about)}}
            draft = Draft(folder, encoder, store, gallery, vectors, facts)
            yield draft, report
            write_artifact(draft)
        shards.clear()


def embed(
    source: Source,
    out: Path,
    encoder: Encoder,
    known: dict[str, str],
    limit: int | None,
    progress: Progress | None,
    key: str,
) -> Shards:
    """Embed a source into shards beside the artifact `out`, those of an interrupted build with the same `key` first."""
    out = out.resolve()
    work = out.parent / f".{out.name}.building"
    shards = Shards(work, f"{key} {encoder.fingerprint}", source.schema)
    embed_source(source, encoder, shards, known=known, limit=limit, progress=progress)
    return shards


def report_of(shards: Shards) -> Report:
    """What became of the images that the shards account for."""
    facts = shards.facts()
    return Report(
        found=max((fact["consumed"] for fact in facts), default=0),
        indexed=sum(pq.read_metadata(path).num_rows for path in shards.files()),
        duplicates=[(source, same) for fact in facts for source, same in fact["duplicates"]],
        skipped=[(source, reason) for fact in facts for source, reason in fact["skipped"]],
    )


def _nothing(report: Report) -> str:
    if not report.found:
        return "the source has no image."
    first = f" The first: {report.skipped[0][0]}: {report.skipped[0][1]}" if report.skipped else ""
    return f"none of the {report.found} files found could be indexed.{first}"
