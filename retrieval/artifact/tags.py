"""Tags: the values of a gallery's rows as numbers, so that a vector database can filter by them.

A tag stands for a value of a column, as it is printed, or for no value. Any condition of a filter is then "has one of
these tags" or "has none of them": the gallery knows which of its values pass, also for `<` and for dates.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Ids
from retrieval.images.filters import Where, parse
from retrieval.images.gallery import Gallery
from retrieval.stores.servers.base import NO_KEY, Tagged, Tags

_MOST_TAGS = 1_000  # in a condition; with more, the rows are filtered here


def tags_of(gallery: Gallery) -> Tags:
    """The tags of each row, ascending."""
    owners: list[npt.NDArray[np.int64]] = []
    tags: list[npt.NDArray[np.int64]] = []
    for column in ["label", *gallery.attributes]:
        if not _is_shared(gallery, column):
            continue
        values = gallery.column(column)
        rows, codes = values.owned()
        owners += [rows, np.flatnonzero(values.missing)]
        tags += [_all_tags(column, values.texts)[codes], np.full(len(owners[-1]), tag_of(column, None))]
    rows, found = (np.concatenate([np.empty(0, np.int64), *each]) for each in (owners, tags))
    order = np.lexsort((found, rows))
    return np.split(found[order], np.searchsorted(rows[order], np.arange(1, len(gallery))))


def keys_of(gallery: Gallery, tags: Tags) -> Ids:
    """(N,) int64: a key for each row, made of the image's id and its tags: with another value, it is another point."""
    pairs = zip(gallery.ids, tags, strict=True)
    return np.array([_number(image.encode() + own.tobytes()) for image, own in pairs], np.int64)


def conditions_of(gallery: Gallery, where: Where | None) -> list[Tagged]:
    """What a database can be told of a filter: every row that passes the filter passes these. Raises QueryError."""
    found = []
    for each in parse(where).conditions:
        if not _is_shared(gallery, each.column):
            continue
        values = gallery.column(each.column)
        accepted, missing = values.accepted(each)
        texts = [text for text, passes in zip(values.texts, accepted, strict=True) if passes]
        if len(texts) < _MOST_TAGS:
            tags = [tag_of(each.column, text) for text in [*texts, *([None] if missing else [])]]
            found.append(Tagged(tuple(tags), each.operator == "!="))
    return found


def tag_of(column: str, text: str | None) -> int:
    """The tag of a value of a column as it is printed; None is no value."""
    return _number(f"{column}\0{'' if text is None else '=' + text}".encode())


def _all_tags(column: str, texts: list[str]) -> npt.NDArray[np.int64]:
    return np.array([tag_of(column, text) for text in texts], np.int64)


def _is_shared(gallery: Gallery, column: str) -> bool:
    """Whether rows share values of a column: labels and attributes, not ids and names of files."""
    named = column == "label" or column in gallery.attributes
    return named and gallery.column(column).has_few_members


def _number(content: bytes) -> int:
    """A positive number of 62 bits: some databases keep the largest one of 63 for themselves."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big") >> 2 or NO_KEY + 1
