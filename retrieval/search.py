"""Search: a picture, an image of the gallery, or several of both, in; hits out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.load import load_artifact, read_metrics
from retrieval.artifact.text import TextPart
from retrieval.encoders.explain import Explanation, explain
from retrieval.encoders.image import Encoder
from retrieval.errors import QueryError
from retrieval.evaluation.confidence import Calibration, Confidence
from retrieval.evaluation.duplicates import fold as leaders_of
from retrieval.hub.pull import open_reference
from retrieval.images.compare import Pictures
from retrieval.images.gallery import Gallery, Where
from retrieval.images.open import Region, crop, open_image
from retrieval.images.open import Source as ImageSource
from retrieval.stores.base import MISSING, Store

MAX_K = 1000
_LOOKED_AT = 50, 4 * MAX_K  # rows that folding looks at, at least and at most: it compares each with all others
_NOTHING = 1e-4  # length of a sum of unit vectors: its direction would be one of rounding
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
    chance: float | None = None
    """That it is of the query's kind, if that is in the gallery, in [0, 1]; under a filter rather more."""
    confident: bool | None = None
    """Whether it is a match, by what speaks for it and by how near the nearest of all is; None as for the chance."""
    alike: tuple[int, ...] = ()
    """Rows of its near-duplicates that were folded into it, best first: of those that were looked at to find k hits."""


@dataclass(frozen=True)
class Part:
    """One thing that a query is made of: a picture, an image of the gallery, or words."""

    image: ImageSource | None = None
    row: int | None = None
    words: str = ""
    region: Region | None = None
    """The part of the picture that counts (see `images.crop`); None for all of it."""
    weight: float = 1.0
    """+1 for "like this", -1 for "unlike this"."""


@dataclass(frozen=True)
class Query:
    """What is searched for: a (D,) unit vector, and the rows that are not to be found, those of which it is made."""

    vector: Vector
    leave_out: tuple[int, ...] = ()
    single: bool = True
    """Whether it is one whole picture and nothing else: only of such a chance was learned."""
    by_text: bool = False
    """Whether the vector is one of the encoder that understands text."""


def combine(vectors: Vectors, weights: Sequence[float]) -> Vector:
    """(Q, D) unit vectors to the (D,) unit vector of their weighted sum, the sum over its length.

    The cosine to it is the weighted mean of the cosines to the parts, times a number that is the same for every image:
    "like" draws near and "unlike" pushes away, as in Rocchio's relevance feedback (1971). Raises QueryError where
    nothing is left of the sum.
    """
    total = np.asarray(weights, np.float32) @ vectors
    length = float(np.linalg.norm(total))
    if length < _NOTHING:
        raise QueryError("what is liked and what is not cancel each other out: take one of them away.")
    return np.asarray(total / length, np.float32)


