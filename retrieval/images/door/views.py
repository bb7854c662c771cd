"""What is wanted of a picture: often not all of its pixels, but a part of it, or the whole in fewer pixels.

It is made where the picture is decoded, so that a large one is never in memory here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from retrieval.encoders.base import Resize
from retrieval.images.regions import Region, crop


@dataclass(frozen=True)
class View:
    """A part of a picture, resized; by default the picture as it is."""

    region: Region | None = None
    resize: Resize | None = None
    """Left out if it would give more pixels: who wants them can resize what there is."""

    def of(self, image: Image.Image) -> Image.Image:
        """The view of a decoded image, which is not changed; the same object if there is nothing to do."""
        part = crop(image, self.region) if self.region else image
        if self.resize is None:
            return part
        width, height = self.resize.size_of(*part.size)
        if not 0 < width * height < part.width * part.height:
            return part
        return part.resize((width, height), self.resize.filter, reducing_gap=self.resize.gap)


WHOLE = View()
_SPARE = 3  # as Pillow's `reducing_gap` of 3, whose result is close to that of all pixels


def enough_for(views: Sequence[View]) -> int | None:
    """The shorter side, in pixels, from which all views can be made nearly as from the whole picture; None: all of it.

    A JPEG that is much larger can then be decoded at 1/2, 1/4 or 1/8 of its size.
    """
    if any(view.resize is None or view.region for view in views):
        return None
    return _SPARE * max(max(view.resize.width, view.resize.height) for view in views if view.resize)


def within(side: int) -> Resize:
    """To at most `side` pixels on the longer side, for display."""
    return Resize("shrink", side, side, int(Image.Resampling.LANCZOS), 3.0)


def to_text(views: Sequence[View]) -> str:
    """Views as ASCII text."""
    return json.dumps([[view.region, vars(view.resize) if view.resize else None] for view in views])


def from_text(text: str) -> list[View]:
    """The views that `to_text` wrote."""
    return [
        View(tuple(region) if region else None, Resize(**resize) if resize else None)
        for region, resize in json.loads(text)
    ]
