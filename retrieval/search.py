"""Search: takes a picture, a gallery image, text, or a combination of them; returns hits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retrieval.arrays import Ids, Vectors
from retrieval.artifact.load import Artifact
from retrieval.artifact.pairing import pair
from retrieval.artifact.parts.text import TextPart
from retrieval.artifact.tags import conditions_of
from retrieval.console import Progress
from retrieval.encoders.base import Explainer, ImageEncoder, Resize, resize_of
from retrieval.encoders.explain import Explanation, explain
from retrieval.errors import EncoderError, QueryError
from retrieval.evaluation.across import Copy, Side, copies_between
from retrieval.evaluation.confidence import Calibration, Confidence
from retrieval.evaluation.duplicates import GATE, Group, check_threshold, find_groups
from retrieval.evaluation.duplicates import fold as leaders_of
from retrieval.evaluation.variants import changed_pairs, check_kinds
from retrieval.forking import Cache
from retrieval.hub.pull import open_artifact
from retrieval.images.compare import Pictures
from retrieval.images.door.views import View, within
from retrieval.images.filters import Where
from retrieval.images.gallery import THUMBNAIL_SIDE, Gallery
from retrieval.images.open import Picture, open_views
from retrieval.images.regions import as_region
from retrieval.query import MAX_K, Part, Query, Vector, check_k, check_picture, check_score, combine, key_of
from retrieval.stores.base import MISSING, Store
from retrieval.stores.paired import PairedStore
from retrieval.stores.servers.base import Tagged
from retrieval.stores.servers.open import STORE

if TYPE_CHECKING:  # building needs `datasets`, which takes a second to import
    from retrieval.build.reference import Reference

__all__ = ["MAX_K", "Hit", "Part", "Query", "Searcher", "find_copies", "find_duplicates"]

Stage = Callable[[str], AbstractContextManager[object]]
"""Wraps a stage of a search, named decode, embed or search, to measure it."""

_LOOKED_AT = 50, 4 * MAX_K  # fewest and most rows that folding compares: it needs all pairs of them
_ROUNDING = 1e-6  # of cosine similarity: with a minimum score of 1, a picture still finds itself
_REMEMBERED = 256  # cached query embeddings: a new filter or k does not embed again


@dataclass(frozen=True)
class Hit:
    """A gallery row with its score: the cosine similarity to the query, in [-1, 1]."""

    row: int
    id: str
    score: float
    label: str | None
    source: str
    attributes: dict[str, Any] = field(default_factory=dict)
    chance: float | None = None
    """Match probability in [0, 1], given that the query's class is in the gallery; ignores filters. None if unknown."""
    confident: bool | None = None
    """Whether the hit passes the confidence threshold and the similarity floor; None if that is unknown."""
    alike: tuple[int, ...] = ()
    """Rows of the near-duplicates folded into this hit, best first, out of the candidates examined for the k hits."""


