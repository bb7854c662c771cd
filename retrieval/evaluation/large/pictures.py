"""The pictures of few rows of a large gallery: memory is taken for the rows that are compared, not for all."""

from __future__ import annotations

import numpy as np

from retrieval.arrays import Mask, Rows
from retrieval.images.compare import HasThumbnails, Pictures

_ROWS = 2**17  # different rows compared: a calibration has up to 2,500 queries with 31 neighbours each


def few_pictures(gallery: HasThumbnails) -> Pictures | FewPictures:
    """The pictures of a gallery of which few are compared."""
    return FewPictures(gallery) if len(gallery) > _ROWS else Pictures(gallery)


class FewPictures:
    """Compares rows of a gallery that are numbered anew as they come. Not thread-safe."""

    def __init__(self, gallery: HasThumbnails, rows: int = _ROWS) -> None:
        """`rows` is how many different ones are kept; then it begins anew."""
        self._gallery, self._most = gallery, rows
        self._begin()

    def _begin(self) -> None:
        self._numbers: dict[int, int] = {}
        self._rows: list[int] = []
        self._pictures: Pictures | None = None
        self._pictures = Pictures(self)

    def __len__(self) -> int:
        return len(self._rows) if self._pictures else self._most  # it takes memory for so many

    def thumbnail(self, row: int) -> bytes:
        """The JPEG bytes of a row, by its new number."""
        return self._gallery.thumbnail(self._rows[row])

    def same(self, row: int, others: Rows, strict: Mask | bool = False) -> Mask:
        """See `Pictures.same`."""
        if len(self._rows) + 1 + len(others) > self._most:
            self._begin()
        numbers = np.array([self._number(other) for other in others.tolist()], np.int64)
        mine = self._number(row)
        assert self._pictures is not None
        return self._pictures.same(mine, numbers, strict)

    def _number(self, row: int) -> int:
        if row not in self._numbers:
            self._numbers[row] = len(self._rows)
            self._rows.append(row)
        return self._numbers[row]
