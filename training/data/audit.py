"""Leak audit: held-out images of which a near-duplicate is among those that a run has learned or was chosen by.

A near-duplicate is the same photograph: another file of it, other compression, size or tone, or a crop. (Caltech-101
has many: `Faces_easy` holds the photographs of `Faces`, cropped.) Candidates are an image's nearest neighbours by the
features of the untouched backbone; a candidate counts where the one picture, made smaller, is found in the other by
normalised cross-correlation (Lewis, "Fast Template Matching", Vision Interface 1995).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from retrieval.arrays import Numbers

CANDIDATES = 64  # nearest images that are looked at: a crop can be far down among others of its kind
SIMILAR = 0.92  # correlation from which on two pictures are the same photograph
_WORTH_A_LOOK = 0.85  # correlation at a coarse scale from which on the fine one is tried
_LOOKS = 3  # candidates of an image that are tried at the fine scale
_LEAST_COSINE = 0.4  # of centred features: others are not looked at
_FINE = [0.96**step for step in range(20)]  # sizes of the smaller picture, down to 0.46 of its own
_COARSE = [0.92**step for step in range(10)]
_LEAST_SHARE = 0.2  # of the longer side: anything smaller looks like anything
_LEAST_DEVIATION = 8.0  # grey levels: a blank picture correlates with nothing
_CHUNK = 512

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """A held-out row, the other row that is the same photograph, and their correlation in [0, 1]."""

    held_out: int
    other: int
    similarity: float


def near_duplicates(
    held_out: Sequence[int],
    others: Sequence[int],
    features: Mapping[int, torch.Tensor],
    grey: Mapping[int, Grey],
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """The pairs of held-out and other rows that show the same photograph, the best one for each held-out row.

    `features` are (F,) float32 vectors by row, `grey` (h, w) uint8 pictures with a longer side of 64.
    """
    base = torch.stack([features[row] for row in others])
    mean = base.mean(dim=0)
    base = functional.normalize(base - mean, dim=1)
    coarse = {row: _coarse(picture) for row, picture in grey.items()}
    pairs = []
    for start in range(0, len(held_out), _CHUNK):
        chunk = held_out[start : start + _CHUNK]
        queries = functional.normalize(torch.stack([features[row] for row in chunk]) - mean, dim=1)
        cosines, found = (queries @ base.T).topk(min(CANDIDATES, len(others)), dim=1)
        for number, row in enumerate(chunk):
            near = [others[int(at)] for at in found[number][cosines[number] > _LEAST_COSINE]]
            small = [coarse[other] for other in near]
            rough = np.maximum(_in_each(coarse[row], small), _each_in(small, coarse[row]))
            worth = [near[at] for at in np.argsort(-rough, kind="stable")[:_LOOKS] if rough[at] >= _WORTH_A_LOOK]
            scored = [(same_photograph(grey[row], grey[other]), other) for other in worth]
            if scored and max(scored)[0] >= SIMILAR:
                pairs.append(Pair(int(row), int(max(scored)[1]), round(max(scored)[0], 3)))
        if progress:
            progress(min(start + _CHUNK, len(held_out)), len(held_out))
    return pairs


def same_photograph(one: Grey, other: Grey) -> float:
    """The best correlation, in [0, 1], of the one picture within the other or the other within the one.

    Tried at twenty sizes, aspect kept; tones and contrast do not count.
    """
    images = _tensor(one), _tensor(other)
    return float(max(_best(images[0], images[1], _FINE)[0], _best(images[1], images[0], _FINE)[0]))


def _tensor(*pictures: Grey) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures).astype(np.float32))[:, None]


def _coarse(picture: Grey) -> Grey:
    """At half the size, the sides rounded to even numbers, so that many pictures have the same shape."""
    size = [max(2, 2 * round(side / 4)) for side in picture.shape]
    return np.asarray(functional.interpolate(_tensor(picture), size, mode="area")[0, 0].round(), np.uint8)


def _in_each(small: Grey, large: Sequence[Grey]) -> Numbers:
    """For each of the large pictures the best correlation of `small`, at any size and place in it."""
    height, width = (max(picture.shape[axis] for picture in large) if large else 1 for axis in (0, 1))
    # Made the same size with their last rows and columns: what is added matches nothing but what was there.
    padded = [np.pad(one, ((0, height - one.shape[0]), (0, width - one.shape[1])), mode="edge") for one in large]
    return _best(_tensor(small), _tensor(*padded), _COARSE) if large else np.zeros(0)


def _each_in(small: Sequence[Grey], large: Grey) -> Numbers:
    """For each of the small pictures its best correlation, at any size and place in `large`."""
    best = np.zeros(len(small))
    for shape in {picture.shape for picture in small}:
        alike = [number for number, picture in enumerate(small) if picture.shape == shape]
        best[alike] = _best(_tensor(*(small[number] for number in alike)), _tensor(large), _COARSE)
    return best


def _best(templates: torch.Tensor, images: torch.Tensor, scales: Sequence[float]) -> Numbers:
    """Best normalised cross-correlation over sizes and places of (T, 1, h, w) in (I, 1, H, W), T or I being 1."""
    best = np.zeros(max(len(templates), len(images)))
    room, least = images.shape[2:], _LEAST_SHARE * max(images.shape[2:])
    for scale in scales:
        size = (round(templates.shape[2] * scale), round(templates.shape[3] * scale))
        if min(size) < least or size[0] > room[0] or size[1] > room[1]:
            continue
        pieces = functional.interpolate(templates, size, mode="area")
        pieces = pieces - pieces.mean(dim=(1, 2, 3), keepdim=True)
        deviation = pieces.square().mean(dim=(1, 2, 3)).sqrt()
        mean = functional.avg_pool2d(images, size, stride=1)
        square = functional.avg_pool2d(images.square(), size, stride=1)
        window = (square - mean.square()).clamp(min=_LEAST_DEVIATION**2).sqrt()
        covariance = functional.conv2d(images, pieces) / pieces[0].numel()
        found = covariance / window / deviation.clamp(min=_LEAST_DEVIATION)[:, None, None]
        best = np.maximum(best, found.amax(dim=(2, 3)).flatten().double().numpy())
    return best
