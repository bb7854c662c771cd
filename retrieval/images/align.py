"""Align two small images (a small shift, zoom, brightness or contrast change) and measure how well they then match.

`retrieval.images.compare` explains the choice of measures and thresholds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Floats, Rows

NOISE = 4.0  # grey levels squared: JPEG alone varies this much; less detail counts as none, so blank images match
_BLOCK_NOISE = 144.0  # the same for one block: a uniform block may differ by half of 12 grey levels
_PROMISING = 0.95  # least correlation after one step: every image later accepted as the same reached it
_MARGIN = 2  # border cells left out once aligned: a cropped copy may lack them
_STEPS = 4


def tangent_plane(picture: Floats) -> Floats:
    """(5, n) orthonormal rows spanning the mean-free image (h, w, 3) and its derivatives by zoom and shift."""
    basis: Floats = np.linalg.qr(_tangents(picture).reshape(-1, 6))[0].T[1:]
    return basis


def compare(mine: Floats, theirs: Floats) -> Floats:
    """Align N images with one image (SIDE, SIDE, 3), and return (4, N) float32 measures of the match.

    Row 0: the correlation of fine detail, in [-1, 1]. Row 1: the largest misfit of any block, relative to the contrast
    inside the block, after brightness and contrast are matched. Row 2: the largest difference of a channel mean, in
    grey levels. Row 3: the largest difference of a channel mean of any block, in grey levels, as the images are. An
    image that alignment rules out early gets -1 and infinities.
    """
    tones, others = smooth(mine), smooth(theirs)
    place, left = _aligned(tones, others)
    found = np.repeat(np.array([[-1], *[[np.inf]] * 3], np.float32), len(theirs), axis=1)
    if len(left):
        tones, detail = _inner(tones), _inner(mine - smooth(tones))
        best = _warp(np.concatenate([others[left], theirs[left] - smooth(others[left])], axis=-1), place)
        gap = np.abs(best[..., :3].mean(axis=(1, 2)) - tones.mean(axis=(0, 1))).max(axis=-1)
        worst = np.abs(_blocks(best[..., :3] - tones).mean(axis=-2)).max(axis=(1, 2, 3))
        found[:, left] = _correlation(detail, best[..., 3:]), _misfit(tones, best[..., :3]), gap, worst
    return found


def lift(pictures: npt.NDArray[np.generic], side: int, limit: npt.NDArray[np.floating]) -> Floats:
    """(N, 3 * side^2 + 2) float32 of N square images, to find equal tones of many pairs by one product with `turned`.

    The product is 0 or more if the mean squared difference at side x side cells is at most limit(a) + limit(b), for
    `limit` (N,). At finer cells the difference is at least as large. |a - b|^2 <= limit(a) + limit(b) is
    a.b - p(a) - p(b) >= 0 for p(a) = (|a|^2 - limit(a)) / 2: the product of [a, 1, -p(a)] and [b, -p(b), 1].
    """
    step = pictures.shape[1] // side
    cells = pictures.reshape(-1, side, step, side, step, 3).mean(axis=(2, 4), dtype=np.float32)
    cells = cells.reshape(len(pictures), 3 * side**2) - 128  # near zero, float32 rounds less
    part = (np.einsum("ij,ij->i", cells, cells) - limit * cells.shape[1]) / 2
    return np.column_stack([cells, np.ones_like(part), -part]).astype(np.float32)


def turned(lifted: Floats) -> Floats:
    """What `lift` returns, as the other side of a product: its last two columns swapped."""
    return np.concatenate([lifted[:, :-2], lifted[:, :-3:-1]], axis=1)


def _aligned(mine: Floats, theirs: Floats) -> tuple[Floats, Rows]:
    """Align (N, SIDE, SIDE, 3) images with one: (n, 4) parameters for `_warp`, and the n indices still promising."""
    solve = np.linalg.pinv(_inner(_tangents(mine)).reshape(-1, 6), rcond=1e-4).astype(np.float32)
    tones = _inner(mine)
    place = np.tile(np.array([1, 0, 1, 0], np.float32), (len(theirs), 1))  # zoom and shift in y, then in x
    moved = theirs[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    best, found, left = place.copy(), _correlation(tones, moved), np.arange(len(theirs))
    for _ in range(_STEPS):
        change = moved.reshape(len(left), -1) @ solve.T
        place -= np.clip(change[:, 2:] / np.maximum(change[:, 1:2], 0.3), -0.06, 0.06)
        np.clip(place, [0.85, -0.12, 0.85, -0.12], [1.15, 0.12, 1.15, 0.12], out=place)
        moved = _warp(theirs[left], place)
        fits = _correlation(tones, moved)
        better = fits > found
        best[better], found[better] = place[better], fits[better]
        keep = found >= _PROMISING
        place, moved, best, found, left = place[keep], moved[keep], best[keep], found[keep], left[keep]
        if not len(left):
            break
    return best, left


def _inner(picture: Floats) -> Floats:
    """An image (h, w, ...) without its border."""
    return picture[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


def _misfit(one: Floats, many: Floats) -> Floats:
    """(N,) from (h, w, 3) and (N, h, w, 3): the worst block's root of squared difference / (variance + noise)."""
    one, many = one - one.mean(), many - many.mean(axis=(1, 2, 3), keepdims=True)
    gain = np.einsum("hwc,nhwc->n", one, many) / (np.einsum("nhwc,nhwc->n", many, many) + 1)
    many = many * np.clip(gain, 0.8, 1.25)[:, None, None, None]
    off = np.square(_blocks(many - one)).mean(axis=(-2, -1))
    seen = _blocks(one[None]).var(axis=-2).mean(axis=-1) + _blocks(many).var(axis=-2).mean(axis=-1)
    worst: Floats = np.sqrt(off / (seen + _BLOCK_NOISE)).max(axis=(1, 2))
    return worst


