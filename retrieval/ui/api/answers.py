"""What the endpoints answer, as typed JSON; and errors in words."""

# Gradio reads these annotations as they are, so they must not be turned into text (no `from __future__` here).

from typing import Any, TypedDict

from retrieval.encoders.explain import HeatMap

_Value = str | float | bool | None
WhereJson = dict[str, _Value | list[_Value]]  # as Gradio tells it to clients, so no other name for it


class HitJson(TypedDict):
    """One hit.

    `score` is the cosine in [-1, 1]; `chance` that of being of the query's kind, if that kind is in the gallery, in
    [0, 1], or null where it is not known; `confident` whether it is a match: that asks besides that the kind be there;
    `thumbnail` the address of a JPEG, `alike` the ids of the near-duplicates that were folded into it.
    """

    id: str
    score: float
    chance: float | None
    confident: bool | None
    label: str | None
    source: str
    attributes: dict[str, Any]
    thumbnail: str
    alike: list[str]


class Answer(TypedDict):
    """The hits, best first, and whether the best is a confident match (null where that is not known)."""

    hits: list[HitJson]
    confident: bool | None


class HeatJson(TypedDict):
    """What each cell of a picture adds to the cosine, row by row; with `bias` they add up to `sum`.

    `box` is the part of the picture that the cells cover: left, top, right, bottom, as shares.
    """

    cells: list[list[float]]
    bias: float
    sum: float
    box: list[float]


class Explanation(TypedDict):
    """Why two pictures are similar: `cosine` is the score of the search.

    `query` adds up to it where a picture was searched with; what is made from a thumbnail, as `hit` is, nearly does.
    """

    cosine: float
    query: HeatJson
    hit: HeatJson


class ImageJson(TypedDict):
    """An image of a group; `score` is its cosine to the first of the group."""

    id: str
    score: float
    label: str | None
    source: str
    thumbnail: str


class Groups(TypedDict):
    """Groups of near-duplicates, the largest first, and how many there are in all."""

    groups: list[list[ImageJson]]
    found: int


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
    text_model: str
    calibrated: bool
    explains: bool


def heat_json(heat: HeatMap) -> HeatJson:
    """A heat map as JSON."""
    return {"cells": heat.cells.tolist(), "bias": heat.bias, "sum": heat.sum, "box": list(heat.box)}
