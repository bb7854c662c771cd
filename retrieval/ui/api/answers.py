"""Types of the endpoints' JSON answers."""

# Gradio inspects these annotations as objects, so they must not become strings (no `from __future__` here).

from typing import Any, TypedDict

from retrieval.encoders.explain import HeatMap

_Value = str | float | bool | None
Operators = TypedDict(
    "Operators",
    {
        "=": _Value | list[_Value],
        "!=": _Value | list[_Value],
        "<": str | float,
        "<=": str | float,
        ">": str | float,
        ">=": str | float,
    },
    total=False,
)  # closed, so that it cannot hold a file
WhereJson = dict[str, _Value | list[_Value] | Operators]  # a plain alias: Gradio shows clients the expanded type


class AboutJson(TypedDict):
    """What the gallery says about an image.

    `file` is the file name in `source`. `thumbnail` is the URL of a JPEG, and `original` that of the original, or of
    the thumbnail where the original is not available.
    """

    label: str | None
    source: str
    file: str
    attributes: dict[str, Any]
    thumbnail: str
    original: str


class HitJson(AboutJson):
    """One hit.

    `score` is the cosine similarity in [-1, 1]. `chance` is the match probability: that the hit has the same class as
    the query, given that the class is in the gallery, in [0, 1]; null if unknown. `confident` is whether it is a match,
    which also requires that the class is in the gallery. `alike` holds the ids of the near-duplicates folded into the
    hit.
    """

    id: str
    score: float
    chance: float | None
    confident: bool | None
    alike: list[str]


class Answer(TypedDict):
    """The hits, best first, and whether the best one is a confident match (null if unknown)."""

    hits: list[HitJson]
    confident: bool | None


class HeatJson(TypedDict):
    """The contribution of each cell of an image to the cosine, row by row; the cells plus `bias` add up to `sum`.

    `box` is the part of the image that the cells cover: left, top, right, bottom, as fractions.
    """

    cells: list[list[float]]
    bias: float
    sum: float
    box: list[float]


class ExplanationJson(TypedDict):
    """Why two images are similar: `cosine` is the search score.

    `query` adds up to it if the query was an image; a map made from a thumbnail, like `hit`, adds up to nearly that.
    """

    cosine: float
    query: HeatJson
    hit: HeatJson


class ImageJson(AboutJson):
    """An image of a group; `score` is its cosine similarity to the group's first image."""

    id: str
    score: float


class Groups(TypedDict):
    """Groups of near-duplicates, largest first, and the total number of groups."""

    groups: list[list[ImageJson]]
    found: int


class Info(TypedDict):
    """The searched artifact; `commit` is empty for a folder, `offline` is true if the Hub could not be reached.

    `revision` is the SHA-256 in the artifact's manifest: it changes whenever the app goes over to another version.
    `store` is the address of the vector database that is searched; empty for the artifact's own index.
    """

    artifact: str
    commit: str
    revision: str
    offline: bool
    images: int
    columns: list[str]
    model: str
    dimension: int
    store: str
    fingerprint: str
    text_model: str
    calibrated: bool
    explains: bool


def heat_json(heat: HeatMap) -> HeatJson:
    """A heat map as JSON."""
    return {"cells": heat.cells.tolist(), "bias": heat.bias, "sum": heat.sum, "box": list(heat.box)}
