"""The optional text model of an artifact, which makes its images searchable by text.

Its exported towers, if it has them, embed texts and images without torch.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from PIL.Image import Image

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.golden import ask_text, replay_text
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import agree
from retrieval.artifact.parts.exported import compared_images
from retrieval.console import progress_bar, say
from retrieval.encoders.image import Encoder
from retrieval.encoders.text.encoder import TextEncoder
from retrieval.encoders.text.fingerprint import fingerprint_of_files
from retrieval.encoders.text.towers import IMAGE_TOWER, TEXT_TOWER
from retrieval.errors import EncoderError, IntegrityError
from retrieval.files.stacked import pieces, stacked
from retrieval.images.gallery import Gallery
from retrieval.images.open import open_image
from retrieval.stores.base import Store
from retrieval.stores.choose import fit_index
from retrieval.stores.faiss import FaissStore
from retrieval.stores.open import open_index
from retrieval.stores.stated import check_lengths
from retrieval.stores.unread import UnreadStore

TEXT = "text"  # the section's name in the manifest
EXPORTED, ONE_TOWER = "exported", "one_tower"  # in the section
_AT_ONCE = 32  # thumbnails decoded at a time


@dataclass(frozen=True)
class TextPart:
    """A joint text and image encoder, and the vectors that words are compared with, in gallery row order.

    These are an index of thumbnail embeddings; or, if the artifact's own encoder is the model's image tower, the index
    of the artifact itself.
    """

    encoder: TextEncoder
    store: Store


def write_text(
    folder: Path, gallery: Gallery, text: TextEncoder | None, encoder: Encoder, store: FaissStore
) -> dict[str, Any]:
    """Save the text model, and an index of the thumbnails' embeddings, unless `text` is None.

    There is no such index if `encoder`, whose vectors are in `store`, is the model's image tower. Returns the manifest
    entries.
    """
    if text is None:
        return {}
    images = compared_images(gallery)
    one_tower = text.network.is_tower(encoder, images)
    text.save(folder / LAYOUT.text)
    exported = _exported(folder, text, [] if one_tower else images)
    # Loaded again, as what is exported embeds faster.
    text = TextEncoder.load(folder / LAYOUT.text, pictures=encoder if one_tower else None)
    section = {
        "name": text.name,
        "fingerprint": text.fingerprint,
        **({"weights": {"name": text.name, "license": text.licence}} if text.licence else {}),
        "dimension": text.dim,
        ONE_TOWER: one_tower,
        EXPORTED: exported,
        "versions": {name: importlib.metadata.version(name) for name in ("transformers", "tokenizers")},
    }
    vectors = None if one_tower else stacked(folder.parent, len(gallery), text.dim, _embedded(gallery, text, 0))
    return {TEXT: section | _indexed(folder, text, store, vectors)}


def rewrite_text(
    folder: Path, gallery: Gallery, part: TextPart | None, stated: Mapping[str, Any], kept: Ids, store: FaissStore
) -> dict[str, Any]:
    """Rewrite the text index for a changed gallery; the model's files must already be in `folder`.

    `stated` is the manifest of the previous artifact. The gallery must start with its rows `kept`, whose embeddings are
    reused; `store` has the vectors of the artifact's own encoder. Returns the manifest entries.
    """
    if part is None:
        return {}
    vectors = None
    if stated[TEXT].get(ONE_TOWER) is not True:
        before = (part.store.vectors(kept[some]) for some in pieces(len(kept), part.store.dim))
        after = _embedded(gallery, part.encoder, len(kept))
        vectors = stacked(folder.parent, len(gallery), part.store.dim, chain(before, after))
    return {TEXT: {**stated[TEXT], **_indexed(folder, part.encoder, store, vectors, part.store)}}


def export_text(folder: Path, gallery: Gallery, part: TextPart | None, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Write the exported towers of a text model into `folder`, which has its other files, unless they are there.

    `stated` is the manifest of the artifact. Returns the manifest entries; none if the model cannot be exported.
    """
    if part is None or stated[TEXT].get(EXPORTED):
        return {}
    place = folder / LAYOUT.text
    for path in place.iterdir():  # an older artifact does not say how the exported towers read; other files are links
        if path not in (folder / LAYOUT.text_index, folder / LAYOUT.text_vectors):
            path.unlink()
    part.encoder.save(place)
    exported = _exported(folder, part.encoder, [] if stated[TEXT].get(ONE_TOWER) is True else compared_images(gallery))
    return {TEXT: {**stated[TEXT], "fingerprint": fingerprint_of_files(place), EXPORTED: exported}}


