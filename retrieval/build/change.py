"""Changing an artifact: adding and removing images, updating its metrics and its card."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.atomic import replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import Artifact, load_artifact
from retrieval.artifact.manifest import check_files_anew, gallery_files
from retrieval.artifact.metrics import Metrics, new_metrics
from retrieval.artifact.parts.exported import EXPORTED, write_exported
from retrieval.artifact.parts.map import MAP, map_method_of, write_map
from retrieval.artifact.parts.text import TEXT, export_text, rewrite_text
from retrieval.build.build import embed, report_of
from retrieval.build.large.seen import seen_in
from retrieval.build.shards import Shards
from retrieval.build.write import (
    CALIBRATION,
    LEAVE_ONE_OUT,
    REPOSITORY,
    Draft,
    link,
    write_artifact,
    write_description,
    write_manifest,
)
from retrieval.console import Progress
from retrieval.errors import EncoderError, QueryError
from retrieval.files.stacked import pieces, stacked
from retrieval.images.gallery import ORIGINAL, Gallery, joined, read_tables, write_gallery
from retrieval.sources.base import RawImage, Source
from retrieval.sources.originals import with_originals
from retrieval.stores.choose import fit_index


def add_images(
    folder: Path | str,
    source: Source,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    originals: bool = False,
) -> Artifact:
    """Add the images of a source to an artifact; returns the new artifact, whose `report` counts the images.

    An image whose content is already in the artifact is a duplicate. Existing images are not embedded again. The index
    keeps its training, unless it was chosen by size and the gallery has outgrown it; then it is rebuilt. `originals` is
    the same as in `build_artifact`, and always true if the gallery keeps originals already. Raises SourceError if a
    column's type differs from the gallery's, and the errors of `open_artifact`.
    """
    folder = Path(folder)
    with writing(folder, LAYOUT.own()):
        old = load_artifact(folder)
        map_method_of(old.manifest)  # fail before hours of work
        source = with_originals(source) if originals or ORIGINAL in old.gallery.table.column_names else source
        schema = joined(old.gallery.schema, source.schema)  # also fails early
        key = f"add {source.fingerprint} {old.manifest['manifest_sha256']}"
        shards = embed(source, folder, old.encoder, seen_in(old.gallery), limit, progress, key)
        new, report = old, report_of(shards, source)
        if report.indexed:
            kept = np.arange(len(old.store))
            vectors = followed(old, kept, shards)
            tables = chain(read_tables(old.gallery.files, kept), shards.tables())
            change = {"add": {**report.summary(), "source": dict(source.about)}}
            new = replaced(old, kept, vectors, tables, schema, change)
        shards.clear()
    return replace(new, report=report)


def count_unlike(artifact: Artifact, source: Source) -> int:
    """How many images that the artifact had before an `add_images` have another label or attributes in its source."""
    same, gallery, count = dict(artifact.report.duplicates if artifact.report else ()), artifact.gallery, 0
    named = set(same.values())
    row_of = {image_id: row for row, image_id in enumerate(gallery.ids) if image_id in named} if named else {}
    table = gallery.table
    told: dict[int, RawImage] = {}
    for raw in source.rows() if same else ():
        # Of several copies, the one that the image was made from counts, as in a sync.
        row = row_of.get(same.get(raw.source, ""))
        if row is not None and (row not in told or table["source"][row].as_py() == raw.source):
            told[row] = replace(raw, data=None)
    for row, raw in told.items():
        count += any(  # a blank says nothing
            value is not None and (name not in table.column_names or table[name][row].as_py() != value)
            for name, value in {"label": raw.label, **raw.attributes}.items()
        )
    return count


def remove_images(folder: Path | str, ids: Collection[str]) -> Artifact:
    """Remove images from an artifact by id; returns the new artifact.

    Raises QueryError if an id is not in the gallery or no image would be left (the artifact is then unchanged), and the
    errors of `open_artifact`.
    """
    if isinstance(ids, str):
        raise QueryError(f"the ids of the images to remove must be a list, such as [{ids!r}], not a string.")
    folder = Path(folder)
    with writing(folder, LAYOUT.own()):
        old = load_artifact(folder)
        map_method_of(old.manifest)  # fail before any work
        gone = sorted({old.gallery.row_of(image_id) for image_id in ids})
        kept = np.delete(np.arange(len(old.gallery)), gone)
        if not len(kept):
            raise QueryError("an artifact must keep at least one image; to remove all of them, delete its folder.")
        tables, schema = read_tables(old.gallery.files, kept), old.gallery.schema
        return replaced(old, kept, followed(old, kept), tables, schema, {"remove": len(gone)})


def update_metrics(folder: Path, sections: dict[str, Any]) -> Artifact:
    """Add sections to an artifact's metrics.json, replacing those of the same name; returns the new artifact.

    The card and the plots are regenerated; everything else stays the same. Raises the errors of `open_artifact`.
    """
    with writing(folder, LAYOUT.own()):
        old = load_artifact(folder)
        metrics = new_metrics({**old.metrics.sections(), **sections})
        return _described(old, metrics, _facts(old, {"metrics": sorted(sections)}))


def export_encoder(folder: Path) -> Artifact:
    """Add the exported networks to an artifact that was written without them; returns the new artifact.

    They are those of its encoder and of its text model. It stays as it is if it has them. Needs torch. Raises
    EncoderError if none of those that are missing can be exported, and the errors of `open_artifact`.
    """
    with writing(folder, LAYOUT.own()):
        old = load_artifact(folder)
        if EXPORTED in old.manifest and (old.text is None or old.manifest[TEXT].get(EXPORTED)):
            return old
        with replacing(folder, LAYOUT.own()) as new:
            check_files_anew(folder, old.manifest)
            link(folder, new, old.manifest["files"])
            sections = write_exported(new, old.encoder, old.gallery)
            sections |= export_text(new, old.gallery, old.text, old.manifest)
            if not (EXPORTED in sections or sections.get(TEXT, {}).get(EXPORTED)):
                what = "text model" if EXPORTED in old.manifest else "encoder"
                raise EncoderError(f"the {what} of {folder} cannot be exported; it is as it was, and needs torch.")
            write_manifest(new, {**old.manifest, **sections})
        return replace(load_artifact(folder), name=old.name)


def name_card(artifact: Artifact, repository: str) -> Artifact:
    """Write the artifact's Hub repository into its card and manifest; use this inside `writing`."""
    if artifact.manifest.get(REPOSITORY) == repository:
        return artifact
    return _described(artifact, artifact.metrics, {**_facts(artifact), REPOSITORY: repository})


