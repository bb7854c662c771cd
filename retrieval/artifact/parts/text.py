"""The optional text model of an artifact, which makes its images searchable by text."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.golden import ask_text, replay_text
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import agree
from retrieval.console import progress_bar
from retrieval.errors import EncoderError, IntegrityError
from retrieval.images.gallery import Gallery
from retrieval.images.open import open_image
from retrieval.installed import needs
from retrieval.stores.choose import fit_index
from retrieval.stores.faiss import FaissStore
from retrieval.stores.stated import check_lengths

if TYPE_CHECKING:
    from retrieval.encoders.text import TextEncoder

TEXT = "text"  # the section's name in the manifest
_AT_ONCE = 32  # thumbnails decoded at a time


@dataclass(frozen=True)
class TextPart:
    """A joint text and image encoder, and an index of its thumbnail embeddings, in gallery row order."""

    encoder: TextEncoder
    store: FaissStore


def write_text(folder: Path, gallery: Gallery, encoder: TextEncoder | None) -> dict[str, Any]:
    """Save the text model and an index of the thumbnails' embeddings, unless `encoder` is None.

    Returns the manifest entries.
    """
    if encoder is None:
        return {}
    encoder.save(folder / LAYOUT.text)
    return _write_vectors(folder, encoder, _embedded(gallery, encoder, 0))


def rewrite_text(folder: Path, gallery: Gallery, part: TextPart | None, kept: Ids) -> dict[str, Any]:
    """Rewrite the text index for a changed gallery; the model's files must already be in `folder`.

    The gallery must start with the rows `kept` of the previous one, whose embeddings are reused. Returns the manifest
    entries.
    """
    if part is None:
        return {}
    vectors = np.concatenate([part.store.vectors(kept), _embedded(gallery, part.encoder, len(kept))])
    return _write_vectors(folder, part.encoder, vectors, part.store)


def _write_vectors(
    folder: Path, encoder: TextEncoder, vectors: Vectors, like: FaissStore | None = None
) -> dict[str, Any]:
    store = fit_index(vectors, like=like)
    store.save(folder / LAYOUT.text_index)
    section = {
        "name": encoder.name,
        "fingerprint": encoder.fingerprint,
        **({"weights": {"name": encoder.name, "license": encoder.licence}} if encoder.licence else {}),
        "dimension": encoder.dim,
        "index": asdict(store.settings),
        "golden": ask_text(encoder, store),
        "versions": {name: importlib.metadata.version(name) for name in ("transformers", "tokenizers")},
    }
    return {TEXT: section}


def _embedded(gallery: Gallery, encoder: TextEncoder, start: int) -> Vectors:
    """Embeddings of the gallery's thumbnails from row `start` on: (N - start, D) float32."""
    vectors = np.empty((len(gallery) - start, encoder.dim), np.float32)
    with progress_bar(total=len(vectors), unit="images", desc=f"embedding with {encoder.name}", delay=0.5) as bar:
        for first in range(start, len(gallery), _AT_ONCE):
            rows = range(first, min(first + _AT_ONCE, len(gallery)))
            images = [open_image(gallery.thumbnail(row)) for row in rows]
            vectors[first - start : first - start + len(rows)] = encoder.embed_images(images)
            bar.update(len(rows))
    return vectors


def read_text(folder: Path, manifest: Mapping[str, Any]) -> TextPart | None:
    """The text model of an artifact; None if it has none. The files must already be verified.

    Raises IntegrityError if the model or the index does not match the manifest.
    """
    listed = any(name.startswith(f"{LAYOUT.text}/") for name in manifest["files"])
    agree(f"{LAYOUT.text}: text model present", TEXT in manifest, listed)
    if TEXT not in manifest:
        return None
    with needs("a model for words"):
        from retrieval.encoders.text import TextEncoder
    stated = manifest[TEXT]
    try:
        encoder = TextEncoder.load(folder / LAYOUT.text)
    except EncoderError as error:
        raise IntegrityError(f"{LAYOUT.text}: {error}") from error
    agree(f"{LAYOUT.text}: fingerprint", stated["fingerprint"], encoder.fingerprint)
    try:
        store = FaissStore.load(folder / LAYOUT.text_index, stated["index"])
    except IntegrityError as error:
        raise IntegrityError(f"{LAYOUT.text}: {error}") from error
    agree(f"{LAYOUT.text_index}: dimension", stated["dimension"], store.dim)
    agree(f"{LAYOUT.text}: dimension", stated["dimension"], encoder.dim)
    agree(f"{LAYOUT.text_index}: number of vectors", manifest["rows"], len(store))
    check_lengths(LAYOUT.text_index, store, store.settings.factory)
    replay_text(stated["golden"], encoder, store)
    return TextPart(encoder, store)