class Searcher:
    """Searches a gallery with an encoder and a vector store. Thread-safe, and safe to use in a forked child.

    A Searcher opened from an artifact can be pickled and sent to another process, which opens the artifact again.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        store: Store,
        gallery: Gallery,
        *,
        text: TextPart | None = None,
        map: Vectors | None = None,  # noqa: A002  the artifact's name for it
        calibration: Calibration | None = None,
        artifact: Artifact | None = None,
    ) -> None:
        """`store` has a vector for each row of `gallery`, from `encoder`."""
        self.encoder = encoder
        self.store = store
        self.gallery = gallery
        self.text = text
        self.map = map
        self.artifact = artifact
        self.confidence = Confidence(calibration, self.store, self.gallery.column("label")) if calibration else None
        self.pictures = Pictures(self.gallery)
        self.stage: Stage = nullcontext
        self._vectors = Cache[tuple[Any, ...], Vector](_REMEMBERED)

    @classmethod
    def open(
        cls, name: Path | str, *, sha256: str | None = None, engine: str | None = None, store: str | None = None
    ) -> Searcher:
        """Open and verify an artifact: a folder, or `owner/name[@revision]` on the Hub.

        `sha256` pins it and `engine` runs its encoder, as in `open_artifact`, whose errors this raises. `store` is as
        in `of`.
        """
        indexed = not (store or os.environ.get(STORE))  # else its own index is not read
        return cls.of(open_artifact(name, sha256=sha256, engine=engine, indexed=indexed), store=store)

    @classmethod
    def of(cls, artifact: Artifact, store: str | None = None) -> Searcher:
        """A Searcher for an artifact that is already open.

        `store` is the URI of a collection that holds its vectors (see docs/stores.md). None takes what LOOKALIKE_STORE
        says, else the artifact's own index. Raises StoreError for one that does not hold this version.
        """
        uri = store or os.environ.get(STORE)
        vectors: Store = pair(artifact, uri) if uri else artifact.store
        section, text = artifact.metrics.calibration, artifact.text
        if text and text.store is artifact.store:  # one tower
            text = replace(text, store=vectors)
        return cls(
            artifact.encoder,
            vectors,
            artifact.gallery,
            text=text,
            map=artifact.map,
            calibration=Calibration.of(section) if section else None,
            artifact=artifact,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        if self.artifact is None:
            raise TypeError("this Searcher was not opened from an artifact, and cannot be sent to another process.")
        return Searcher.of, (self.artifact, self.store.address if isinstance(self.store, PairedStore) else None)

    def search(
        self,
        image: Picture | None = None,
        k: int = 10,
        *,
        id: str | None = None,  # noqa: A002  the name used everywhere else
        words: str = "",
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        region: Sequence[float] | None = None,
        where: Where | None = None,
        fold: bool = False,
        group_by: str | None = None,
        min_score: float = -1.0,
    ) -> list[Hit]:
        """Find the k gallery images most similar to the query, best first.

        Args:
            image: a query picture: a path, bytes, a binary file, a PIL image, or a uint8 array. If it is in the
                gallery, it finds itself with a score of 1.
            k: the number of hits, 1 to 1000.
            id: the id of a gallery image to use as the query. It is not among its own hits.
            words: a text description of the images to find; needs an artifact with a text model.
            like: ids of gallery images that the hits should also resemble.
            unlike: ids of gallery images that the hits should not resemble.
            region: the part of the picture to search for: left, top, right, bottom, as fractions from 0 to 1.
            where: a filter, column -> value, values, or operators as in {"price": {"<=": 50}} (see docs/filters.md).
            fold: whether to fold near-duplicates of a hit into it.
            group_by: a column of which each value is shown once, by its best hit; rows without a value are all shown.
            min_score: the minimum cosine similarity of a hit, -1 to 1.

        Raises:
            ImageError: the picture cannot be read, or the region is invalid.
            QueryError: the query is empty, or an argument is invalid; the message says what is valid.
        """
        check_k(k), check_score(min_score)  # before the slow embedding
        parts = self._main_parts(image, id, words, region)
        parts += [Part(row=self.gallery.row_of(name)) for name in _ids(like, "like")]
        parts += [Part(row=self.gallery.row_of(name), weight=-1.0) for name in _ids(unlike, "unlike")]
        return self.find(self.query(parts), k, min_score=min_score, where=where, fold=fold, group_by=group_by)

    def search_by_id(
        self, image_id: str, k: int = 10, *, min_score: float = -1.0, where: Where | None = None
    ) -> list[Hit]:
        """Shorthand for `search(id=image_id)`."""
        return self.search(id=image_id, k=k, min_score=min_score, where=where)

    def search_text(self, words: str, k: int = 10, *, min_score: float = -1.0, where: Where | None = None) -> list[Hit]:
        """Shorthand for `search(words=words)`."""
        return self.search(words=words, k=k, min_score=min_score, where=where)

    def explain(
        self,
        hit: str,
        image: Picture | None = None,
        *,
        id: str | None = None,  # noqa: A002  as in `search`
        region: Sequence[float] | None = None,
    ) -> Explanation:
        """Explain why the gallery image with the id `hit` is similar to a query picture or another gallery image.

        `image` or `id`, and `region`, are the same as in `search`. Raises EncoderError if the encoder's similarity does
        not decompose into a sum over image regions, ImageError, or QueryError.
        """
        if (image is None) == (id is None):
            raise QueryError("an explanation needs exactly one picture: give either image or id, not both.")
        [part] = self._main_parts(image, id, "", region)
        return self.explain_parts(part, Part(row=self.gallery.row_of(hit)))

    def explain_parts(self, query: Part, hit: Part) -> Explanation:
        """Explain why a gallery image is similar to a part of a query; raises the same errors as `explain`."""
        if not isinstance(self.encoder, Explainer):
            raise EncoderError(f"the similarity of {self.encoder.name!r} cannot be split into parts of the picture.")
        vector = self.vector(query) if is_indexed(query) else None
        resize = resize_of(self.encoder)
        pictures = self.picture(query, resize), self.picture(hit, resize)
        return explain(self.encoder, *pictures, self.vector(hit), vector)

    @property
    def database(self) -> str:
        """The address of the vector database that is searched; empty for the artifact's own index."""
        return self.store.collection.uri if isinstance(self.store, PairedStore) else ""

    @property
    def explains(self) -> bool:
        """Whether this encoder supports `explain`."""
        return isinstance(self.encoder, Explainer) and self.encoder.explains

    def query(self, parts: Sequence[Part]) -> Query:
        """Combine parts into one query, the weighted sum of their vectors (see `retrieval.query.combine`).

        If any part has words, the text model embeds all parts. Raises QueryError for an empty or invalid query, and
        ImageError for a picture that cannot be read.
        """
        if not parts:
            raise QueryError("the query is empty: give a picture, an image of the gallery, or words.")
        by_text = any(part.words for part in parts)
        vectors = np.stack([self.vector(part, by_text=by_text) for part in parts])
        rows = tuple(part.row for part in parts if part.row is not None)
        alone = len(parts) == 1 and parts[0].weight > 0
        combined = vectors[0] if alone else combine(vectors, [part.weight for part in parts])
        return Query(combined, rows, alone and not by_text and not parts[0].region, by_text)

    def vector(self, part: Part, *, by_text: bool = False) -> Vector:
        """The (D,) float32 unit vector of a part, ignoring its weight; recent embeddings are cached.

        Raises ImageError if the picture cannot be read, QueryError for words without a text model, and EncoderError if
        the encoder returns a wrong shape or non-finite values.
        """
        if part.row is not None and part.region is None:
            store = self._text.store if by_text else self.store
            indexed: Vector = store.vectors(np.array([part.row]))[0]
            return indexed
        if part.row is None and not part.words:
            check_picture(part.image)
        key = (by_text, known) if (known := key_of(part)) else None
        if key and (cached := self._vectors.get(key)) is not None:
            return cached
        vector = self._embedded(part, by_text)
        if key:
            self._vectors.put(key, vector)
        return vector

    def picture(self, part: Part, resize: Resize | None = None) -> Image.Image:
        """The picture of a part, or the thumbnail of its row, cropped to its region; raises ImageError.

        It is resized if that gives fewer pixels.
        """
        source = part.image if part.row is None else self.gallery.thumbnail(part.row)
        with self.stage("decode"):
            return open_views(b"" if source is None else source, [View(part.region, resize)])[0]

    def find(
        self,
        query: Query,
        k: int = 10,
        *,
        min_score: float = -1.0,
        where: Where | None = None,
        fold: bool = False,
        group_by: str | None = None,
    ) -> list[Hit]:
        """The k nearest hits to a query, best first; with `fold`, near-duplicates of a better hit are folded into it.

        With `group_by`, only the best hit with each value of that column. Both examine at most the 4,000 nearest rows,
        so fewer than k hits can remain. Raises QueryError for an invalid k, minimum score, filter or column.
        """
        k, min_score = check_k(k), check_score(min_score)
        groups = None if group_by is None else self.gallery.groups(group_by)
        several = fold or groups is not None
        allowed = self.gallery.rows_where(where)
        tagged = conditions_of(self.gallery, where) if where and isinstance(self.store, PairedStore) else []
        there, left_out = len(self.gallery) if allowed is None else len(allowed), len(query.leave_out)
        least, most = _LOOKED_AT if several else (k, MAX_K)
        most = min(there, most + left_out)
        wanted = min(max(2 * k if several else k, least) + left_out, most)
        while True:
            rows, scores = self._nearest(query, wanted, min_score, allowed, tagged)
            leaders = leaders_of(rows, self.store.vectors(rows), self.pictures.same) if fold else np.arange(len(rows))
            kept = np.flatnonzero(leaders == np.arange(len(rows)))
            kept = (kept if groups is None else kept[_first_of_each(groups[rows[kept]])])[:k]
            # Stop with k hits, with all allowed rows examined, or with no rows left above the minimum score.
            if len(kept) == k or wanted >= most or len(rows) < wanted - left_out:
                return self._hits(query, rows, scores, kept, leaders)
            wanted = min(2 * wanted, most)

    def _main_parts(
        self, image: Picture | None, image_id: str | None, words: str, region: Sequence[float] | None
    ) -> list[Part]:
        """The query parts other than `like` and `unlike`: the image, id, region and words."""
        if region is not None and (image is None) == (image_id is None):
            raise QueryError("a region needs exactly one picture: give it with either image or id.")
        box = None if region is None else as_region(region)
        parts = [] if image is None else [Part(image, region=box)]
        parts += [] if image_id is None else [Part(row=self.gallery.row_of(image_id), region=box)]
        if not isinstance(words, str):
            raise QueryError(f"words must be a string, not {type(words).__qualname__}.")
        return parts + ([Part(words=words)] if words else [])

    def _embedded(self, part: Part, by_text: bool) -> Vector:
        if part.words:
            worded: Vector = self._text.encoder.embed_texts([part.words])[0]
            return worded
        encoder, store = (self._text.encoder, self._text.store) if by_text else (self.encoder, self.store)
        # The text model's index is made from thumbnails.
        picture = self.picture(part, within(THUMBNAIL_SIDE) if by_text else resize_of(encoder))
        with self.stage("embed"):
            vectors = encoder.embed_images([picture])
        if vectors.shape != (1, store.dim) or not np.isfinite(vectors).all():
            raise EncoderError(
                f"the encoder {encoder.name!r} returned embeddings of shape {vectors.shape} for one picture, but the "
                f"index needs finite values of shape (1, {store.dim}). Use the encoder of the artifact."
            )
        return np.asarray(vectors[0], np.float32)

    def _nearest(
        self, query: Query, wanted: int, min_score: float, allowed: Ids | None, tagged: Sequence[Tagged]
    ) -> tuple[Ids, Vector]:
        if not wanted:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        store = self._text.store if query.by_text else self.store
        with self.stage("search"):
            more = {"where": tagged} if isinstance(store, PairedStore) else {}
            rows, scores = store.search(query.vector[None], wanted, allowed, **more)
        # Rounding and 16-bit storage can put a similarity slightly outside [-1, 1], below the lowest `min_score`.
        cosines = np.clip(scores[0], -1, 1)
        kept = (rows[0] != MISSING) & (cosines >= min_score - _ROUNDING) & ~np.isin(rows[0], query.leave_out)
        return rows[0][kept], cosines[kept]

    def _hits(self, query: Query, rows: Ids, scores: Vector, kept: Ids, leaders: Ids) -> list[Hit]:
        """The hits at positions `kept`, each with the near-duplicates folded into it."""
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
            raise QueryError("this artifact has no text model: build it with --text-model, or search by picture.")
        return self.text


