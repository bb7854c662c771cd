"""Endpoints for programs (`gradio_client`, JavaScript, plain HTTP, MCP): search, explanations, near-duplicates."""

# Gradio inspects the annotations of these functions as objects, so they must not become strings
# (no `from __future__ import annotations` here).

from typing import Any

import gradio as gr

from retrieval.evaluation.duplicates import GATE, Group
from retrieval.images.gallery import Row
from retrieval.search import Hit
from retrieval.ui.api.answers import (
    AboutJson,
    Answer,
    ExplanationJson,
    Groups,
    HitJson,
    ImageJson,
    Info,
    WhereJson,
    heat_json,
)
from retrieval.ui.api.arguments import FETCHED, checked, root_of
from retrieval.ui.intake.addresses import Addresses
from retrieval.ui.originals import file_name
from retrieval.ui.pieces.errors import errors_as_sentences
from retrieval.ui.server.watched.metrics import METRICS
from retrieval.ui.serving import Live, Served

CONCURRENCY = 12  # searches at once: while a batch of them is in the encoder, others are decoded, wait, or are answered
# Of each group at once. An explanation keeps the encoder busy for two pictures, and near-duplicates take all cores.
_AT_ONCE = {"search": CONCURRENCY, "explain": 2, "duplicates": 1}


