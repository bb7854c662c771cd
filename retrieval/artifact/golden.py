"""Golden queries: stored queries with their answers, replayed on load to verify that model, index and gallery match."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.arrays import Floats, Vectors
from retrieval.encoders.image import Encoder
from retrieval.errors import IntegrityError
from retrieval.images.gallery import Gallery
from retrieval.images.open import open_image
from retrieval.stores.base import Store
from retrieval.stores.faiss import FaissStore

if TYPE_CHECKING:
    from retrieval.encoders.text.encoder import TextEncoder

_K = 5
_TEXT = "a photo of a red thing on a white background, seen from the side"  # works for any gallery
_TOLERANCE = 2e-3  # of cosine similarity: CPUs and JPEG decoders differ in the last digits, models by much more


def ask(encoder: Encoder, store: FaissStore, gallery: Gallery) -> dict[str, Any]:
    """The golden query, which is the thumbnail of the first row, with its answer; any reader can replay it."""
    query = encoder.embed_images([open_image(gallery.thumbnail(0))])
    return {"query_row": 0, **_answer(query, store)}


def replay(golden: dict[str, Any], encoder: Encoder, store: FaissStore, gallery: Gallery) -> None:
    """Repeat the golden query; the top scores, and the scores of the stored rows, must match the stored scores.

    Raises IntegrityError with the stored and the actual scores if they differ by more than the tolerance.
    """
    query = encoder.embed_images([open_image(gallery.thumbnail(golden["query_row"]))])
    _compare("golden query", golden, query, store, "encoder, index and gallery")


def replay_rows(golden: dict[str, Any], encoder: Encoder, store: Store, gallery: Gallery) -> None:
    """Repeat the golden query on the stored rows alone: a database may find other rows than the artifact's own index.

    Raises IntegrityError as `replay` does.
    """
    query = encoder.embed_images([open_image(gallery.thumbnail(golden["query_row"]))])
    _check("golden query", golden, _of_rows(golden, store, query), "encoder, gallery and the vectors in the database")


def replay_text_rows(golden: dict[str, Any], encoder: TextEncoder, store: Store) -> None:
    """The same for a text model that is compared with the vectors of the artifact's own encoder."""
    query = encoder.embed_texts([golden["query"]])
    what = "golden query of the text model"
    _check(what, golden, _of_rows(golden, store, query), "the text model and the vectors in the database")


def ask_text(encoder: TextEncoder, store: FaissStore) -> dict[str, Any]:
    """The golden query of the text model: a fixed text, with its answer from the text index."""
    return {"query": _TEXT, **_answer(encoder.embed_texts([_TEXT]), store)}


def replay_text(golden: dict[str, Any], encoder: TextEncoder, store: FaissStore) -> None:
    """Repeat the golden query of the text model; see `replay`, which raises the same."""
    query = encoder.embed_texts([golden["query"]])
    _compare("golden query of the text model", golden, query, store, "the text model and its index")


def _answer(query: Vectors, store: FaissStore) -> dict[str, Any]:
    rows, scores = store.search(query, min(_K, len(store)))
    return {"rows": rows[0].tolist(), "scores": [round(float(s), 6) for s in scores[0]]}


def _compare(what: str, golden: dict[str, Any], query: Vectors, store: FaissStore, parts: str) -> None:
    best = store.search(query, len(golden["scores"]))[1][0]
    for scores in (best, _of_rows(golden, store, query)):
        _check(what, golden, scores, parts)


def _of_rows(golden: dict[str, Any], store: Store, query: Vectors) -> Floats:
    scores: Floats = store.vectors(np.array(golden["rows"], np.int64)) @ query[0]
    return scores


def _check(what: str, golden: dict[str, Any], scores: Floats, parts: str) -> None:
    if not np.allclose(scores, np.array(golden["scores"], np.float32), atol=_TOLERANCE):
        raise IntegrityError(
            f"{what}: the manifest says the scores are {golden['scores']}, found "
            f"{[round(float(s), 6) for s in scores]}: {parts} do not match."
        )
