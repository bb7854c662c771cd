"""Tags: the values of a gallery's rows as numbers, so that a vector database can filter by them.

A tag stands for a value of a column, as it is printed, or for no value. Any condition of a filter is then "has one of
these tags" or "has none of them": the gallery knows which of its values pass, also for `<` and for dates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from hashlib import blake2b
from typing import overload

import numpy as np

from retrieval.arrays import Ids
from retrieval.images.filters import Where, parse
from retrieval.images.gallery import Gallery
from retrieval.images.values import Values
from retrieval.stores.servers.base import NO_KEY, Tagged

BLOCK = 8_192  # rows whose tags are in memory at a time
_MOST_TAGS = 1_000  # in a condition; with more, the rows are filtered here


class RowTags(Sequence[Ids]):
    """The tags of each row of a gallery, ascending; computed a block at a time, as millions of lists take gigabytes."""

    def __init__(self, gallery: Gallery) -> None:
        self._rows = len(gallery)
        self._columns: list[tuple[Values, Ids, int]] = []  # with the tag of each of its values, and of none
        for column in ["label", *gallery.attributes]:
            if _is_shared(gallery, column):
                values = gallery.column(column)
                self._columns.append((values, _all_tags(column, values.texts), tag_of(column, None)))

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, at: int) -> Ids: ...
    @overload
    def __getitem__(self, at: slice) -> list[Ids]: ...
    def __getitem__(self, at: int | slice) -> Ids | list[Ids]:
        if isinstance(at, slice):
            return self.of(np.arange(self._rows)[at])
        return self.of(np.array([range(self._rows)[at]]))[0]

    def of(self, rows: Ids) -> list[Ids]:
        """The tags of these rows, which are ascending."""
        found: list[Ids] = []
        for start in np.unique(rows // BLOCK) * BLOCK:
            starts, tags = self.block(int(start))
            here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + BLOCK)] - start
            found += [tags[starts[row] : starts[row + 1]] for row in here]
        return found

    def block(self, start: int) -> tuple[Ids, Ids]:
        """Where the tags of each of up to BLOCK rows from `start` on begin and end, and the tags, row by row."""
        stop = min(start + BLOCK, self._rows)
        owners, tags = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for values, of_code, none in self._columns:
            rows, codes = values.owned(start, stop)
            missing = np.flatnonzero(values.missing[start:stop])
            owners += [rows, missing]
            tags += [of_code[codes], np.full(len(missing), none)]
        owner, found = np.concatenate(owners), np.concatenate(tags)
        order = np.lexsort((found, owner))
        return np.searchsorted(owner[order], np.arange(stop - start + 1)), found[order]


def keys_of(gallery: Gallery, tags: RowTags) -> Ids:
    """(N,) int64: a key for each row, made of the image's id and its tags: with another value, it is another point."""
    keys = np.empty(len(gallery), np.int64)
    ids = gallery.table["id"]
    for start in range(0, len(gallery), BLOCK):
        starts, found = tags.block(start)
        content, bounds = found.tobytes(), (starts * found.itemsize).tolist()
        images = ids.slice(start, BLOCK).to_pylist()
        owns = (content[at:end] for at, end in itertools.pairwise(bounds))
        digests = b"".join(_digest(image.encode() + own) for image, own in zip(images, owns, strict=True))
        keys[start : start + BLOCK] = np.maximum(np.frombuffer(digests, ">u8") >> 2, NO_KEY + 1)
    return keys


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


def _all_tags(column: str, texts: list[str]) -> Ids:
    return np.array([tag_of(column, text) for text in texts], np.int64)


def _is_shared(gallery: Gallery, column: str) -> bool:
    """Whether rows share values of a column: labels and attributes, not ids and names of files."""
    named = column == "label" or column in gallery.attributes
    return named and gallery.column(column).has_few_members


def _number(content: bytes) -> int:
    """A positive number of 62 bits: some databases keep the largest one of 63 for themselves."""
    return int.from_bytes(_digest(content), "big") >> 2 or NO_KEY + 1


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=8).digest()
