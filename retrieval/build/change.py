"""Changes of an artifact: images added and taken out, figures and card written anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.atomic import replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import Artifact, load_artifact, read_metrics
from retrieval.artifact.manifest import read_manifest
from retrieval.artifact.map import MAP, map_method_of, write_map
from retrieval.artifact.text import TEXT, rewrite_text
from retrieval.build.build import Report, embed, report_of, summary
from retrieval.build.embed import Progress
from retrieval.build.write import CALIBRATION, LEAVE_ONE_OUT, REPOSITORY, Unsealed, close, finish, link
from retrieval.errors import QueryError
from retrieval.evaluation.plots import draw
from retrieval.images.gallery import Gallery, joined, read_tables, write_gallery
from retrieval.images.sources import Source
from retrieval.stores.choose import fit_index
from retrieval.stores.faiss import FaissStore


def add_images(
    artifact: Artifact, source: Source, *, limit: int | None = None, progress: Progress | None = None
) -> Report:
    """Add the images of a source; one whose content the artifact has is a duplicate, and nothing is embedded again.

    The index keeps its training; where it was chosen by size and is now too small for its rows, it is made anew.
    Raises SourceError where a column holds another type of values than the gallery's.
    """
    out = artifact.folder
    with writing(out, LAYOUT.own()):
        current = load_artifact(out)  # read again now that nobody else can change it
        map_method_of(current.manifest)  # before hours of work
        gallery, old = current.gallery, current.store
        known = dict(zip(gallery.table["sha256"].to_pylist(), gallery.ids, strict=True))
        schema = joined(pq.read_schema(out / LAYOUT.gallery), source.schema)  # before hours of work
        key = f"add {source.fingerprint} {current.manifest['manifest_sha256']}"
        shards = embed(source, out, current.encoder, known, limit, progress, key)
        report = report_of(shards)
        if report.indexed:
            kept = np.arange(len(old))
            vectors = np.concatenate([old.vectors(kept), shards.vectors(old.dim)])
            store = fit_index(vectors, old.settings.factory, like=old)
            tables = chain(read_tables(out / LAYOUT.gallery, kept), shards.tables())
            change = {"add": {**summary(report), "source": dict(source.about)}}
            _rewrite(current, kept, store, vectors, tables, schema, change)
        shards.clear()
    return report


def remove_images(artifact: Artifact, ids: Collection[str]) -> int:
    """Take images out of an artifact by their ids; returns how many rows are left.

    Raises QueryError for an id that the gallery does not have (then nothing is changed), or where none would be left.
    """
    out = artifact.folder
    with writing(out, LAYOUT.own()):
        current = load_artifact(out)
        map_method_of(current.manifest)  # before hours of work
        gone = {current.gallery.row_of(image_id) for image_id in ids}
        kept = np.array([row for row in range(len(current.gallery)) if row not in gone], np.int64)
        if not len(kept):
            raise QueryError("an artifact has at least one image; to remove them all, delete its folder.")
        vectors = current.store.vectors(kept)
        store = fit_index(vectors, current.store.settings.factory, like=current.store)
        tables, schema = read_tables(out / LAYOUT.gallery, kept), pq.read_schema(out / LAYOUT.gallery)
        _rewrite(current, kept, store, vectors, tables, schema, {"remove": len(gone)})
    return len(kept)


def update_metrics(folder: Path, changes: dict[str, Any]) -> None:
    """Put sections into the metrics.json of an artifact, in the place of those of the same name.

    Card and pictures are made anew from them; the rest stays as it is. Raises what `load_artifact` raises.
    """
    with writing(folder, LAYOUT.own()):
        _describe(folder, changes, lambda current: _facts(current, {"metrics": sorted(changes)}))


def name_card(folder: Path, repository: str) -> None:
    """Have an artifact's card name the repository on the Hub that it goes to; to be used inside `writing`.

    Raises what `load_artifact` raises.
    """
    if read_manifest(folder).get(REPOSITORY) != repository:
        _describe(folder, {}, lambda current: {**_facts(current), REPOSITORY: repository})


def _describe(folder: Path, changes: dict[str, Any], facts_of: Callable[[Artifact], dict[str, Any]]) -> None:
    """Write figures, pictures, card and manifest of an artifact anew."""
    current = load_artifact(folder)
    metrics = {**read_metrics(folder), **changes}
    with replacing(folder, LAYOUT.own()) as fresh:
        own = (LAYOUT.config, LAYOUT.weights, LAYOUT.index, LAYOUT.gallery)
        link(folder, fresh, [*own, *LAYOUT.extras_in(folder)])
        draw(fresh, metrics)
        close(fresh, current.encoder, current.store, current.gallery, metrics, facts_of(current))


def _rewrite(
    artifact: Artifact,
    kept: Ids,
    store: FaissStore,
    vectors: Vectors,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    change: dict[str, Any],
) -> None:
    """Write the artifact again with the rows `kept`, and others after them, and the same encoders, figures of its
    training and pictures."""
    out = artifact.folder
    others = {name: section for name, section in read_metrics(out).items() if name != LEAVE_ONE_OUT}
    if not (others.get(CALIBRATION) or {}).get("held_out"):
        others.pop(CALIBRATION, None)
    with replacing(out, LAYOUT.own()) as folder:
        models = [LAYOUT.config, LAYOUT.weights, *LAYOUT.text_in(out)]
        link(out, folder, [name for name in [*models, *LAYOUT.plots_in(out)] if name != LAYOUT.text_index])
        write_gallery(folder / LAYOUT.gallery, tables, schema)
        unsealed = Unsealed(folder, artifact.encoder, store, Gallery(folder / LAYOUT.gallery), vectors)
        facts = _facts(artifact, change) | write_map(folder, vectors, map_method_of(artifact.manifest))
        facts |= rewrite_text(folder, unsealed.gallery, artifact.text, kept)
        finish(unsealed, facts, lambda _: others)


def _facts(artifact: Artifact, *changes: dict[str, Any]) -> dict[str, Any]:
    """The manifest keeps how the artifact was built, where it was pushed, and a list of what was changed since."""
    kept = {name: artifact.manifest[name] for name in ("build", REPOSITORY, MAP, TEXT) if name in artifact.manifest}
    return {**kept, "changes": [*artifact.manifest.get("changes", []), *changes]}
