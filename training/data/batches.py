"""Batches: class-balanced sampling and augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from retrieval.arrays import Rows
from training.data.pixels import Pixels
from training.recipe import Recipe


def augmentation(recipe: Recipe) -> Callable[[torch.Tensor], torch.Tensor]:
    """The random transform of an image (3, S, S) uint8 to the training size; uses torch's global generator."""
    size = (recipe.image_size, recipe.image_size)
    steps: list[torch.nn.Module] = []
    if recipe.rotation or recipe.shift:
        steps.append(v2.RandomAffine(recipe.rotation, (recipe.shift, recipe.shift) if recipe.shift else None))
    if recipe.crop < 1:
        steps.append(v2.RandomResizedCrop(size, scale=(recipe.crop, 1.0), antialias=True))
    else:
        steps.append(v2.Resize(size, antialias=True))
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.jitter:
        steps.append(v2.ColorJitter(recipe.jitter, recipe.jitter, recipe.jitter))
    if recipe.erasing:
        steps.append(v2.RandomErasing(recipe.erasing))
    whole: Callable[[torch.Tensor], torch.Tensor] = v2.Compose(steps)
    return whole


class Batches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Augmented training images. A key is (row, seed of the augmentation).

    So an image does not depend on the process or worker that makes it, and a resumed run sees the same images.
    """

    def __init__(
        self, pixels: Pixels, targets: dict[int, int], augment: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self.pixels, self.targets, self.augment = pixels, targets, augment

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        row, draw = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(draw)  # CPU only: fork_rng does not restore GPUs
            picture = self.augment(self.pixels[row])
        return {"pixels": picture, "labels": torch.tensor(self.targets[row])}


class ClassSampler(torch.utils.data.Sampler[tuple[int, int]]):
    """Batches of P classes x K images; an epoch has as many full batches as the images fill.

    pytorch-metric-learning's MPerClassSampler draws classes uniformly and uses numpy's global state. Here the
    probability of a class is proportional to (number of images) ** `balance` (0: uniform, 1: as in the data). An epoch
    depends only on seed and epoch number, so runs can be resumed. The classes of a batch are distinct. So are the
    images of a class, if it has at least K; smaller classes are drawn with replacement. With K = 1, images are
    shuffled without regard to class.
    """

    def __init__(self, rows_of: Sequence[Sequence[int]], recipe: Recipe) -> None:
        """`rows_of[i]` are the rows of class i. Raises ValueError if a batch needs more classes than exist."""
        if recipe.images_per_class > 1 and recipe.classes_per_batch > len(rows_of):
            raise ValueError(
                f"classes_per_batch is {recipe.classes_per_batch}, but there are only {len(rows_of)} classes"
            )
        self._rows_of = [np.asarray(rows, np.int64) for rows in rows_of]
        weights = np.array([len(rows) for rows in rows_of], float) ** recipe.balance
        self._weights = weights / weights.sum()
        self._recipe = recipe
        self._batches = sum(len(rows) for rows in rows_of) // recipe.batch_size
        self.epoch = 0

    def __len__(self) -> int:
        return self._batches * self._recipe.batch_size

    def __iter__(self) -> Any:
        recipe = self._recipe
        random = np.random.default_rng([recipe.seed, self.epoch])
        if recipe.images_per_class == 1:
            rows = random.permutation(np.concatenate(self._rows_of))[: len(self)]
        else:
            rows = np.concatenate([np.empty(0, np.int64), *(self._batch(random) for _ in range(self._batches))])
        for row in rows:
            yield int(row), int(random.integers(2**62))

    def _batch(self, random: np.random.Generator) -> Rows:
        count = self._recipe.images_per_class
        chosen = random.choice(len(self._rows_of), self._recipe.classes_per_batch, replace=False, p=self._weights)
        classes = [self._rows_of[label] for label in chosen]
        return np.concatenate([random.choice(rows, count, replace=len(rows) < count) for rows in classes])
