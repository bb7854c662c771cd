"""Leak audit: find held-out images that have a near-duplicate in the training or validation images.

A near-duplicate shows the same photograph: another file, compression, size or tone, or a crop. (Caltech-101 has many:
`Faces_easy` holds cropped photographs of `Faces`.) Candidates are the nearest neighbours of an image in the features of
the pretrained backbone. A candidate counts if one image, scaled down, is found in the other by normalised
cross-correlation (Lewis, "Fast Template Matching", Vision Interface 1995).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from retrieval.arrays import Numbers

CANDIDATES = 64  # nearest neighbours to examine: a crop can rank low among similar images
SIMILAR = 0.92  # correlation threshold for the same photograph
_WORTH_A_LOOK = 0.85  # threshold of the coarse correlation for trying the fine one
_LOOKS = 3  # candidates per image to compare at the fine scale
_LEAST_COSINE = 0.4  # cosine similarity threshold, of centred features, for candidates
_FINE = [0.96**step for step in range(20)]  # scales of the template, down to 0.46
_COARSE = [0.92**step for step in range(10)]
_LEAST_SHARE = 0.2  # least template size relative to the longer side: tiny templates match everything
_LEAST_DEVIATION = 8.0  # in grey levels: blank images correlate with nothing
_CHUNK = 512

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """A held-out row, another row that shows the same photograph, and their correlation in [0, 1]."""

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
    """Pairs of a held-out and another row that show the same photograph; at most one, the best, per held-out row.

    `features` maps rows to vectors (F,) float32, `grey` to thumbnails (h, w) uint8 with a longer side of 64.
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
    """The best correlation, in [0, 1], of either image as a template within the other.

    Tries 20 scales at constant aspect ratio; invariant to brightness and contrast.
    """
    images = _tensor(one), _tensor(other)
    return float(max(_best(images[0], images[1], _FINE)[0], _best(images[1], images[0], _FINE)[0]))


def _tensor(*pictures: Grey) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures).astype(np.float32))[:, None]


def _coarse(picture: Grey) -> Grey:
    """Half the size, with sides rounded to even numbers so that many images share a shape and can be batched."""
    size = [max(2, 2 * round(side / 4)) for side in picture.shape]
    return np.asarray(functional.interpolate(_tensor(picture), size, mode="area")[0, 0].round(), np.uint8)


def _in_each(small: Grey, large: Sequence[Grey]) -> Numbers:
    """Best correlation of the template `small` in each image of `large`, over all scales and positions."""
    height, width = (max(picture.shape[axis] for picture in large) if large else 1 for axis in (0, 1))
    # Edge padding gives all images one shape without adding content that could match.
    padded = [np.pad(one, ((0, height - one.shape[0]), (0, width - one.shape[1])), mode="edge") for one in large]
    return _best(_tensor(small), _tensor(*padded), _COARSE) if large else np.zeros(0)


def _each_in(small: Sequence[Grey], large: Grey) -> Numbers:
    """Best correlation of each template of `small` in the image `large`, over all scales and positions."""
    best = np.zeros(len(small))
    for shape in {picture.shape for picture in small}:
        alike = [number for number, picture in enumerate(small) if picture.shape == shape]
        best[alike] = _best(_tensor(*(small[number] for number in alike)), _tensor(large), _COARSE)
    return best


def _best(templates: torch.Tensor, images: torch.Tensor, scales: Sequence[float]) -> Numbers:
    """Best correlation of templates (T, 1, h, w) in images (I, 1, H, W) over scales and positions; T or I is 1."""
    best = np.zeros(max(len(templates), len(images)))
    room, least = images.shape[2:], _LEAST_SHARE * max(images.shape[2:])
    sums, squares = _summed(images), _summed(images.square())
    for scale in scales:
        size = (round(templates.shape[2] * scale), round(templates.shape[3] * scale))
        if min(size) < least or size[0] > room[0] or size[1] > room[1]:
            continue
        pieces = functional.interpolate(templates, size, mode="area")
        pieces = pieces - pieces.mean(dim=(1, 2, 3), keepdim=True)
        deviation = pieces.square().mean(dim=(1, 2, 3)).sqrt()
        mean, square = _means(sums, size), _means(squares, size)
        window = (square - mean.square()).clamp(min=_LEAST_DEVIATION**2).sqrt().float()
        covariance = functional.conv2d(images, pieces) / pieces[0].numel()
        found = covariance / window / deviation.clamp(min=_LEAST_DEVIATION)[:, None, None]
        best = np.maximum(best, found.amax(dim=(2, 3)).flatten().double().numpy())
    return best


def _summed(images: torch.Tensor) -> torch.Tensor:
    """For each corner of each pixel, the sum of all pixels above and left of it; exact for whole numbers."""
    return functional.pad(images.double(), (1, 0, 1, 0)).cumsum(2).cumsum(3)


def _means(sums: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The mean in each window of that size, from what `_summed` gives: much faster than average pooling."""
    height, width = size
    below = sums[:, :, height:, width:] - sums[:, :, height:, :-width]
    above = sums[:, :, :-height, width:] - sums[:, :, :-height, :-width]
    return (below - above) / (height * width)
