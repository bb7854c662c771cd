"""The golden query: one that any reader of an artifact can repeat, with its answer, to see that the parts fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.encoder import Encoder
from retrieval.errors import IntegrityError
from retrieval.gallery import Gallery
from retrieval.images import open_image
from retrieval.stores.faiss import FaissStore

_K = 5
_TOLERANCE = 2e-3  # of a cosine: processors and JPEG decoders differ in the last digits, models by far more


def ask(encoder: Encoder, store: FaissStore, gallery: Gallery) -> dict[str, Any]:
    """A query that any reader of the artifact can repeat, the thumbnail of the first row, and its answer."""
    query = encoder.embed_images([open_image(gallery.thumbnail(0))])
    rows, scores = store.search(query, min(_K, len(gallery)))
    return {"query_row": 0, "rows": rows[0].tolist(), "scores": [round(float(s), 6) for s in scores[0]]}


def replay(golden: dict[str, Any], encoder: Encoder, store: FaissStore, gallery: Gallery) -> None:
    """Ask the query again: the best scores, and those of the very rows that were found, must be the same.

    Raises IntegrityError, naming both, where they are not.
    """
    query = encoder.embed_images([open_image(gallery.thumbnail(golden["query_row"]))])
    stated = np.array(golden["scores"], np.float32)
    _, best = store.search(query, len(stated))
    for scores in (best[0], store.vectors(np.array(golden["rows"], np.int64)) @ query[0]):
        if not np.allclose(scores, stated, atol=_TOLERANCE):
            raise IntegrityError(
                f"golden query: the manifest says scores {golden['scores']}, found "
                f"{[round(float(s), 6) for s in scores]}: encoder, index and gallery do not belong together."
            )
