"""Changes of an artifact: images added and taken out, figures and card written anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.artifact.atomic import replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import Artifact, load_artifact
from retrieval.artifact.map import MAP, map_method_of, write_map
from retrieval.artifact.metrics import Metrics, new_metrics
from retrieval.artifact.text import TEXT, rewrite_text
from retrieval.build.build import embed, report_of
from retrieval.build.embed import Progress
from retrieval.build.write import (
    CALIBRATION,
    LEAVE_ONE_OUT,
    REPOSITORY,
    Draft,
    link,
    write_artifact,
    write_description,
)
from retrieval.errors import QueryError
from retrieval.images.gallery import Gallery, joined, read_tables, write_gallery
from retrieval.images.sources import Source
from retrieval.stores.base import Ids, Vectors
from retrieval.stores.choose import fit_index


def add_images(
    folder: Path | str, source: Source, *, limit: int | None = None, progress: Progress | None = None
) -> Artifact:
    """Add the images of a source to an artifact; returns the new one, whose `report` says what became of them.

    An image whose content the artifact has is a duplicate, and nothing is embedded again. The index keeps its training;
    where it was chosen by size and is now too small for its rows, it is made anew. Raises SourceError where a column
    holds another type of values than the gallery's, and what `open_artifact` raises.
    """
    folder = Path(folder)
    with writing(folder, LAYOUT.own()):
        old = load_artifact(folder)
        map_method_of(old.manifest)  # before hours of work
        known = dict(zip(old.gallery.table["sha256"].to_pylist(), old.gallery.ids, strict=True))
        schema = joined(pq.read_schema(folder / LAYOUT.gallery), source.schema)  # before hours of work
        key = f"add {source.fingerprint} {limit} {old.manifest['manifest_sha256']}"
        shards = embed(source, folder, old.encoder, known, limit, progress, key)
        new, report = old, report_of(shards)
        if report.indexed:
            kept = np.arange(len(old.store))
            vectors = np.concatenate([old.store.vectors(kept), shards.vectors(old.store.dim)])
            tables = chain(read_tables(folder / LAYOUT.gallery, kept), shards.tables())
            change = {"add": {**report.summary(), "source": dict(source.about)}}
            new = _replaced(old, kept, vectors, tables, schema, change)
        shards.clear()
    return replace(new, report=report)


def remove_images(folder: Path | str, ids: Collection[str]) -> Artifact:
    """Take images out of an artifact by their ids; returns the new one.

    Raises QueryError for an id that the gallery does not have (then nothing is changed), or where none would be left,
    and what `open_artifact` raises.
    """
    if isinstance(ids, str):
        raise QueryError(f"the ids of the images to remove are a list, [{ids!r}] for one, not a text.")
    folder = Path(folder)
    with writing(folder, LAYOUT.own()):
        old = load_artifact(folder)
        map_method_of(old.manifest)  # before hours of work
        gone = {old.gallery.row_of(image_id) for image_id in ids}
        kept = np.array([row for row in range(len(old.gallery)) if row not in gone], np.int64)
        if not len(kept):
            raise QueryError("an artifact has at least one image; to remove them all, delete its folder.")
        path = folder / LAYOUT.gallery
        tables, schema = read_tables(path, kept), pq.read_schema(path)
        return _replaced(old, kept, old.store.vectors(kept), tables, schema, {"remove": len(gone)})


def update_metrics(folder: Path, sections: dict[str, Any]) -> Artifact:
    """Put sections into the metrics.json of an artifact, in the place of those of the same name; returns the new one.

    Card and plots are made anew from them; the rest stays as it is. Raises what `open_artifact` raises.
    """
    with writing(folder, LAYOUT.own()):
        old = load_artifact(folder)
        metrics = new_metrics({**old.metrics.sections(), **sections})
        return _described(old, metrics, _facts(old, {"metrics": sorted(sections)}))


def name_card(artifact: Artifact, repository: str) -> Artifact:
    """Have an artifact's card name the repository on the Hub that it goes to; to be used inside `writing`."""
    if artifact.manifest.get(REPOSITORY) == repository:
        return artifact
    return _described(artifact, artifact.metrics, {**_facts(artifact), REPOSITORY: repository})


def _described(old: Artifact, metrics: Metrics, facts: dict[str, Any]) -> Artifact:
    """The artifact with these figures, and plots, card and manifest made from them; the rest is shared with the old."""
    with replacing(old.folder, LAYOUT.own()) as folder:
        own = (LAYOUT.config, LAYOUT.weights, LAYOUT.index, LAYOUT.gallery)
        link(old.folder, folder, [*own, *LAYOUT.extras_in(old.folder)])
        new = write_description(folder, old.encoder, old.store, old.gallery, metrics, facts)
    return replace(new, folder=old.folder, name=old.name)


def _replaced(
    old: Artifact,
    kept: Ids,
    vectors: Vectors,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    change: dict[str, Any],
) -> Artifact:
    """The artifact with the rows `kept` of the old one, and others after them; encoders and figures of training stay.

    `vectors` and `tables` are those of all the rows.
    """
    store = fit_index(vectors, old.store.settings.factory, like=old.store)
    sections = {name: section for name, section in old.metrics.sections().items() if name != LEAVE_ONE_OUT}
    if not (sections[CALIBRATION] and sections[CALIBRATION].held_out):
        sections.pop(CALIBRATION)
    with replacing(old.folder, LAYOUT.own()) as folder:
        models = [LAYOUT.config, LAYOUT.weights, *LAYOUT.text_in(old.folder)]
        shared = [name for name in [*models, *LAYOUT.plots_in(old.folder)] if name != LAYOUT.text_index]
        link(old.folder, folder, shared)
        write_gallery(folder / LAYOUT.gallery, tables, schema)
        gallery = Gallery(folder / LAYOUT.gallery)
        facts = _facts(old, change) | write_map(folder, vectors, map_method_of(old.manifest))
        facts |= rewrite_text(folder, gallery, old.text, kept)
        new = write_artifact(Draft(folder, old.encoder, store, gallery, vectors, facts, sections))
    return replace(new, folder=old.folder, name=old.name)


def _facts(artifact: Artifact, *changes: dict[str, Any]) -> dict[str, Any]:
    """The manifest keeps how the artifact was built, where it was pushed, and a list of what was changed since."""
    kept = {name: artifact.manifest[name] for name in ("build", REPOSITORY, MAP, TEXT) if name in artifact.manifest}
    return {**kept, "changes": [*artifact.manifest.get("changes", []), *changes]}