def _blocks(pictures: Floats) -> Floats:
    """Split (N, h, w, 3) into 4 x 4 blocks: (N, h / 4, w / 4, 16, 3)."""
    count, height, width, _ = pictures.shape
    split = pictures.reshape(count, height // 4, 4, width // 4, 4, 3).swapaxes(2, 3)
    return split.reshape(count, height // 4, width // 4, 16, 3)


def smooth(pictures: Floats) -> Floats:
    """Binomial smoothing with (1, 2, 1) / 4 along the height and width of (..., h, w, 3)."""
    # Built from slices: `np.pad` takes as long as everything else here, for every image.
    tall = np.concatenate([pictures[..., :1, :, :], pictures, pictures[..., -1:, :, :]], axis=-3)
    tall = (tall[..., :-2, :, :] + 2 * pictures + tall[..., 2:, :, :]) / 4
    wide = np.concatenate([tall[..., :1, :], tall, tall[..., -1:, :]], axis=-2)
    return np.asarray((wide[..., :-2, :] + 2 * tall + wide[..., 2:, :]) / 4, np.float32)


def _centres(side: int) -> Floats:
    """The centre of each cell, from -1 to 1."""
    return ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)


def _tangents(picture: Floats) -> Floats:
    """(h, w, 3, 6): ones, the image, and its derivatives by zoom and shift in y, then in x, in units of half a side."""
    side = len(picture)
    down, across = np.gradient(picture, 2 / side, axis=(0, 1))
    at = _centres(side)[:, None]
    columns = [np.ones_like(picture), picture, down * at[:, None], down, across * at, across]
    return np.stack(columns, axis=-1).astype(np.float32)


def _warp(pictures: Floats, place: Floats) -> Floats:
    """The inner cells of (N, h, h, C) images, each zoomed and shifted by its row of `place` (N, 4); bilinear."""
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
    """Correlation of (h, w, 3) with each of (N, h, w, 3); two images of pure noise count as correlated."""
    flat, many = one.ravel() - one.mean(), many.reshape(len(many), -1)
    many = many - many.mean(axis=1, keepdims=True)
    size = len(flat)
    both, own, their = many @ flat / size, flat @ flat / size, np.einsum("ij,ij->i", many, many) / size
    found: Floats = (both + NOISE) / np.sqrt((own + NOISE) * (their + NOISE))
    return found
