"""Whether one small picture is another one, a little moved, zoomed, brighter or darker: the arithmetic.

What is compared and why those measures and limits: `retrieval.images.compare`.
"""

from __future__ import annotations

import numpy as np

from retrieval.arrays import Floats, Rows

NOISE = 4.0  # variance in grey levels that JPEG alone makes: less detail than that is none, and blank pictures agree
_BLOCK_NOISE = 144.0  # the same for a block: a plain one may be off by half of 12 grey levels
_PROMISING = 0.95  # least correlation after one step: of what was found to be the same, none had less
_MARGIN = 2  # cells at the border that are not compared once aligned: a crop may not have them
_STEPS = 4


def tangent_plane(picture: Floats) -> Floats:
    """(5, n) orthonormal rows: a picture (h, w, 3) less its mean, and its derivatives by zoom and move."""
    basis: Floats = np.linalg.qr(_tangents(picture).reshape(-1, 6))[0].T[1:]
    return basis


def compare(mine: Floats, theirs: Floats) -> Floats:
    """(3, N) of a picture (SIDE, SIDE, 3) and N others, each moved onto it as well as can be.

    The correlation of their detail; the worst misfit of a block of their cells, relative to how much there is to see in
    it, once brightness and contrast are made the same; the most that the mean of a channel differs by, in grey levels.
    Where after a step nothing promises a fit: -1 and twice infinity.
    """
    tones, others = smooth(mine), smooth(theirs)
    place, left = _aligned(tones, others)
    found = np.repeat(np.array([[-1], [np.inf], [np.inf]], np.float32), len(theirs), axis=1)
    if len(left):
        tones, detail = _inner(tones), _inner(mine - smooth(tones))
        best = _warp(np.concatenate([others[left], theirs[left] - smooth(others[left])], axis=-1), place)
        gap = np.abs(best[..., :3].mean(axis=(1, 2)) - tones.mean(axis=(0, 1))).max(axis=-1)
        found[:, left] = _correlation(detail, best[..., 3:]), _misfit(tones, best[..., :3]), gap
    return found


def _aligned(mine: Floats, theirs: Floats) -> tuple[Floats, Rows]:
    """Move (N, SIDE, SIDE, 3) pictures onto one: where the n promising fit, (n, 4) for `_warp`, and which they are."""
    solve = np.linalg.pinv(_inner(_tangents(mine)).reshape(-1, 6), rcond=1e-4).astype(np.float32)
    tones = _inner(mine)
    place = np.tile(np.array([1, 0, 1, 0], np.float32), (len(theirs), 1))  # zoom and move in y, the same in x
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
    """A picture (h, w, ...) without its border."""
    return picture[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


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


def smooth(pictures: Floats) -> Floats:
    """Binomial smoothing by (1, 2, 1) / 4 along the height and the width of (..., h, w, 3)."""
    # Put together of slices: `np.pad` takes as long as all the rest, once for every picture.
    tall = np.concatenate([pictures[..., :1, :, :], pictures, pictures[..., -1:, :, :]], axis=-3)
    tall = (tall[..., :-2, :, :] + 2 * pictures + tall[..., 2:, :, :]) / 4
    wide = np.concatenate([tall[..., :1, :], tall, tall[..., -1:, :]], axis=-2)
    return np.asarray((wide[..., :-2, :] + 2 * tall + wide[..., 2:, :]) / 4, np.float32)


def _centres(side: int) -> Floats:
    """Where the middle of each cell lies, from -1 to 1."""
    return ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)


def _tangents(picture: Floats) -> Floats:
    """(h, w, 3, 6): ones, a picture, and its change with zoom and move in y, and in x, in units of half its side."""
    side = len(picture)
    down, across = np.gradient(picture, 2 / side, axis=(0, 1))
    at = _centres(side)[:, None]
    columns = [np.ones_like(picture), picture, down * at[:, None], down, across * at, across]
    return np.stack(columns, axis=-1).astype(np.float32)


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
    found: Floats = (both + NOISE) / np.sqrt((own + NOISE) * (their + NOISE))
    return found
