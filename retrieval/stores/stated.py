"""What a manifest states about an index, compared with the index before it is searched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from retrieval.errors import IntegrityError, short
from retrieval.stores.base import Store
from retrieval.stores.index_file import Header

_MOST_EFFORT = {
    "nprobe": 10_000_000,
    "efSearch": 4_096,
    "refine": 1_000_000,
}  # a search takes memory for each of `efSearch`
# Vectors have unit length, up to the precision of their type. Those of 8 and 6 bits lose length where a new image lies
# outside the range of those that the index was trained on.
_LENGTHS = {"Flat": (0.999, 1.001), "SQfp16": (0.98, 1.02), "SQbf16": (0.98, 1.02), "RaBitQ": (0.98, 1.02)}
_ANY_LENGTH = (0.3, 1.3)
_AT_ONCE = 8_192  # rows
_SAMPLED = 1_000  # rows of a large index


def check_settings(name: str, settings: Mapping[str, Any], header: Header) -> None:
    """Raise IntegrityError unless the settings are those of an index with this header, before one like it is made."""
    factory, search = settings.get("factory", "Flat"), settings.get("search", {})
    if not isinstance(factory, str) or not isinstance(search, dict):
        raise IntegrityError(f"{name}: the manifest does not state its factory string and search settings.")
    lists = int(found[1]) if (found := re.match(r"IVF(\d{1,7})", factory)) else 0
    if lists != header.lists:
        raise IntegrityError(
            f"{name}: the manifest says {short(repr(factory), 60)}, which has {lists} lists, found {header.lists}."
        )
    for parameter, value in search.items():
        most = _MOST_EFFORT.get(parameter, 0)
        if type(value) is not int or not 1 <= value <= most:
            raise IntegrityError(
                f"{name}: the manifest says {short(repr(parameter), 40)} is {short(repr(value), 40)}, but a search "
                f"needs a whole number of 1 to {most:,}: build the artifact again."
            )


def check_lengths(name: str, store: Store, factory: str) -> None:
    """Raise IntegrityError for vectors that are not of unit length, whose scores would not be cosine similarities.

    Of a large index, which would have to be read for it, only some rows are checked; a search refuses longer vectors.
    """
    low, high = _LENGTHS.get(factory.rpartition(",")[2], _ANY_LENGTH)
    rows = np.arange(len(store))
    if factory.endswith(",RaBitQ"):
        rows = rows[:: max(1, len(store) // _SAMPLED)]
    for first in range(0, len(rows), _AT_ONCE):
        at = rows[first : first + _AT_ONCE]
        some = store.vectors(at)
        lengths = np.sqrt(np.einsum("nd,nd->n", some, some))
        wrong = np.flatnonzero(~((lengths >= low) & (lengths <= high)))  # NaN, too
        if len(wrong):
            raise IntegrityError(
                f"{name}: the vector of row {at[wrong[0]]:,} has length {lengths[wrong[0]]:.4g}, not 1: it is "
                "damaged, build the artifact again."
            )
