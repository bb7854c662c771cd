"""The end of all that writes an artifact: index, evaluation, pictures, card and manifest, from encoder and gallery."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.artifact.golden import ask
from retrieval.artifact.layout import LAYOUT, PLOT
from retrieval.artifact.load import Artifact, hash_of_ids, load_artifact
from retrieval.artifact.manifest import FORMAT, measure, sealed
from retrieval.artifact.metrics import Metrics, key_of, new_metrics
from retrieval.artifact.sections import CalibrationSection, LeaveOneOut
from retrieval.build.card import write_card
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, QueryError
from retrieval.evaluation.calibration import Queries, calibrate
from retrieval.evaluation.metrics import leave_one_out
from retrieval.evaluation.plots import draw
from retrieval.images.compare import Pictures
from retrieval.images.gallery import Gallery
from retrieval.stores.base import Vectors
from retrieval.stores.faiss import FaissStore

REPOSITORY = "repository"  # the entry of the manifest that names the place on the Hub
# Sections of metrics.json that follow from the rows of the gallery; the second, unless it is from held-out images.
LEAVE_ONE_OUT = "leave_one_out"
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Draft:
    """An artifact that is being written into a folder: encoder, gallery and vectors are there, the rest follows."""

    folder: Path
    encoder: Encoder
    store: FaissStore
    gallery: Gallery
    vectors: Vectors
    """(N, D) float32 unit rows as they came from the encoder, row for row with the gallery."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Entries for the manifest: how it was built, and what was changed since."""
    sections: dict[str, Any] = field(default_factory=dict)
    """Sections for metrics.json, in the place of those of the same name that follow from the gallery."""


def write_artifact(draft: Draft) -> Artifact:
    """Write all that follows from encoder, gallery and vectors: index, figures, plots, card and, last, the manifest.

    Returns the artifact, opened and checked. Raises IntegrityError where it could not be opened again.
    """
    draft.store.save(draft.folder / LAYOUT.index)
    metrics = new_metrics({LEAVE_ONE_OUT: _leave_one_out(draft), **draft.sections})
    if CALIBRATION not in metrics.model_fields_set:
        metrics = metrics.model_copy(update={CALIBRATION: _calibration(draft, trained=metrics.is_trained)})
    return write_description(draft.folder, draft.encoder, draft.store, draft.gallery, metrics, draft.facts)


def write_description(
    folder: Path,
    encoder: Encoder,
    store: FaissStore,
    gallery: Gallery,
    metrics: Metrics,
    facts: dict[str, Any],
) -> Artifact:
    """Write figures, plots, card and manifest beside the rest of an artifact, and open it: see `write_artifact`."""
    draw(folder, metrics)
    (folder / LAYOUT.metrics).write_text(metrics.to_json(), encoding="utf-8")
    write_card(folder, encoder, store, gallery, metrics, facts)
    _write_manifest(folder, encoder, store, gallery, facts)
    return load_artifact(folder)  # what cannot be opened must not take the place of what can


def _write_manifest(folder: Path, encoder: Encoder, store: FaissStore, gallery: Gallery, facts: dict[str, Any]) -> None:
    """Write the manifest over the other files of the folder: from then on it is an artifact.

    `facts` are further entries for the manifest (how it was built, the index's recall). Raises ArtifactError for
    anything but PNG files in the folder of pictures, and for another file than a model's in that of the text model.
    """
    extras = LAYOUT.extras_in(folder)
    for name in extras:
        if name in LAYOUT.plots_in(folder) and not PLOT.fullmatch(name):
            raise ArtifactError(f"{name}: a picture of an artifact is a PNG file called by letters and digits.")
        if not LAYOUT.is_extra(name):
            raise ArtifactError(f"{name}: the text model of an artifact has JSON, text, safetensors and no such files.")
    manifest = {
        "format": FORMAT,
        "files": {name: measure(folder / name) for name in [*LAYOUT.names()[:-1], *extras]},
        "encoder": {"architecture": encoder.name, "fingerprint": encoder.fingerprint},
        "dimension": store.dim,
        "metric": "cosine",
        "rows": len(gallery),
        "ids_sha256": hash_of_ids(gallery.ids),
        "index": asdict(store.settings),
        "golden": ask(encoder, store, gallery),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm", "faiss-cpu", "numpy")},
        **facts,
    }
    (folder / LAYOUT.manifest).write_bytes(sealed(manifest))


def link(old: Path, new: Path, names: Iterable[str]) -> None:
    """Give a folder the same files as another, those excepted that it has already.

    Files of an artifact are never changed in place, so sharing them is safe.
    """
    for name in names:
        if not (new / name).exists():
            (new / name).parent.mkdir(exist_ok=True)
            try:
                os.link(old / name, new / name)
            except OSError:  # a file system without hard links
                shutil.copyfile(old / name, new / name)


def _calibration(draft: Draft, *, trained: bool) -> CalibrationSection | None:
    """Learned from the images of the gallery, but not of an encoder that has learned from them: to it they are nearer
    to each other than a new one is to them, and all of them would be confident."""
    labels = draft.gallery.labels
    own = Queries(draft.vectors, labels, np.arange(len(draft.vectors)))
    return None if trained else calibrate(draft.store, labels, own, same=Pictures(draft.gallery).same)


def _leave_one_out(draft: Draft) -> LeaveOneOut | None:
    try:
        figures = leave_one_out(draft.vectors, draft.gallery.labels)
        return LeaveOneOut.model_validate({key_of(name): value for name, value in figures.items()})
    except QueryError:  # a gallery without labels is as good as another; it has no figures
        return None
