"""Decide whether two thumbnails show the same image: re-encoded, resized, slightly brighter, darker or cropped.

Cosine similarity cannot decide this: a trained encoder puts different images of one class above 0.95. So pixels are
compared, in two stages that both tolerate a small shift and zoom:

- At 12 x 12 cells, by tangent distance (Simard et al., NIPS 1992): the share of one image that lies in the plane
  spanned by the other image and its derivatives.
- At 24 x 24 cells, for the pairs that pass: one image is aligned with the other (Lucas & Kanade, IJCAI 1981). Then
  their fine detail must correlate, and no block of cells may differ by more than its own contrast allows.

Far fewer pairs of different images have a cosine above 0.95 than below, so below it `strict` is used: the tones of each
cell must also be equal, as they are before the alignment. A resized or recompressed copy passes, but no shifted and
hardly a brighter one. Because this is a difference of cells, one matrix product finds the few pairs that can pass it.

The thresholds were chosen on modified copies of real images and on real nearest neighbours; docs/figures.md has the
share found for each change among other images, and the false alarms. Most copies of 15 x 20 pixels are lost, and some
of 10% brighter images, whose highlights clip. Small products of one shape in other shades are mistaken for one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.arrays import Floats, Mask, Rows
from retrieval.forking import Cache
from retrieval.images.align import NOISE, compare, lift, smooth, tangent_plane, turned
from retrieval.images.open import open_image

SIDE = 24  # cells: 32 separate finer patterns better, but a copy of 30 x 40 pixels no longer has that detail
DETAIL = 0.92  # least correlation of the detail that smoothing removes
MISFIT = 0.4  # largest misfit of any block of 4 x 4 cells
ROUGH = 0.88  # least correlation at 4 x 4 cells: a cheap first test, which the same images pass with 0.91 or more
_GATE = 0.965  # least share of a coarse image in the tangent plane of the other
_STRICT_BLOCK = 11.0  # if `strict`: largest difference of a channel mean of any block, in grey levels
_STRICT_CELL = 14.0  # the same, unless moved: largest difference of any coarse cell, in grey levels
_STRICT_SHARE = 0.1  # the same, unless moved: largest difference of the coarse cells, as a share of their contrast
_BRIGHTER = 32.0  # largest difference of a channel mean, in grey levels
_STRETCHED = 1.1  # largest ratio of the aspect ratios: a crop of 5% on one side only
_COARSE = 12
_ROUGHEST = 4
_CACHED = 50_000  # signatures, 1.7 kB each
_CHUNK = 256  # images aligned in one batch
_ROUNDING = 0.25  # of float32 products of lifted cells
_MANY = 64  # from this many missing rows on, those beside them are decoded, too: they are read anyway
_BESIDE = 32

_Cells = npt.NDArray[np.uint8]


class HasThumbnails(Protocol):
    """JPEG thumbnails by row; `Gallery` implements it."""

    def thumbnail(self, row: int) -> bytes:
        """The JPEG bytes of a row."""

    def __len__(self) -> int:
        """Number of rows."""


@dataclass(frozen=True)
class Look:
    """What is compared of an image, from coarse to fine: see `look_of`."""

    coarse: Floats
    rough: Floats
    aspect: float
    contrast: float
    cells: Callable[[], _Cells]


class Pictures:
    """The thumbnails of a gallery, prepared for comparison. Thread-safe.

    A row is decoded on first use. 632 bytes of it are then kept (832 for `likely`), and the signature of recent rows.
    """

    def __init__(self, gallery: HasThumbnails, prepare: Callable[[Image.Image], Image.Image] | None = None) -> None:
        """`prepare` changes each thumbnail before it is compared."""
        self.gallery, self._prepare = gallery, prepare
        self._coarse = np.empty((len(gallery), _COARSE, _COARSE, 3), np.uint8)  # only written pages take memory
        self._rough = np.zeros((len(gallery), 3 * _ROUGHEST**2), np.float32)  # unit vectors; zero for a blank image
        self._length = np.zeros(len(gallery), np.float32)  # norm of the coarse image less its mean
        self._aspect = np.zeros(len(gallery), np.float32)  # width / height; 0: not decoded yet
        self._cells = Cache[int, _Cells](_CACHED)
        self._lifted = np.empty((0, 0), np.float32)

    def same(self, row: int, others: Rows, strict: Mask | bool = False) -> Mask:
        """(N,) bool mask of the other rows (N,) that show the same image as `row`; see the module for `strict`."""
        if not len(others):
            return np.zeros(0, bool)
        return self.same_as(self.look(row), others, strict)

    def same_as(self, mine: Look, others: Rows, strict: Mask | bool = False, moved: bool = False) -> Mask:
        """(N,) bool mask of the rows (N,) that show the same image as another one, which need not be in the gallery.

        `strict` is for all rows or for each (N,); `moved`: images that are shifted a little may pass it too.
        """
        self._decode(others)
        strict = np.broadcast_to(strict, len(others))
        found: Mask = (self._rough[others] @ mine.rough >= ROUGH) | self._blank(others)
        if not moved:
            found[strict] &= self._equal_tones(mine, others[strict])
        found[found] = self._might_be_same(mine, others[found])
        near = np.flatnonzero(found)
        if len(near):
            cells = mine.cells().astype(np.float32)
        for start in range(0, len(near), _CHUNK):
            part = near[start : start + _CHUNK]
            theirs = self._signatures(others[part]).astype(np.float32)
            detail, misfit, gap, worst = compare(cells, theirs)
            found[part] = (detail >= DETAIL) & (misfit <= MISFIT) & (gap <= _BRIGHTER)
            found[part] &= (worst <= _STRICT_BLOCK) | ~strict[part]
        return found

    def likely(self, mine: Pictures, rows: Rows, others: slice, close: Mask) -> Mask:
        """(M, N) bool: which pairs `same` may accept, by their coarsest cells, at little cost for many pairs.

        `rows` (M,) are of `mine`, `others` are of this gallery; `close` (M, N): the pairs that need not agree strictly.
        All images are decoded.
        """
        found: Mask = np.greater_equal(mine.lifted[rows] @ turned(self.lifted[others]).T, -_ROUNDING)
        at, other = np.divmod(np.flatnonzero(close & ~found), found.shape[1])  # faster than `nonzero` of a matrix
        if len(at):
            other_rows = other + others.start
            agree = np.einsum("ij,ij->i", mine._rough[rows[at]], self._rough[other_rows]) >= ROUGH
            found[at, other] = agree | self._blank(other_rows) | mine._blank(rows[at])
        return found

    @property
    def lifted(self) -> Floats:
        """(N, 50) float32: the coarsest cells of all images as `lift` gives them; decodes all of them."""
        if len(self._lifted) != len(self):
            self._decode(np.arange(len(self)))
            contrast = np.square(self._length) / (3 * _COARSE**2)
            self._lifted = lift(self._coarse, _ROUGHEST, _STRICT_SHARE**2 * (contrast + NOISE) / 2)
        return self._lifted

    def _equal_tones(self, mine: Look, others: Rows) -> Mask:
        """(N,) bool mask of the rows whose coarse cells differ little: a copy that is only resized or recompressed."""
        apart = self._coarse[others].reshape(len(others), 3 * _COARSE**2) - mine.coarse.reshape(-1).astype(np.float32)
        contrast = (self._length[others] ** 2 / apart.shape[1] + mine.contrast) / 2
        equal: Mask = np.einsum("ij,ij->i", apart, apart) <= _STRICT_SHARE**2 * apart.shape[1] * (contrast + NOISE)
        equal &= np.abs(apart).max(axis=1, initial=0) <= _STRICT_CELL
        return equal

    def _might_be_same(self, mine: Look, others: Rows) -> Mask:
        """(N,) bool mask of the rows worth a closer look: a fast test that rarely misses a match."""
        theirs = self._coarse[others].reshape(len(others), 3 * _COARSE**2).astype(np.float32)
        share = np.linalg.norm(theirs @ tangent_plane(mine.coarse.astype(np.float32)).T, axis=1)
        found: Mask = (share >= _GATE * self._length[others]) | self._blank(others)
        stretched = self._aspect[others] / mine.aspect
        found &= np.maximum(stretched, 1 / stretched) <= _STRETCHED
        return found

    def _blank(self, rows: Rows) -> Mask:
        """Which rows show less detail than noise."""
        return np.asarray(self._length[rows] < np.sqrt(NOISE * 3 * _COARSE**2))

    def _decode(self, rows: Rows) -> None:
        """Decode the coarse images of these rows, if missing."""
        missing = np.unique(rows[self._aspect[rows] == 0])
        if len(missing) >= _MANY:
            nearby = (np.unique(missing // _BESIDE)[:, None] * _BESIDE + np.arange(_BESIDE)).ravel()
            nearby = nearby[nearby < len(self.gallery)]
            missing = nearby[self._aspect[nearby] == 0]
        for row in missing.tolist():
            self._signature(row)

    def _signatures(self, rows: Rows) -> _Cells:
        """Signatures of rows, (N, SIDE, SIDE, 3) uint8."""
        return np.stack([self._signature(row) for row in rows.tolist()])

    def _signature(self, row: int) -> _Cells:
        """Signature of a row, (SIDE, SIDE, 3) uint8: its image resized to a square."""
        if (cached := self._cells.get(row)) is not None:
            return cached
        picture = self.picture(row)
        look = look_of(cells := cells_of(picture), picture.width / picture.height)
        self._coarse[row], self._rough[row] = look.coarse, look.rough
        self._length[row] = np.linalg.norm(look.coarse - look.coarse.mean())
        self._aspect[row] = look.aspect
        self._cells.put(row, cells)
        return cells

    def __len__(self) -> int:
        return len(self.gallery)

    @property
    def rough(self) -> Floats:
        """(N, 48) float32 unit vectors of all images at 4 x 4 cells, zero for a blank one; decodes all of them."""
        self._decode(rows := np.arange(len(self)))
        return np.where(self._blank(rows)[:, None], np.float32(0), self._rough)

    def cells(self, row: int) -> _Cells:
        """(SIDE, SIDE, 3) uint8: the image of a row, resized to a square."""
        return self._signature(row)

    def look(self, row: int) -> Look:
        """What is compared of a row."""
        self._decode(np.array([row]))
        contrast = float(self._length[row] ** 2 / (3 * _COARSE**2))
        return Look(
            self._coarse[row], self._rough[row], float(self._aspect[row]), contrast, partial(self._signature, row)
        )

    def aspect(self, row: int) -> float:
        """Width / height of a row."""
        self._decode(np.array([row]))
        return float(self._aspect[row])

    def picture(self, row: int) -> Image.Image:
        """The image of a row as it is compared: its thumbnail, unless prepared reduced to 2 * SIDE pixels or more."""
        if self._prepare:
            return self._prepare(open_image(self.gallery.thumbnail(row)))
        return open_image(self.gallery.thumbnail(row), at_least=2 * SIDE)


def cells_of(picture: Image.Image, box: tuple[float, float, float, float] | None = None) -> _Cells:
    """An image, or the part of it in a box in pixels, resized to (SIDE, SIDE, 3) uint8."""
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))


def look_of(cells: _Cells, aspect: float) -> Look:
    """What is compared of an image of these cells (SIDE, SIDE, 3) uint8 and this width / height."""
    step = SIDE // _COARSE
    coarse = np.rint(smooth(cells.reshape(_COARSE, step, _COARSE, step, 3).mean(axis=(1, 3))))
    return Look(coarse, _roughly(coarse), aspect, float(coarse.var()), lambda: cells)


def _roughly(coarse: Floats) -> Floats:
    """A coarse image at 4 x 4 cells, less its mean, as a unit vector of 48 float32; zero if all cells are equal."""
    step = _COARSE // _ROUGHEST
    cells = coarse.reshape(_ROUGHEST, step, _ROUGHEST, step, 3).mean(axis=(1, 3)).ravel()
    cells = cells - cells.mean()
    rough: Floats = (cells / max(float(np.linalg.norm(cells)), 1e-6)).astype(np.float32)
    return rough
