"""Search: a picture, or an image of the gallery, in; hits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.artifact import load_artifact
from retrieval.encoder import Encoder
from retrieval.errors import QueryError
from retrieval.gallery import Gallery, Where
from retrieval.images import Source as ImageSource
from retrieval.images import open_image
from retrieval.remote import open_reference
from retrieval.stores.base import MISSING, Store

MAX_K = 1000
_ROUNDING = 1e-6  # of a cosine: a picture that is asked for with a score of 1 finds itself
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hit:
    """A row of the gallery with its score, the cosine to the query in [-1, 1]."""

    row: int
    id: str
    score: float
    label: str | None
    source: str
    attributes: dict[str, Any] = field(default_factory=dict)


class Searcher:
    """Encoder + store + gallery. Safe to use from several threads at once."""

    def __init__(self, encoder: Encoder, store: Store, gallery: Gallery) -> None:
        self.encoder = encoder
        self.store = store
        self.gallery = gallery

    @classmethod
    def open(cls, name: Path | str) -> Searcher:
        """Check an artifact and open it: a folder, or `owner/name[@revision]` on the Hub.

        Raises what `open_reference` and `load_artifact` raise.
        """
        artifact = load_artifact(open_reference(name).folder)
        return cls(artifact.encoder, artifact.store, artifact.gallery)

    def embed(self, image: ImageSource) -> Vector:
        """Bytes, a path or a binary file to its (D,) float32 unit vector; raises ImageError."""
        vector: Vector = self.encoder.embed_images([open_image(image)])[0]
        return vector

    def search(
        self, image: ImageSource, k: int = 10, *, min_score: float = -1.0, where: Where | None = None
    ) -> list[Hit]:
        """The k images of the gallery that are most like a picture, best first.

        Only hits of at least `min_score` that `where` lets through (column -> value or values). A picture that is in
        the gallery finds itself, with a score of 1. Raises ImageError or QueryError.
        """
        return self.search_vector(self.embed(image), k, min_score=min_score, where=where)

    def search_by_id(
        self, image_id: str, k: int = 10, *, min_score: float = -1.0, where: Where | None = None
    ) -> list[Hit]:
        """The k others that are most like an image of the gallery, best first; nothing is embedded.

        Raises QueryError for an unknown id, k or filter.
        """
        row = self.gallery.row_of(image_id)
        vector: Vector = self.store.vectors(np.array([row]))[0]
        return self.search_vector(vector, k, min_score=min_score, where=where, leave_out=[row])

    def search_vector(
        self,
        vector: Vector,
        k: int = 10,
        *,
        min_score: float = -1.0,
        where: Where | None = None,
        leave_out: Sequence[int] = (),
    ) -> list[Hit]:
        """The k rows nearest to a (D,) unit vector, those of `leave_out` excepted."""
        if not 1 <= k <= MAX_K:
            raise QueryError(f"k is how many hits to give, from 1 to {MAX_K}; it is {k}.")
        if not -1 <= min_score <= 1:
            raise QueryError(f"the minimum score is a cosine, from -1 to 1; it is {min_score}.")
        wanted = min(k + len(leave_out), len(self.gallery))
        rows, scores = self.store.search(vector[None], wanted, self.gallery.rows_where(where))
        # Rounding, and vectors kept in 16 bits, can bring a cosine a hair above 1 or below -1, the least `min_score`.
        cosines = np.clip(scores[0], -1, 1)
        kept = (rows[0] != MISSING) & (cosines >= min_score - _ROUNDING) & ~np.isin(rows[0], leave_out)
        rows_kept, scores_kept = rows[0][kept][:k], cosines[kept][:k]
        return [
            Hit(int(number), row.id, float(score), row.label, row.source, row.attributes)
            for number, score, row in zip(rows_kept, scores_kept, self.gallery.take(rows_kept), strict=True)
        ]
