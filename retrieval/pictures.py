"""Whether two thumbnails show the same picture: saved anew, resized, a little brighter or darker, a little cropped.

The cosine of two embeddings cannot tell: a trained encoder puts distinct pictures of one class above 0.95. So pixels
are compared, in two steps, both of which allow for a small move and zoom:

- at 8 x 8 cells by the tangent distance (Simard et al., NIPS 1992): how much of the one picture lies in the plane
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

import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.images import open_image

SIDE = 24  # cells: with 32 finer patterns are told apart, but a copy of 30 x 40 pixels has lost what is compared
DETAIL = 0.75  # least correlation of what smoothing takes away
MISFIT = 0.4  # most misfit of any block of 4 x 4 cells
_GATE = 0.95  # least share of a coarse picture in the tangent plane of the other
_BRIGHTER = 32.0  # grey levels that the mean of a channel may differ by
_STRETCHED = 1.1  # how many times wider, for its height, the one may be than the other: a crop of 5% at one side only
_NOISE = 4.0  # variance in grey levels that JPEG alone makes: less detail than that is none, and blank pictures agree
_BLOCK_NOISE = 144.0  # the same for a block: a plain one may be off by half of 12 grey levels
_COARSE = 8
_MARGIN = 2  # cells at the border that are not compared once aligned: a crop may not have them
_STEPS = 4
_CACHED = 4_096  # signatures, 1.7 kB each
_CHUNK = 256  # pictures that are aligned at a time
_POOLED = 32  # pictures from which on several threads decode them

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
_Cells = npt.NDArray[np.uint8]


class Thumbnails(Protocol):
    """JPEGs by row; a gallery is one."""

    def thumbnail(self, row: int) -> bytes:
        """The JPEG of a row."""

    def __len__(self) -> int:
        """How many rows there are."""


class Pictures:
    """The thumbnails of a gallery, as they are compared. Safe to use from several threads.

    A row is decoded when it is first asked for; 200 bytes of it are then kept, and more of the latest ones.
    """

    def __init__(self, gallery: Thumbnails) -> None:
        self._gallery = gallery
        self._coarse = np.empty((len(gallery), _COARSE, _COARSE, 3), np.uint8)  # memory of what is written to only
        self._aspect = np.zeros(len(gallery), np.float32)  # width / height; 0: not decoded yet
        self._cells: OrderedDict[int, _Cells] = OrderedDict()
        self._lock = threading.Lock()

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
            theirs = np.stack([self._signature(int(other)) for other in others[part]]).astype(np.float32)
            detail, misfit, gap = compare(mine, theirs)
            found[part] = (detail >= DETAIL) & (misfit <= MISFIT) & (gap <= _BRIGHTER)
        return found

    def _might_be_same(self, row: int, others: Rows) -> Mask:
        """Which of the others (N,) are worth a closer look: quick, and misses hardly any."""
        self._decode(np.append(others, row))
        theirs = self._coarse[others].reshape(len(others), -1).astype(np.float32)
        theirs -= theirs.mean(axis=1, keepdims=True)
        length = np.linalg.norm(theirs, axis=1)
        share = np.linalg.norm(theirs @ _plane(self._coarse[row].astype(np.float32)).T, axis=1)
        blank = length < np.sqrt(_NOISE * theirs.shape[1])
        stretched = self._aspect[others] / self._aspect[row]
        found: Mask = (share >= _GATE * length) | blank
        found &= np.maximum(stretched, 1 / stretched) <= _STRETCHED
        return found

    def _decode(self, rows: Rows) -> None:
        """See to it that the coarse pictures of those rows are there."""
        missing = [int(row) for row in rows[self._aspect[rows] == 0]]
        if len(missing) < _POOLED:
            for row in missing:
                self._signature(row)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(self._signature, missing):
                pass

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
        self._coarse[row] = np.rint(_smooth(coarse))
        self._aspect[row] = picture.width / picture.height
        with self._lock:
            self._cells[row] = cells
            while len(self._cells) > _CACHED:
                self._cells.popitem(last=False)
        return cells


def _plane(picture: Floats) -> Floats:
    """(5, n) orthonormal rows: a picture (h, w, 3) less its mean, and its derivatives by zoom and move."""
    columns = np.concatenate([np.ones_like(picture)[..., None], picture[..., None], _derivatives(picture)], -1)
    basis: Floats = np.linalg.qr(columns.reshape(-1, columns.shape[-1]))[0].T[1:]
    return basis


def compare(mine: Floats, theirs: Floats) -> Floats:
    """(3, N) of a picture (SIDE, SIDE, 3) and N others, each moved onto it as well as can be.

    The correlation of their detail; the worst misfit of a block of their cells, relative to how much there is to see in
    it, once brightness and contrast are made the same; the most that the mean of a channel differs by, in grey levels.
    """
    smooth, smooths = _smooth(mine), _smooth(theirs)
    both = np.concatenate([smooths, theirs - _smooth(smooths)], axis=-1)
    inner = slice(_MARGIN, -_MARGIN)
    tones, detail = smooth[inner, inner], (mine - _smooth(smooth))[inner, inner]
    columns = np.concatenate([np.ones_like(smooth)[..., None], smooth[..., None], _derivatives(smooth)], axis=-1)
    solve = np.linalg.pinv(columns[inner, inner].reshape(-1, columns.shape[-1]), rcond=1e-4).astype(np.float32)
    place = np.tile(np.array([1, 0, 1, 0], np.float32), (len(theirs), 1))  # zoom and move in y, the same in x
    moved = _warp(both, place)
    best, found = moved, _correlation(tones, moved[..., :3])
    for _ in range(_STEPS):
        change = moved[..., :3].reshape(len(theirs), -1) @ solve.T
        place -= np.clip(change[:, 2:] / np.maximum(change[:, 1:2], 0.3), -0.06, 0.06)
        np.clip(place, [0.85, -0.12, 0.85, -0.12], [1.15, 0.12, 1.15, 0.12], out=place)
        moved = _warp(both, place)
        fits = _correlation(tones, moved[..., :3])
        better = fits > found
        best[better], found[better] = moved[better], fits[better]
    gap = np.abs(best[..., :3].mean(axis=(1, 2)) - tones.mean(axis=(0, 1))).max(axis=-1)
    return np.stack([_correlation(detail, best[..., 3:]), _misfit(tones, best[..., :3]), gap])


def _misfit(one: Floats, many: Floats) -> Floats:
    """(N,) of (h, w, 3) and (N, h, w, 3): in the worst block, the root of squared difference / (variance + noise)."""
    one, many = one - one.mean(), many - many.mean(axis=(1, 2, 3), keepdims=True)
    gain = np.einsum("hwc,nhwc->n", one, many) / (np.einsum("nhwc,nhwc->n", many, many) + 1)
    many = many * np.clip(gain, 0.8, 1.25)[:, None, None, None]
    off = np.square(_blocks(many - one)).mean(axis=(-2, -1))
    seen = _blocks(one[None]).var(axis=-2).mean(axis=-1) + _blocks(many).var(axis=-2).mean(axis=-1)
    worst: Floats = np.sqrt(off / (seen + _BLOCK_NOISE)).max(axis=(1, 2))
    return worst


def _blocks(pictures: Floats) -> Floats:
    """(N, h, w, 3) as (N, h / 4, w / 4, 16, 3)."""
    count, height, width, _ = pictures.shape
    split = pictures.reshape(count, height // 4, 4, width // 4, 4, 3).swapaxes(2, 3)
    return split.reshape(count, height // 4, width // 4, 16, 3)


def _smooth(pictures: Floats) -> Floats:
    """Binomial smoothing by (1, 2, 1) / 4 along the height and the width of (..., h, w, 3)."""
    edges = [(0, 0)] * (pictures.ndim - 3)
    wide = np.pad(pictures, [*edges, (1, 1), (1, 1), (0, 0)], mode="edge")
    tall = (wide[..., :-2, :, :] + 2 * wide[..., 1:-1, :, :] + wide[..., 2:, :, :]) / 4
    return np.asarray((tall[..., :-2, :] + 2 * tall[..., 1:-1, :] + tall[..., 2:, :]) / 4, np.float32)


def _centres(side: int) -> Floats:
    """Where the middle of each cell lies, from -1 to 1."""
    return ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)


def _derivatives(picture: Floats) -> Floats:
    """(h, w, 3, 4): how a picture changes with zoom and move in y, and in x, in units of half its side."""
    side = len(picture)
    down, across = np.gradient(picture, 2 / side, axis=(0, 1))
    at = _centres(side)[:, None]
    return np.stack([down * at[:, None], down, across * at, across], axis=-1).astype(np.float32)


def _warp(pictures: Floats, place: Floats) -> Floats:
    """The inner cells of (N, h, h, C) pictures, each zoomed and moved by its row of `place` (N, 4); bilinear."""
    side = pictures.shape[1]
    weights = []
    for zoom, move in (place[:, :2].T, place[:, 2:].T):
        at = (_centres(side)[_MARGIN:-_MARGIN] * zoom[:, None] + move[:, None] + 1) / 2 * side - 0.5
        weights.append(np.maximum(0, 1 - np.abs(at[..., None] - np.arange(side))).astype(np.float32))
    rows = weights[0] @ pictures.reshape(len(pictures), side, -1)
    rows = rows.reshape(len(pictures), -1, side, pictures.shape[-1])
    moved: Floats = weights[1][:, None] @ rows
    return moved


def _correlation(one: Floats, many: Floats) -> Floats:
    """Of (h, w, 3) with each of (N, h, w, 3); what is only noise agrees with what is only noise."""
    flat, many = one.ravel() - one.mean(), many.reshape(len(many), -1)
    many = many - many.mean(axis=1, keepdims=True)
    size = len(flat)
    both, own, their = many @ flat / size, flat @ flat / size, np.einsum("ij,ij->i", many, many) / size
    found: Floats = (both + _NOISE) / np.sqrt((own + _NOISE) * (their + _NOISE))
    return found