def _exported(folder: Path, text: TextEncoder, images: list[Image]) -> dict[str, Any] | None:
    """Write the exported towers; what the manifest says of them, or None, with a message, if there can be none."""
    try:
        return text.export(folder / LAYOUT.text, images)
    except EncoderError as error:
        say(f"Searches by words will need torch, as {text.name} cannot be exported: {error}.")
        return None


def _indexed(
    folder: Path, text: TextEncoder, store: FaissStore, vectors: Vectors | None, like: Store | None = None
) -> dict[str, Any]:
    """Write the index of these vectors, unless they are None, and ask the golden query; returns manifest entries."""
    if vectors is None:
        return {"golden": ask_text(text, store)}
    own = fit_index(vectors, like=like if isinstance(like, FaissStore) else None)
    own.save(folder / LAYOUT.text_index)
    return {"index": asdict(own.settings), "golden": ask_text(text, own)}


def _embedded(gallery: Gallery, encoder: TextEncoder, start: int) -> Iterator[Vectors]:
    """Embeddings of the gallery's thumbnails from row `start` on, float32, some at a time."""
    total = len(gallery) - start
    with progress_bar(total=total, unit="images", desc=f"embedding with {encoder.name}", delay=0.5) as bar:
        for first in range(start, len(gallery), _AT_ONCE):
            rows = range(first, min(first + _AT_ONCE, len(gallery)))
            yield encoder.embed_images([open_image(gallery.thumbnail(row)) for row in rows])
            bar.update(len(rows))


def read_text(
    folder: Path, manifest: Mapping[str, Any], encoder: Encoder, store: FaissStore, engine: str | None = None
) -> TextPart | None:
    """The text model of an artifact; None if it has none. The files must already be verified.

    `encoder` and `store` are those of the artifact; `engine` is as in `TextEncoder.load`. Raises IntegrityError if the
    model or the index does not match the manifest.
    """
    listed = any(name.startswith(f"{LAYOUT.text}/") for name in manifest["files"])
    agree(f"{LAYOUT.text}: text model present", TEXT in manifest, listed)
    if TEXT not in manifest:
        return None
    stated = manifest[TEXT]
    one_tower, exported = stated.get(ONE_TOWER) is True, bool(stated.get(EXPORTED))
    for name, there in ((TEXT_TOWER, exported), (IMAGE_TOWER, exported and not one_tower)):
        agree(f"{LAYOUT.text}/{name}: exported tower", there, f"{LAYOUT.text}/{name}" in manifest["files"])
    try:
        text = TextEncoder.load(folder / LAYOUT.text, engine=engine, pictures=encoder if one_tower else None)
        # Before, fingerprints depended on the version of transformers.
        found = text.fingerprint if EXPORTED in stated else stated["fingerprint"]
        own = store if one_tower else open_index(folder / LAYOUT.text_index, stated["index"])
    except (EncoderError, IntegrityError) as error:
        raise IntegrityError(f"{LAYOUT.text}: {error}") from error
    agree(f"{LAYOUT.text}: fingerprint", stated["fingerprint"], found)
    agree(f"{LAYOUT.text_index}: dimension", stated["dimension"], own.dim)
    agree(f"{LAYOUT.text}: dimension", stated["dimension"], text.dim)
    agree(f"{LAYOUT.text_index}: number of vectors", manifest["rows"], len(own))
    if not isinstance(own, UnreadStore):
        check_lengths(LAYOUT.text_index, own, own.settings.factory)
        replay_text(stated["golden"], text, own)
    return TextPart(text, own)