class Endpoints:
    """The endpoint functions; clients see their names, arguments and docstrings."""

    def __init__(self, live: Live, addresses: Addresses | None = None) -> None:
        self._live, self._addresses = live, addresses or Addresses()

    def add(self) -> None:
        """Register them with the current Blocks, each in the group that shares its limit."""
        groups = {self.explain: "explain", self.duplicates: "duplicates"}
        for each in (self.search, self.search_by_id, self.search_text, self.explain, self.info, self.duplicates):
            group = groups.get(each, "search")
            gr.api(each, api_name=each.__name__, concurrency_limit=_AT_ONCE[group], concurrency_id=group)

    def search(
        self,
        image: gr.FileData,
        request: gr.Request,
        k: int = 10,
        min_score: float = -1.0,
        where: WhereJson | None = None,
        region: list[float] | None = None,
        like: list[str] | None = None,
        unlike: list[str] | None = None,
        fold: bool = False,
        group_by: str | None = None,
    ) -> Answer:
        """The k images of the gallery that are most like a picture, best first.

        Args:
            image: the picture: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC.
            k: how many hits, 1 to 1000.
            min_score: only hits with at least this cosine, -1 to 1.
            where: a filter, column -> value, list of values, or operators, for example {"price": {"<=": 50}}.
            region: the part of the picture that counts: left, top, right and bottom, each from 0 to 1.
            like: ids of images of the gallery that the hits should be like too.
            unlike: ids of images of the gallery that the hits should not be like.
            fold: whether near-duplicates of a hit are folded into it.
            group_by: a column of which each value is shown once, by its best hit.
        """
        with errors_as_sentences():
            picture = {"image": self._picture(image), "region": checked("region", region)}
            return self._answer(request, k, min_score, where, like, unlike, fold, group_by, **picture)

    def search_by_id(
        self,
        id: str,  # noqa: A002  the name that a client sees
        request: gr.Request,
        k: int = 10,
        min_score: float = -1.0,
        where: WhereJson | None = None,
        like: list[str] | None = None,
        unlike: list[str] | None = None,
        fold: bool = False,
        group_by: str | None = None,
    ) -> Answer:
        """The k other images that are most like an image of the gallery, best first.

        Args:
            id: the id of an image of the gallery.
            k: how many hits, 1 to 1000.
            min_score: only hits with at least this cosine, -1 to 1.
            where: a filter, column -> value, list of values, or operators, for example {"price": {"<=": 50}}.
            like: ids of images of the gallery that the hits should be like too.
            unlike: ids of images of the gallery that the hits should not be like.
            fold: whether near-duplicates of a hit are folded into it.
            group_by: a column of which each value is shown once, by its best hit.
        """
        with errors_as_sentences():
            return self._answer(request, k, min_score, where, like, unlike, fold, group_by, id=checked("id", id))

    def search_text(
        self,
        text: str,
        request: gr.Request,
        k: int = 10,
        min_score: float = -1.0,
        where: WhereJson | None = None,
        like: list[str] | None = None,
        unlike: list[str] | None = None,
        fold: bool = False,
        group_by: str | None = None,
    ) -> Answer:
        """The k images that words describe best, best first; only of an artifact that was built with a text model.

        Args:
            text: the words, "a red bag with stripes" for example.
            k: how many hits, 1 to 1000.
            min_score: only hits with at least this cosine, -1 to 1.
            where: a filter, column -> value, list of values, or operators, for example {"price": {"<=": 50}}.
            like: ids of images of the gallery that the hits should be like too.
            unlike: ids of images of the gallery that the hits should not be like.
            fold: whether near-duplicates of a hit are folded into it.
            group_by: a column of which each value is shown once, by its best hit.
        """
        with errors_as_sentences():
            words = checked("text", text)
            return self._answer(request, k, min_score, where, like, unlike, fold, group_by, words=words)

    def explain(
        self,
        hit: str,
        image: gr.FileData | None = None,
        id: str | None = None,  # noqa: A002  the name that a client sees
        region: list[float] | None = None,
    ) -> ExplanationJson:
        """Why a hit is similar to a picture, or to an image of the gallery: what each place of both adds to the cosine.

        Args:
            hit: the id of the hit.
            image: the picture that was searched with; or else an id.
            id: the id of the image of the gallery that was searched with.
            region: the part of it that was searched with: left, top, right and bottom, each from 0 to 1.
        """
        with errors_as_sentences():
            picture, other = None if image is None else self._picture(image), None if id is None else checked("id", id)
            part = checked("region", region)
            why = self._live.now.searcher.explain(checked("hit", hit), picture, id=other, region=part)
            return {"cosine": why.cosine, "query": heat_json(why.query), "hit": heat_json(why.hit)}

    def duplicates(self, request: gr.Request, threshold: float = GATE, limit: int = 100) -> Groups:
        """Groups of near-duplicates in the gallery, the largest first.

        Args:
            threshold: the least cosine of an image to the first of its group, 0.6 to 1; their pixels must match too.
            limit: how many groups, 1 to 1000.
        """
        with errors_as_sentences():
            most, least = checked("limit", limit), checked("threshold", threshold)
            served, root = self._live.now, root_of(request)
            groups = served.find_groups(least)
            return {"groups": [_group(served, group, root) for group in groups[:most]], "found": len(groups)}

    def info(self) -> Info:
        """What is being searched: the artifact, its size, its models, and the columns that `where` can filter by."""
        served = self._live.now
        searcher, artifact = served.searcher, served.artifact
        return {
            "artifact": artifact.name,
            "commit": artifact.commit or "",
            "revision": served.revision,
            "offline": artifact.offline,
            "images": len(searcher.gallery),
            "columns": ["label", *searcher.gallery.attributes],
            "model": searcher.encoder.name,
            "dimension": searcher.encoder.dim,
            "store": searcher.database,
            "fingerprint": searcher.encoder.fingerprint,
            "text_model": searcher.text.encoder.name if searcher.text else "",
            "calibrated": searcher.confidence is not None,
            "explains": searcher.explains,
        }

    def _picture(self, image: Any) -> str | bytes:
        """The path of an uploaded picture, or the content of one that was fetched."""
        given = checked("image", image)
        return self._addresses.take(given) if FETCHED in given else str(given["path"])

    def _answer(
        self,
        request: gr.Request,
        k: Any,
        min_score: Any,
        where: Any,
        like: Any,
        unlike: Any,
        fold: Any,
        group_by: Any,
        **query: Any,
    ) -> Answer:
        served = self._live.now
        found = served.searcher.search(
            k=checked("k", k),
            min_score=checked("min_score", min_score),
            where=checked("where", where),
            like=checked("like", like),
            unlike=checked("unlike", unlike),
            fold=checked("fold", fold),
            group_by=None if group_by is None else checked("group_by", group_by),
            **query,
        )
        root = root_of(request)
        with METRICS.stage("render"):
            hits = [_hit(served, hit, root) for hit in found]
        return {"hits": hits, "confident": found[0].confident if found else None}


def _hit(served: Served, hit: Hit, root: str) -> HitJson:
    return {
        "id": hit.id,
        "score": hit.score,
        "chance": hit.chance,
        "confident": hit.confident,
        **_image(served, hit.row, hit, root),
        "alike": [served.searcher.gallery.ids[row] for row in hit.alike],
    }


def _group(served: Served, group: Group, root: str) -> list[ImageJson]:
    rows = served.searcher.gallery.take(group.rows)
    return [
        {"id": values.id, "score": score, **_image(served, row, values, root)}
        for row, score, values in zip(group.rows, group.scores, rows, strict=True)
    ]


def _image(served: Served, row: int, values: Row | Hit, root: str) -> AboutJson:
    thumbnail = served.thumbnails.url(row, root)
    return {
        "label": values.label,
        "source": values.source,
        "file": file_name(values.source),
        "attributes": values.attributes,
        "thumbnail": thumbnail,
        "original": served.originals.link(served.searcher.gallery, row, values, root) or thumbnail,
    }
