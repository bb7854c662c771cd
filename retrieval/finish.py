"""The end of all that writes an artifact: index, evaluation, pictures, card and manifest, from encoder and gallery."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.artifact import load_artifact, seal
from retrieval.calibration import Queries, calibrate
from retrieval.card import write_card
from retrieval.encoder import Encoder
from retrieval.errors import QueryError
from retrieval.gallery import Gallery
from retrieval.layout import LAYOUT
from retrieval.metrics import leave_one_out
from retrieval.pictures import Pictures
from retrieval.plots import draw
from retrieval.stores.base import Vectors
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
