"""The end of all that writes an artifact: index, evaluation, pictures, card and manifest, from encoder and gallery."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.arrays import Vectors
from retrieval.artifact.golden import ask
from retrieval.artifact.layout import LAYOUT, PLOT
from retrieval.artifact.load import hash_of_ids, load_artifact
from retrieval.artifact.manifest import FORMAT, measure, sealed
from retrieval.build.card import write_card
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, QueryError
from retrieval.evaluation.calibration import Queries, calibrate
from retrieval.evaluation.metrics import leave_one_out
from retrieval.evaluation.plots import draw
from retrieval.images.compare import Pictures
from retrieval.images.gallery import Gallery
from retrieval.stores.faiss import FaissStore

REPOSITORY = "repository"  # the entry of the manifest that names the place on the Hub
# Sections of metrics.json that follow from the rows of the gallery; the second, unless it is from held-out images.
LEAVE_ONE_OUT = "leave_one_out"
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Unsealed:
    """An artifact that is being written: all but figures, card and manifest."""

    folder: Path
    """Where it is written."""
    encoder: Encoder
    store: FaissStore
    gallery: Gallery
    vectors: Vectors
    """(N, D) float32 unit rows as they came from the encoder, row for row with the gallery."""


Evaluate = Callable[[Unsealed], dict[str, Any]]
"""Makes further sections of metrics.json."""


def finish(unsealed: Unsealed, facts: dict[str, Any], evaluate: Evaluate | None = None) -> None:
    """Write all that follows from encoder, gallery and vectors, with pictures of it, and check it.

    `facts` are entries for the manifest. Raises IntegrityError where the artifact could not be loaded again.
    """
    unsealed.store.save(unsealed.folder / LAYOUT.index)
    metrics: dict[str, Any] = {LEAVE_ONE_OUT: _leave_one_out(unsealed)}
    if evaluate:
        metrics.update(evaluate(unsealed))
    if CALIBRATION not in metrics:
        metrics[CALIBRATION] = _calibration(unsealed, trained=bool((metrics.get("training") or {}).get("steps")))
    draw(unsealed.folder, metrics)
    close(unsealed.folder, unsealed.encoder, unsealed.store, unsealed.gallery, metrics, facts)


def close(
    folder: Path,
    encoder: Encoder,
    store: FaissStore,
    gallery: Gallery,
    metrics: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Write figures, card and manifest beside the rest of an artifact, and check it; see `finish`."""
    (folder / LAYOUT.metrics).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    write_card(folder, encoder, store, gallery, metrics, facts)
    seal(folder, encoder, store, gallery, facts)
    load_artifact(folder)  # what cannot be loaded must not take the place of what can


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


def _calibration(unsealed: Unsealed, *, trained: bool) -> dict[str, Any] | None:
    """Learned from the images of the gallery, but not of an encoder that has learned from them: to it they are nearer
    to each other than a new one is to them, and all of them would be confident."""
    labels = unsealed.gallery.labels
    own = Queries(unsealed.vectors, labels, np.arange(len(unsealed.vectors)))
    return None if trained else calibrate(unsealed.store, labels, own, same=Pictures(unsealed.gallery).same)


def _leave_one_out(unsealed: Unsealed) -> dict[str, float | int] | None:
    try:
        return leave_one_out(unsealed.vectors, unsealed.gallery.labels)
    except QueryError:  # a gallery without labels is as good as another; it has no figures
        return None


def seal(folder: Path, encoder: Encoder, store: FaissStore, gallery: Gallery, facts: dict[str, Any]) -> None:
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
