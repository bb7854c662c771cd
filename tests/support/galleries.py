"""Galleries opened in each of the ways that depend on their size."""

import pytest

from retrieval.images.gallery import Gallery
from retrieval.images.stored import encoded, opened, prepare

WAYS = ["memory", "mapped", "pieces"]
"""In memory like a small one; mapped like a large one; and mapped with too many values in each column to list them."""


def opened_as(way, files, key=None):
    """A small gallery, opened like one of another size."""
    with pytest.MonkeyPatch.context() as patch:
        if way != "memory":
            patch.setattr(opened, "LARGE", 1)
            patch.setattr(prepare, "_AT_ONCE", 100)
        if way == "pieces":
            patch.setattr(encoded, "MOST_LISTED", 0)
        return Gallery(files, key)