def _followers(rows: Ids, kept: Ids, leaders: Ids) -> list[tuple[int, ...]]:
    """The rows folded into each leader, without the leader itself."""
    return [tuple(rows[(leaders == at) & (np.arange(len(rows)) != at)].tolist()) for at in kept]


def is_indexed(part: Part) -> bool:
    """Whether the part's vector is in the index; its original picture is then not available, only a thumbnail."""
    return part.row is not None and part.region is None


def find_duplicates(
    source: Artifact | Searcher,
    threshold: float = GATE,
    progress: Progress | None = None,
    *,
    also: Sequence[str] = (),
) -> list[Group]:
    """Find groups of near-duplicates in a gallery: images that show the same picture. The largest group comes first.

    The pixels decide. `threshold` is the minimum cosine similarity of an image to the first of its group, from 0.6 to
    1; the default excludes hardly any copy. `also` names changed copies to find as well, by their pixels alone:
    `mirrored`, `rotated` (by quarter turns), `grey`, `border`, `crop` (up to 20% of width and height). `progress`
    receives the rows done and the total. Raises QueryError for an invalid threshold or change.
    """
    check_threshold(threshold)
    check_kinds(also)
    pictures = _pictures(source)
    pairs = list(changed_pairs(pictures, pictures, also, progress))
    return find_groups(source.store, pictures.same, threshold, progress, partial(pictures.likely, pictures), pairs)