def _described(old: Artifact, metrics: Metrics, facts: dict[str, Any]) -> Artifact:
    """The artifact with new metrics, and plots, card and manifest regenerated; the other files are hard-linked."""
    with replacing(old.folder, LAYOUT.own()) as folder:
        check_files_anew(old.folder, old.manifest)
        own = (LAYOUT.config, LAYOUT.weights, LAYOUT.index, *gallery_files(old.manifest["files"]))
        link(old.folder, folder, [*own, *LAYOUT.extras_in(old.folder)])
        new = write_description(folder, old.encoder, old.store, old.gallery, metrics, facts)
    return replace(new, folder=old.folder, name=old.name)


def followed(old: Artifact, kept: Ids, shards: Shards | None = None) -> Vectors:
    """The vectors of the rows `kept` of an artifact, followed by those of the shards; many are in a file beside it."""
    dim, count = old.store.dim, 0 if shards is None else shards.count
    before = (old.store.vectors(kept[part]) for part in pieces(len(kept), dim))
    after = shards.parts(dim) if shards else ()
    return stacked(old.folder.resolve().parent, len(kept) + count, dim, chain(before, after))


def replaced(
    old: Artifact,
    kept: Ids,
    vectors: Vectors,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    change: dict[str, Any],
) -> Artifact:
    """The artifact with the rows `kept` of the old one, followed by new rows; encoders and training metrics stay.

    `vectors` and `tables` cover all the rows, old and new.
    """
    store = fit_index(vectors, old.store.settings.factory, like=old.store)
    sections = {name: section for name, section in old.metrics.sections().items() if name != LEAVE_ONE_OUT}
    if not (sections[CALIBRATION] and sections[CALIBRATION].held_out):
        sections.pop(CALIBRATION)
    with replacing(old.folder, LAYOUT.own()) as folder:
        check_files_anew(old.folder, old.manifest)
        models = [LAYOUT.config, LAYOUT.weights, *LAYOUT.exported_in(old.folder), *LAYOUT.text_in(old.folder)]
        indexes = (LAYOUT.text_index, LAYOUT.text_vectors)
        shared = [name for name in [*models, *LAYOUT.plots_in(old.folder)] if name not in indexes]
        link(old.folder, folder, shared)
        gallery = Gallery(write_gallery(folder / LAYOUT.gallery, tables, schema))
        facts = _facts(old, change) | write_map(folder, vectors, map_method_of(old.manifest))
        facts |= rewrite_text(folder, gallery, old.text, old.manifest, kept, store)
        new = write_artifact(Draft(folder, old.encoder, store, gallery, vectors, facts, sections))
    return replace(new, folder=old.folder, name=old.name)


def _facts(artifact: Artifact, *changes: dict[str, Any]) -> dict[str, Any]:
    """Manifest entries that carry over: how the artifact was built, its repository, and the changes since."""
    names = ("build", REPOSITORY, EXPORTED, MAP, TEXT)
    kept = {name: artifact.manifest[name] for name in names if name in artifact.manifest}
    return {**kept, "changes": [*artifact.manifest.get("changes", []), *changes]}
