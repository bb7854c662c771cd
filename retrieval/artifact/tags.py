"""Tags: the values of a gallery's rows as numbers, so that a vector database can filter by them.

A tag stands for a value of a column, as it is printed, or for no value. Any condition of a filter is then "has one of
these tags" or "has none of them": the gallery knows which of its values pass, also for `<` and for dates.
"""

from __future__ import annotations

import itertools
from hashlib import blake2b

import numpy as np

from retrieval.arrays import Ids
from retrieval.images.filters import Where, parse
from retrieval.images.gallery import Gallery
from retrieval.images.values import Values
from retrieval.stores.servers.base import NO_KEY, Tagged, Tags

BLOCK = 8_192  # rows whose tags are in memory at a time
_MOST_TAGS = 1_000  # in a condition; with more, the rows are filtered here


class RowTags:
    """The tags of a gallery's rows, made for those that are asked for: ten million lists would take gigabytes."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._columns: list[tuple[Values, Ids]] = []
        for column in ["label", *gallery.attributes]:
            if values := _shared(gallery, column):
                every = [*values.texts, None]
                self._columns.append((values, np.array([tag_of(column, text) for text in every], np.int64)))

    def of(self, rows: Ids) -> Tags:
        """The tags of each of these rows, ascending."""
        starts, tags = self._joined(rows)
        return [tags[start:end] for start, end in itertools.pairwise(starts.tolist())]

    def keys(self) -> Ids:
        """(N,) int64: a key for each row, made of the image's id and its tags: with another value, another point."""
        keys, ids = np.empty(len(self._gallery), np.int64), self._gallery.table["id"]
        for start in range(0, len(keys), BLOCK):
            starts, found = self._joined(np.arange(start, min(start + BLOCK, len(keys))))
            content, bounds = found.tobytes(), (starts * found.itemsize).tolist()
            images = ids.slice(start, BLOCK).to_pylist()
            owns = (content[at:end] for at, end in itertools.pairwise(bounds))
            digests = b"".join(_digest(image.encode() + own) for image, own in zip(images, owns, strict=True))
            keys[start : start + BLOCK] = np.maximum(np.frombuffer(digests, ">u8") >> 2, NO_KEY + 1)
        return keys

    def _joined(self, rows: Ids) -> tuple[Ids, Ids]:
        """The tags of these rows, one row after the other, and where those of each begin and end."""
        owners, tags = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for values, numbers in self._columns:
            places, codes = values.owned(rows)
            without = np.flatnonzero(~np.isin(np.arange(len(rows)), places))
            owners += [places, without]
            tags += [numbers[codes], np.full(len(without), numbers[-1])]
        owner, found = np.concatenate(owners), np.concatenate(tags)
        order = np.lexsort((found, owner))
        return np.searchsorted(owner[order], np.arange(len(rows) + 1)), found[order]


def conditions_of(gallery: Gallery, where: Where | None) -> list[Tagged]:
    """What a database can be told of a filter: every row that passes the filter passes these. Raises QueryError."""
    found = []
    for each in parse(where).conditions:
        if not (values := _shared(gallery, each.column)):
            continue
        accepted, missing = values.accepted(each)
        texts = [text for text, passes in zip(values.texts, accepted, strict=True) if passes]
        if len(texts) < _MOST_TAGS:
            tags = [tag_of(each.column, text) for text in [*texts, *([None] if missing else [])]]
            found.append(Tagged(tuple(tags), each.operator == "!="))
    return found


def tag_of(column: str, text: str | None) -> int:
    """The tag of a value of a column as it is printed; None is no value."""
    return _number(f"{column}\0{'' if text is None else '=' + text}".encode())


def _shared(gallery: Gallery, column: str) -> Values | None:
    """A column whose values rows share: labels and attributes, not ids and names of files; None for any other."""
    values = gallery.column(column) if column == "label" or column in gallery.attributes else None
    return values if isinstance(values, Values) and values.has_few_members else None


def _number(content: bytes) -> int:
    """A positive number of 62 bits: some databases keep the largest one of 63 for themselves."""
    return int.from_bytes(_digest(content), "big") >> 2 or NO_KEY + 1


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=8).digest()