class Searcher:
    """Encoder + store + gallery. Safe to use from several threads at once."""

    def __init__(
        self,
        encoder: Encoder,
        store: Store,
        gallery: Gallery,
        *,
        text: TextPart | None = None,
        map: Vectors | None = None,  # noqa: A002  as the artifact calls it
        calibration: Calibration | None = None,
    ) -> None:
        self.encoder = encoder
        self.store = store
        self.gallery = gallery
        self.text = text
        self.map = map
        self.confidence = Confidence(calibration, self.store, self.gallery.labels) if calibration else None
        self.pictures = Pictures(self.gallery)

    @classmethod
    def open(cls, name: Path | str) -> Searcher:
        """Check an artifact and open it: a folder, or `owner/name[@revision]` on the Hub.

        Raises what `open_reference` and `load_artifact` raise.
        """
        artifact = load_artifact(open_reference(name).folder)
        section = read_metrics(artifact.folder).get("calibration")
        return cls(
            artifact.encoder,
            artifact.store,
            artifact.gallery,
            text=artifact.text,
            map=artifact.map,
            calibration=Calibration.of(section) if section else None,
        )

    def vector(self, part: Part, *, by_text: bool = False) -> Vector:
        """The (D,) unit vector of a part, weight aside.

        Raises ImageError, or QueryError for words where the artifact has no encoder that understands them.
        """
        encoder = self._text.encoder if by_text else self.encoder
        if part.words:
            vector: Vector = self._text.encoder.embed_texts([part.words])[0]
        elif part.row is not None and part.region is None:
            store = self._text.store if by_text else self.store
            vector = store.vectors(np.array([part.row]))[0]
        else:
            vector = encoder.embed_images([self.picture(part)])[0]
        return vector

    def picture(self, part: Part) -> Image.Image:
        """What a part shows: the picture, or the thumbnail of the row, or the region of it; raises ImageError."""
        shown = open_image(self.gallery.thumbnail(part.row) if part.row is not None else part.image or b"")
        return crop(shown, part.region) if part.region else shown

    def query(self, parts: Sequence[Part], vector: Callable[..., Vector] | None = None) -> Query:
        """One query of several parts: the sum of their vectors by weight, see `combine`.

        With words among them, all vectors are those of the encoder that understands text. `vector` may take the place
        of `self.vector`, to remember what it gave. Raises QueryError, or ImageError.
        """
        if not parts:
            raise QueryError("a query has a picture, an image of the gallery or words; there is nothing.")
        by_text = any(part.words for part in parts)
        vectors = np.stack([(vector or self.vector)(replace(part, weight=1.0), by_text=by_text) for part in parts])
        rows = tuple(part.row for part in parts if part.row is not None)
        alone = len(parts) == 1 and parts[0].weight > 0
        combined = vectors[0] if alone else combine(vectors, [part.weight for part in parts])
        return Query(combined, rows, alone and not by_text and not parts[0].region, by_text)

    def search(
        self, image: ImageSource, k: int = 10, *, min_score: float = -1.0, where: Where | None = None
    ) -> list[Hit]:
        """The k images of the gallery that are most like a picture, best first.

        Only hits of at least `min_score` that `where` lets through (column -> value or values). A picture that is in
        the gallery finds itself, with a score of 1. Raises ImageError or QueryError.
        """
        return self.find(self.query([Part(image)]), k, min_score=min_score, where=where)

    def search_by_id(
        self, image_id: str, k: int = 10, *, min_score: float = -1.0, where: Where | None = None
    ) -> list[Hit]:
        """The k others that are most like an image of the gallery, best first; nothing is embedded.

        Raises QueryError for an unknown id, k or filter.
        """
        return self.find(self.query([Part(row=self.gallery.row_of(image_id))]), k, min_score=min_score, where=where)

    def search_text(self, words: str, k: int = 10, *, min_score: float = -1.0, where: Where | None = None) -> list[Hit]:
        """The k images that words describe best; raises QueryError where the artifact has no encoder of text."""
        return self.find(self.query([Part(words=words)]), k, min_score=min_score, where=where)

    def find(
        self, query: Query, k: int = 10, *, min_score: float = -1.0, where: Where | None = None, fold: bool = False
    ) -> list[Hit]:
        """The k rows nearest to a query; with `fold`, the k nearest that are not near-duplicates of a nearer one.

        Folding looks at the 4,000 nearest, and no further: where nearly all of those are near-duplicates, fewer are
        left. Raises QueryError for k, a minimum score or a filter that cannot be.
        """
        if not 1 <= k <= MAX_K:
            raise QueryError(f"k is how many hits to give, from 1 to {MAX_K}; it is {k}.")
        if not -1 <= min_score <= 1:
            raise QueryError(f"the minimum score is a cosine, from -1 to 1; it is {min_score}.")
        allowed = self.gallery.rows_where(where)
        there, left_out = len(self.gallery) if allowed is None else len(allowed), len(query.leave_out)
        least, most = _LOOKED_AT if fold else (k, MAX_K)
        most = min(there, most + left_out)
        wanted = min(max(2 * k if fold else k, least) + left_out, most)
        while True:
            rows, scores = self._nearest(query, wanted, min_score, allowed)
            leaders = leaders_of(rows, self.store.vectors(rows), self.pictures.same) if fold else np.arange(len(rows))
            kept = np.flatnonzero(leaders == np.arange(len(rows)))[:k]
            # Looked at enough: as many as are wanted, all there are, or none left above the least score.
            if len(kept) == k or wanted >= most or len(rows) < wanted - left_out:
                return self._hits(query, rows, scores, kept, leaders)
            wanted = min(2 * wanted, most)

    def _nearest(self, query: Query, wanted: int, min_score: float, allowed: Ids | None) -> tuple[Ids, Vector]:
        if not wanted:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        store = self._text.store if query.by_text else self.store
        rows, scores = store.search(query.vector[None], wanted, allowed)
        # Rounding, and vectors kept in 16 bits, can bring a cosine a hair above 1 or below -1, the least `min_score`.
        cosines = np.clip(scores[0], -1, 1)
        kept = (rows[0] != MISSING) & (cosines >= min_score - _ROUNDING) & ~np.isin(rows[0], query.leave_out)
        return rows[0][kept], cosines[kept]

    def _hits(self, query: Query, rows: Ids, scores: Vector, kept: Ids, leaders: Ids) -> list[Hit]:
        """The hits at the places `kept`, each with what was folded into it."""
        chances: list[Any] = [None] * len(kept)
        confident: list[Any] = [None] * len(kept)
        if self.confidence and query.single and len(kept):
            own = query.leave_out[0] if query.leave_out else MISSING
            chances, confident = self.confidence.of(query.vector, rows[kept], scores[kept], own)
        found = self.gallery.take(rows[kept])
        return [
            Hit(int(rows[at]), row.id, float(scores[at]), row.label, row.source, row.attributes, chance, sure, alike)
            for at, row, chance, sure, alike in zip(
                kept, found, chances, confident, _followers(rows, kept, leaders), strict=True
            )
        ]

    @property
    def _text(self) -> TextPart:
        if self.text is None:
            raise QueryError(
                "this artifact has no encoder that understands text: build it with --text-model, or search by "
                "a picture."
            )
        return self.text


def _followers(rows: Ids, kept: Ids, leaders: Ids) -> list[tuple[int, ...]]:
    """The rows that follow each leader, itself not among them."""
    return [tuple(rows[(leaders == at) & (np.arange(len(rows)) != at)].tolist()) for at in kept]


def explain_parts(searcher: Searcher, query: Part, hit: Part) -> Explanation:
    """Why a hit, an image of the gallery, is similar to a picture of a query; raises EncoderError as `explain` does."""
    vector = searcher.vector(query) if is_indexed(query) else None
    pictures = searcher.picture(query), searcher.picture(hit)
    return explain(searcher.encoder, *pictures, searcher.vector(hit), vector)


def is_indexed(part: Part) -> bool:
    """Whether its vector is one of the index, and its picture at hand only a thumbnail of what that was made of."""
    return part.row is not None and part.region is None
