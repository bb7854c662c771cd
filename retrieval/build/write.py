"""The last step of writing an artifact: index, metrics, plots, card and manifest, from the encoder and the gallery."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.arrays import Vectors
from retrieval.artifact.golden import ask
from retrieval.artifact.layout import LAYOUT, PLOT
from retrieval.artifact.load import Artifact, load_artifact
from retrieval.artifact.manifest import FORMAT, measure, sealed
from retrieval.artifact.metrics import Metrics, key_of, new_metrics
from retrieval.artifact.parts.exported import write_exported
from retrieval.artifact.sections import CalibrationSection, LeaveOneOut
from retrieval.build.card import write_card
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, QueryError
from retrieval.evaluation.calibration import Queries, calibrate
from retrieval.evaluation.large.labels import Labels
from retrieval.evaluation.large.pictures import few_pictures
from retrieval.evaluation.metrics import leave_one_out
from retrieval.evaluation.plots import draw
from retrieval.files.storing import storing
from retrieval.images.gallery import Gallery
from retrieval.stores.faiss import FaissStore

REPOSITORY = "repository"  # the manifest entry for the repository on the Hub
# Sections of metrics.json computed from the gallery; CALIBRATION only if it is not from held-out images.
LEAVE_ONE_OUT = "leave_one_out"
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Draft:
    """An artifact being written: the encoder, gallery and vectors are ready; the other files are not written yet."""

    folder: Path
    encoder: Encoder
    store: FaissStore
    gallery: Gallery
    vectors: Vectors
    """(N, D) float32 unit vectors from the encoder, in gallery row order."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Manifest entries: how the artifact was built, and its changes since."""
    sections: dict[str, Any] = field(default_factory=dict)
    """Sections for metrics.json; these override the ones computed from the gallery."""

    @cached_property
    def labels(self) -> Labels:
        """The labels of the gallery."""
        return Labels(self.gallery.labels)


def write_artifact(draft: Draft) -> Artifact:
    """Write the rest of an artifact: index, metrics, plots, card and, last, the manifest.

    Returns the opened and verified artifact. Raises IntegrityError if it cannot be opened.
    """
    with storing(draft.folder / LAYOUT.index, ArtifactError, needed=draft.vectors.nbytes):
        draft.store.save(draft.folder / LAYOUT.index)
    facts = {**draft.facts, **write_exported(draft.folder, draft.encoder, draft.gallery)}
    metrics = new_metrics({LEAVE_ONE_OUT: _leave_one_out(draft), **draft.sections})
    if CALIBRATION not in metrics.model_fields_set:
        metrics = metrics.model_copy(update={CALIBRATION: _calibration(draft, trained=metrics.is_trained)})
    return write_description(draft.folder, draft.encoder, draft.store, draft.gallery, metrics, facts)


def write_description(
    folder: Path,
    encoder: Encoder,
    store: FaissStore,
    gallery: Gallery,
    metrics: Metrics,
    facts: dict[str, Any],
) -> Artifact:
    """Write metrics, plots, card and manifest next to the other files, and open the artifact; see `write_artifact`."""
    draw(folder, metrics)
    (folder / LAYOUT.metrics).write_text(metrics.to_json(), encoding="utf-8")
    write_card(folder, encoder, store, gallery, metrics, facts)
    write_manifest(folder, {**_stated(encoder, store, gallery), **facts})
    return load_artifact(folder)  # a broken artifact must not replace a working one


def _stated(encoder: Encoder, store: FaissStore, gallery: Gallery) -> dict[str, Any]:
    """The manifest entries that every artifact has, but those about its files."""
    return {
        "encoder": {
            "architecture": encoder.name,
            "fingerprint": encoder.fingerprint,
            **({"precision": "int8", "engine": encoder.engine.name} if encoder.precision == "int8" else {}),
            **({"weights": asdict(encoder.weights)} if encoder.weights else {}),
        },
        "dimension": store.dim,
        "metric": "cosine",
        "rows": len(gallery),
        "ids_sha256": gallery.ids_sha256,
        "index": asdict(store.settings),
        "golden": ask(encoder, store, gallery),
        "versions": versions(),
    }


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest, which covers all other files and makes the folder an artifact.

    `facts` are its entries, apart from the format and the files. Raises ArtifactError for a file with an invalid name
    in the plots folder (PNG only) or in the text model's folder.
    """
    extras = LAYOUT.extras_in(folder)
    for name in extras:
        if name in LAYOUT.plots_in(folder) and not PLOT.fullmatch(name):
            raise ArtifactError(f"{name}: a plot must be a PNG file with a name of letters and digits.")
        if not LAYOUT.is_extra(name):
            raise ArtifactError(f"{name} cannot be part of a text model: only JSON, text and safetensors files can.")
    required = [name for name in LAYOUT.names()[:-1] if name != LAYOUT.gallery]
    files = {name: measure(folder / name) for name in [*required, *LAYOUT.gallery_in(folder), *extras]}
    manifest = {**facts, "format": FORMAT, "files": files}
    (folder / LAYOUT.manifest).write_bytes(sealed(manifest))


def versions() -> dict[str, str]:
    """The versions of the libraries that vectors and index come from, as far as they are installed."""
    found = {}
    for name in ("torch", "timm", "onnxruntime", "faiss-cpu", "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):  # serving and adding need no torch
            found[name] = importlib.metadata.version(name)
    return found


def link(old: Path, new: Path, names: Iterable[str]) -> None:
    """Hard-link files from one folder into another, skipping those that already exist.

    Files of an artifact are never modified in place, so sharing them is safe.
    """
    for name in names:
        if not (new / name).exists():
            (new / name).parent.mkdir(exist_ok=True)
            try:
                os.link(old / name, new / name)
            except OSError:  # the file system has no hard links
                with storing(new / name, ArtifactError, needed=(old / name).stat().st_size):
                    shutil.copyfile(old / name, new / name)


def _calibration(draft: Draft, *, trained: bool) -> CalibrationSection | None:
    """Fit the calibration on the gallery, unless the encoder was trained on it: its training images are closer to each
    other than to new images, so the calibration would be overconfident."""
    if trained:
        return None
    own = Queries(draft.vectors, draft.labels, np.arange(len(draft.vectors)))
    return calibrate(draft.store, draft.labels, own, same=few_pictures(draft.gallery).same)


def _leave_one_out(draft: Draft) -> LeaveOneOut | None:
    try:
        figures = leave_one_out(draft.vectors, draft.labels)
        return LeaveOneOut.model_validate({key_of(name): value for name, value in figures.items()})
    except QueryError:  # a gallery without labels is valid, but has no metrics
        return None
