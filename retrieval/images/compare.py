"""Whether two thumbnails show the same picture: saved anew, resized, a little brighter or darker, a little cropped.

The cosine of two embeddings cannot tell: a trained encoder puts distinct pictures of one class above 0.95. So pixels
are compared, in two steps, both of which allow for a small move and zoom:

- at 12 x 12 cells by the tangent distance (Simard et al., NIPS 1992): how much of the one picture lies in the plane
  spanned by the other and its derivatives;
- at 24 x 24 cells what is left. The one is moved onto the other (Lucas & Kanade, IJCAI 1981); then their detail must
  correlate, and no block of cells be off by more than there is to see in it.

The limits were chosen on changed copies of real pictures and on real neighbours. Of Caltech-101's photographs 97 to
100% are found again when saved at quality 50, halved, darkened or cropped by 3 to 5%, and 89% when made 10% brighter,
which clips what is light; of product shots of 60 x 80 pixels 96 to 100%, 85% when halved, 67% when brighter. In 2,500
photographs 14 pairs of cosine 0.8 and more were taken for the same, nearly all rightly, and no pair of the starter's
1,152 drawings of cosine 0.9 and more. Small products alike but for a shade of colour can be taken for one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.forking import Lock
from retrieval.images.align import NOISE, Rows, compare, smooth, tangent_plane
from retrieval.images.gallery import ROWS_A_GROUP
from retrieval.images.open import open_image

SIDE = 24  # cells: with 32 finer patterns are told apart, but a copy of 30 x 40 pixels has lost what is compared
DETAIL = 0.75  # least correlation of what smoothing takes away
MISFIT = 0.4  # most misfit of any block of 4 x 4 cells
_GATE = 0.965  # least share of a coarse picture in the tangent plane of the other
_BRIGHTER = 32.0  # grey levels that the mean of a channel may differ by
_STRETCHED = 1.1  # how many times wider, for its height, the one may be than the other: a crop of 5% at one side only
_COARSE = 12
_CACHED = 50_000  # signatures, 1.7 kB each
_CHUNK = 256  # pictures that are aligned at a time
_MANY = 64  # from which on those next to them, which are read with them, are taken to be asked for soon

Mask = npt.NDArray[np.bool_]
_Cells = npt.NDArray[np.uint8]


class Thumbnails(Protocol):
    """JPEGs by row; a gallery is one."""

    def thumbnail(self, row: int) -> bytes:
        """The JPEG of a row."""

    def __len__(self) -> int:
        """How many rows there are."""


class Pictures:
    """The thumbnails of a gallery, as they are compared. Safe to use from several threads.

    A row is decoded when it is first asked for; 440 bytes of it are then kept, and more of the latest ones.
    """

    def __init__(self, gallery: Thumbnails) -> None:
        self._gallery = gallery
        self._coarse = np.empty((len(gallery), _COARSE, _COARSE, 3), np.uint8)  # memory of what is written to only
        self._length = np.zeros(len(gallery), np.float32)  # of the coarse picture less its mean
        self._aspect = np.zeros(len(gallery), np.float32)  # width / height; 0: not decoded yet
        self._cells: OrderedDict[int, _Cells] = OrderedDict()
        self._lock = Lock()

    def same(self, row: int, others: Rows) -> Mask:
        """Which of the others (N,) show the same picture as a row."""
        if not len(others):
            return np.zeros(0, bool)
        found = self._might_be_same(row, others)
        near = np.flatnonzero(found)
        if len(near):
            mine = self._signature(row).astype(np.float32)
        for start in range(0, len(near), _CHUNK):
            part = near[start : start + _CHUNK]
            theirs = self._signatures(others[part]).astype(np.float32)
            detail, misfit, gap = compare(mine, theirs)
            found[part] = (detail >= DETAIL) & (misfit <= MISFIT) & (gap <= _BRIGHTER)
        return found

    def _might_be_same(self, row: int, others: Rows) -> Mask:
        """Which of the others (N,) are worth a closer look: quick, and misses hardly any."""
        self._decode(np.append(others, row))
        theirs = self._coarse[others].reshape(len(others), -1).astype(np.float32)
        share = np.linalg.norm(theirs @ tangent_plane(self._coarse[row].astype(np.float32)).T, axis=1)
        length = self._length[others]
        blank = length < np.sqrt(NOISE * theirs.shape[1])
        stretched = self._aspect[others] / self._aspect[row]
        found: Mask = (share >= _GATE * length) | blank
        found &= np.maximum(stretched, 1 / stretched) <= _STRETCHED
        return found

    def _decode(self, rows: Rows) -> None:
        """See to it that the coarse pictures of those rows are there."""
        missing = np.unique(rows[self._aspect[rows] == 0])
        if len(missing) >= _MANY:
            nearby = (np.unique(missing // ROWS_A_GROUP)[:, None] * ROWS_A_GROUP + np.arange(ROWS_A_GROUP)).ravel()
            nearby = nearby[nearby < len(self._gallery)]
            missing = nearby[self._aspect[nearby] == 0]
        for row in missing.tolist():
            self._signature(row)

    def _signatures(self, rows: Rows) -> _Cells:
        """(N, SIDE, SIDE, 3) uint8 of rows."""
        return np.stack([self._signature(row) for row in rows.tolist()])

    def _signature(self, row: int) -> _Cells:
        """(SIDE, SIDE, 3) uint8 of a row, squeezed to a square."""
        with self._lock:
            if row in self._cells:
                self._cells.move_to_end(row)
                return self._cells[row]
        picture = open_image(self._gallery.thumbnail(row), at_least=2 * SIDE)
        cells = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))
        step = SIDE // _COARSE
        coarse = cells.reshape(_COARSE, step, _COARSE, step, 3).mean(axis=(1, 3))
        self._coarse[row] = coarse = np.rint(smooth(coarse))
        self._length[row] = np.linalg.norm(coarse - coarse.mean())
        self._aspect[row] = picture.width / picture.height
        with self._lock:
            self._cells[row] = cells
            while len(self._cells) > _CACHED:
                self._cells.popitem(last=False)
        return cells
