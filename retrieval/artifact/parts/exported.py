"""The exported network of an artifact: written if it gives the same vectors as torch; then serving needs no torch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import agree
from retrieval.console import say
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError
from retrieval.files.storing import storing
from retrieval.images.gallery import Gallery, spread_rows
from retrieval.images.open import open_image

EXPORTED = "exported"  # the section's name in the manifest
_COMPARED = 16  # images of the gallery


def write_exported(folder: Path, encoder: Encoder, gallery: Gallery) -> dict[str, Any]:
    """Write the exported network next to the encoder's other files, unless it is there; returns the manifest entries.

    It is compared with torch on images spread over the gallery, the one of the golden query among them. A network that
    cannot be exported, or then gives other vectors, is left out with a message.
    """
    target = folder / LAYOUT.exported
    if target.exists() or (path := encoder.network.exported) is None:
        return {}
    images = compared_images(gallery)
    found = encoder.network.difference(np.stack([encoder.preprocess(image) for image in images]))
    if found > encoder.network.most_difference:
        say(
            f"The exported network of {encoder.name} moves a score by {found:.1g}, more than "
            f"{encoder.network.most_difference:.0e}: the artifact is written without it, and torch serves it."
        )
        return {}
    target.parent.mkdir(exist_ok=True)
    with storing(target, ArtifactError, needed=path.stat().st_size):
        shutil.copyfile(path, target)
    return {EXPORTED: {"images": len(images), "largest_difference": float(f"{found:.1g}")}}


def compared_images(gallery: Gallery) -> list[Image]:
    """Images spread over a gallery, the first one among them, to compare an exported network with torch."""
    return [open_image(gallery.thumbnail(row)) for row in spread_rows(len(gallery), _COMPARED)]


def write_int8(folder: Path, network: Path, compared: Mapping[str, Any]) -> dict[str, Any]:
    """Write the network of an encoder in int8 next to its other files; returns the manifest entries.

    `compared` says how it does beside float32 (see `retrieval.build.precision.comparison`).
    """
    target = folder / LAYOUT.exported
    target.parent.mkdir(exist_ok=True)
    with storing(target, ArtifactError, needed=network.stat().st_size):
        shutil.copyfile(network, target)
    return {EXPORTED: dict(compared)}


def check_exported(manifest: Mapping[str, Any]) -> None:
    """Raise IntegrityError unless the manifest has a section for the exported network exactly if it lists the file."""
    agree(f"{LAYOUT.exported}: exported network", EXPORTED in manifest, LAYOUT.exported in manifest["files"])
