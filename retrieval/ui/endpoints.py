"""The endpoints for programs: `/search`, `/search_by_id` and `/info`, by `gradio_client`, JavaScript or plain HTTP."""

# Gradio reads the annotations of these functions as they are, so they must not be turned into text
# (no `from __future__ import annotations` here).

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict

import gradio as gr
from gradio.route_utils import get_root_url
from gradio_client.utils import is_file_obj_with_meta

from retrieval.errors import LookalikeError, QueryError
from retrieval.remote import Resolved
from retrieval.search import Hit, Searcher
from retrieval.ui import strings
from retrieval.ui.thumbnails import Thumbnails

CONCURRENCY = 4  # searches at a time: more would only share the same cores

_Value = str | float | bool | None
WhereJson = dict[str, _Value | list[_Value]]  # as Gradio tells it to clients, so no other name for it


class HitJson(TypedDict):
    """One hit: `score` is the cosine in [-1, 1], `thumbnail` the address of a JPEG."""

    id: str
    score: float
    label: str | None
    source: str
    attributes: dict[str, Any]
    thumbnail: str


class Answer(TypedDict):
    """The hits, best first."""

    hits: list[HitJson]


class Info(TypedDict):
    """What is being searched; `commit` is empty for a folder, `offline` true where the Hub could not be asked."""

    artifact: str
    commit: str
    offline: bool
    images: int
    columns: list[str]
    model: str
    dimension: int
    fingerprint: str


@contextmanager
def in_words() -> Iterator[None]:
    """Let our own errors reach the page and the client as the sentence that they hold."""
    try:
        yield
    except LookalikeError as error:
        raise gr.Error(str(error), print_exception=False) from error


def add_endpoints(searcher: Searcher, thumbnails: Thumbnails, artifact: Resolved) -> None:
    """Add the endpoints to the Blocks that is being made."""

    def as_answer(hits: list[Hit], request: gr.Request | None) -> Answer:
        root = _root(request)
        return {
            "hits": [
                {
                    "id": hit.id,
                    "score": hit.score,
                    "label": hit.label,
                    "source": hit.source,
                    "attributes": hit.attributes,
                    "thumbnail": thumbnails.url(hit.row, root),
                }
                for hit in hits
            ]
        }

    def search(
        image: gr.FileData,
        request: gr.Request,
        k: int = 10,
        min_score: float = -1.0,
        where: WhereJson | None = None,
    ) -> Answer:
        """The k images of the gallery that are most like a picture, best first.

        Args:
            image: the picture: JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF.
            k: how many hits, 1 to 1000.
            min_score: only hits with at least this cosine, -1 to 1.
            where: a filter, column -> value or list of values, for example {"label": "shirt"}.
        """
        with in_words():
            hits = searcher.search(_uploaded(image), _whole(k), min_score=_number(min_score), where=_filter(where))
            return as_answer(hits, request)

    def search_by_id(
        id: str,  # noqa: A002  the name that a client sees
        request: gr.Request,
        k: int = 10,
        min_score: float = -1.0,
        where: WhereJson | None = None,
    ) -> Answer:
        """The k other images that are most like an image of the gallery, best first.

        Args:
            id: the id of an image of the gallery.
            k: how many hits, 1 to 1000.
            min_score: only hits with at least this cosine, -1 to 1.
            where: a filter, column -> value or list of values, for example {"label": "shirt"}.
        """
        with in_words():
            hits = searcher.search_by_id(str(id), _whole(k), min_score=_number(min_score), where=_filter(where))
            return as_answer(hits, request)

    def info() -> Info:
        """What is being searched: the artifact, its size, its model, and the columns that `where` can filter by."""
        return {
            "artifact": artifact.name,
            "commit": artifact.commit or "",
            "offline": artifact.offline,
            "images": len(searcher.gallery),
            "columns": ["label", *searcher.gallery.attributes],
            "model": searcher.encoder.name,
            "dimension": searcher.encoder.dim,
            "fingerprint": searcher.encoder.fingerprint,
        }

    for function in (search, search_by_id, info):
        gr.api(function, api_name=function.__name__, concurrency_limit=CONCURRENCY, concurrency_id="search")


def _root(request: gr.Request | None) -> str:
    """The address of the app as the client sees it, behind a proxy or a share link too."""
    if request is None or request.request is None:
        return ""
    root_path = request.request.scope.get("root_path") or None
    return str(get_root_url(request.request, request.request.url.path, root_path))


def _uploaded(image: Any) -> str:
    """The path of an uploaded picture.

    Gradio has checked that it lies among the uploads, but only where the value says that it is a file; without this
    check any path of the server's could be named.
    """
    if not is_file_obj_with_meta(image):
        raise QueryError(strings.NO_PICTURE)
    return str(image["path"])


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise QueryError(f"k is a whole number, not {value!r}.")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QueryError(f"min_score is a number from -1 to 1, not {value!r}.")
    return float(value)


def _filter(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise QueryError(f"where is an object, column -> value or list of values, not {value!r}.")
    return value