def find_copies(
    source: Artifact | Searcher,
    reference: Artifact | Searcher | Reference,
    threshold: float = GATE,
    progress: Progress | None = None,
    *,
    also: Sequence[str] = (),
) -> list[Copy]:
    """Find the images of a gallery that are near-duplicates of images in another one, such as a test set.

    The rule and the other arguments are those of `find_duplicates`. All pairs are compared, sorted by row, then by
    cosine similarity, the highest first. Raises QueryError if the two have different encoders.
    """
    check_threshold(threshold)
    check_kinds(also)
    if source.encoder.fingerprint != reference.encoder.fingerprint:
        raise QueryError(
            f"the two have different encoders: {source.encoder.name!r} and {reference.encoder.name!r}, or the same one "
            "with other weights. Build the reference again with the encoder of the other, or give its images instead."
        )
    sides = Side(source.store, _pictures(source)), Side(reference.store, _pictures(reference))
    return copies_between(*sides, threshold, also, progress)


def _pictures(source: Artifact | Searcher | Reference) -> Pictures:
    return source.pictures if isinstance(source, Searcher) else Pictures(source.gallery)


def _ids(ids: Any, name: str) -> Sequence[str]:
    if isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
        raise QueryError(f"{name} must be a list of gallery ids, not {ids!r}.")
    return list(ids)


def _first_of_each(groups: Ids) -> Ids:
    """The places at which each number occurs first, ascending; every -1 counts as different."""
    alone = groups < 0
    _, first = np.unique(np.where(alone, -1 - np.arange(len(groups)), groups), return_index=True)
    return np.sort(first)
