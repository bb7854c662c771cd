"""Pixels: every image decoded once, before the first step, and kept at the size that training needs.

One pass over the data opens each image by the one door (`retrieval.images`), squeezes it to a square as the encoder
will, and keeps it as bytes as long as there is memory for it; the rest is decoded again whenever it is asked for. What
cannot be opened is known before training begins. The same pass takes what the leak audit compares.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms import v2

from retrieval.errors import ImageError
from retrieval.images import open_image
from retrieval.sources import RawImage
from training.recipe import Recipe

GREY_SIDE = 64  # longer side of the grey pictures that the leak audit compares
_AHEAD = 64  # images that are handed to the decoding threads at a time: bounds the memory

Progress = Callable[[int, int], None]


class Pixels:
    """Images of a data set as (3, S, S) uint8 tensors, by row."""

    def __init__(self, raw: Callable[[int], RawImage], side: int, interpolation: str, memory_gb: float) -> None:
        """`raw` gives the undecoded image of a row; `memory_gb` bounds what is kept, in 10^9 bytes."""
        self.side = side
        self.bad: dict[int, str] = {}  # row -> why it cannot be opened
        self.sha256: dict[int, str] = {}  # row -> hash of the file
        self.grey: dict[int, npt.NDArray[np.uint8]] = {}  # row -> (h, w), the longer side GREY_SIDE
        self._raw = raw
        self._resample = Image.Resampling[interpolation.upper()]
        self._room = int(memory_gb * 1e9 / (3 * side * side))
        self._kept = torch.empty(0, 3, side, side, dtype=torch.uint8)
        self._slots: dict[int, int] = {}

    def fill(self, rows: Sequence[int], progress: Progress | None = None) -> None:
        """Decode those rows, in that order, and keep as many as there is room for."""
        self._kept = torch.empty(min(self._room, len(rows)), 3, self.side, self.side, dtype=torch.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(rows), _AHEAD):
                chunk = [int(row) for row in rows[start : start + _AHEAD]]
                for row, pixels in zip(chunk, pool.map(self._first_look, chunk), strict=True):
                    if pixels is not None and len(self._slots) < len(self._kept):
                        self._kept[len(self._slots)] = pixels
                        self._slots[row] = len(self._slots)
                if progress:
                    progress(min(start + _AHEAD, len(rows)), len(rows))

    @property
    def kept(self) -> int:
        """How many images are held in memory."""
        return len(self._slots)

    def __getitem__(self, row: int) -> torch.Tensor:
        """(3, S, S) uint8; raises ImageError for a row that is in `bad`."""
        slot = self._slots.get(int(row))
        return self._kept[slot] if slot is not None else self._squeezed(open_image(self._raw(row).read()))

    def batch(self, rows: Iterable[int]) -> torch.Tensor:
        """(N, 3, S, S) uint8."""
        return torch.stack([self[row] for row in rows])

    def _first_look(self, row: int) -> torch.Tensor | None:
        try:
            data = self._raw(row).read()
            image = open_image(data)
        except ImageError as error:
            self.bad[row] = str(error)
            return None
        self.sha256[row] = hashlib.sha256(data).hexdigest()
        scale = GREY_SIDE / max(image.size)
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        self.grey[row] = np.asarray(image.convert("L").resize(small, Image.Resampling.BOX))
        return self._squeezed(image)

    def _squeezed(self, image: Image.Image) -> torch.Tensor:
        square = image.resize((self.side, self.side), self._resample)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def augmentation(recipe: Recipe) -> Callable[[torch.Tensor], torch.Tensor]:
    """What happens to a (3, S, S) uint8 picture on its way into a batch; draws from torch's generator."""
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
    """Augmented training images. A key is a row and a number that all that is random about the picture comes from.

    So a picture does not depend on which process, worker or run makes it, and a resumed run sees the same ones.
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
            torch.default_generator.manual_seed(draw)  # and no other: those of GPUs would not be put back
            picture = self.augment(self.pixels[row])
        return {"pixels": picture, "labels": torch.tensor(self.targets[row])}


class ClassSampler(torch.utils.data.Sampler[tuple[int, int]]):
    """P classes x K images, batch after batch; a pass is as many batches as the rows fill.

    pytorch-metric-learning's MPerClassSampler draws all classes alike, and from numpy's global state. Here a class is
    drawn in proportion to its images to the power `balance` (0: all alike, 1: as in the data), and a pass is a
    function of seed and epoch alone, which is what lets a run be resumed. No class is twice in a batch. Within a batch
    the images of a class differ as far as it has K; a smaller class repeats some. With K = 1 the images are shuffled
    and their classes do not count.
    """

    def __init__(self, rows_of: Sequence[Sequence[int]], recipe: Recipe) -> None:
        """`rows_of[i]` are the rows of class i; raises ValueError where a batch has more classes than there are."""
        if recipe.images_per_class > 1 and recipe.classes_per_batch > len(rows_of):
            raise ValueError(f"{recipe.classes_per_batch} classes in a batch, {len(rows_of)} in all")
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

    def _batch(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        count = self._recipe.images_per_class
        chosen = random.choice(len(self._rows_of), self._recipe.classes_per_batch, replace=False, p=self._weights)
        classes = [self._rows_of[label] for label in chosen]
        return np.concatenate([random.choice(rows, count, replace=len(rows) < count) for rows in classes])
