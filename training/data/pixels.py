"""Pixels: decode every image once before training, and cache it at the size that training needs.

One pass over the data opens each image with `retrieval.images.open` and resizes it to a square, as the encoder does.
Images are cached as uint8 up to a memory limit; the others are decoded again on each access. Images that cannot be
opened are found before training starts. The same pass makes the thumbnails and hashes for the leak audit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from retrieval.console import Progress
from retrieval.errors import ImageError
from retrieval.files.system import cores
from retrieval.images.open import open_image
from retrieval.sources.base import RawImage

GREY_SIDE = 64  # longer side, in pixels, of the grey thumbnails that the leak audit compares
_AHEAD = 64  # images submitted to the decoding threads at a time: bounds memory use


class Pixels:
    """Images of a dataset as (3, S, S) uint8 tensors, by row."""

    def __init__(self, raw: Callable[[int], RawImage], side: int, interpolation: str, memory_gb: float) -> None:
        """`raw` returns the undecoded image of a row; `memory_gb` limits the cache, in 10^9 bytes."""
        self.side = side
        self.bad: dict[int, str] = {}  # row -> reason why it cannot be opened
        self.sha256: dict[int, str] = {}  # row -> hash of the file's bytes
        self.grey: dict[int, npt.NDArray[np.uint8]] = {}  # row -> (h, w) thumbnail with longer side GREY_SIDE
        self._raw = raw
        self._resample = Image.Resampling[interpolation.upper()]
        self._room = int(memory_gb * 1e9 / (3 * side * side))
        self._kept = torch.empty(0, 3, side, side, dtype=torch.uint8)
        self._slots: dict[int, int] = {}

    def fill(self, rows: Sequence[int], progress: Progress | None = None) -> None:
        """Decode `rows` in order and cache as many as fit; rows that cannot be opened go to `bad`."""
        self._kept = torch.empty(min(self._room, len(rows)), 3, self.side, self.side, dtype=torch.uint8)
        with ThreadPoolExecutor(cores()) as pool:
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
        """Number of cached images."""
        return len(self._slots)

    def __getitem__(self, row: int) -> torch.Tensor:
        """The image of a row, (3, S, S) uint8. Raises ImageError if it cannot be opened."""
        slot = self._slots.get(int(row))
        return self._kept[slot] if slot is not None else self._squeezed(open_image(self._raw(row).read()))

    def batch(self, rows: Iterable[int]) -> torch.Tensor:
        """The images of `rows`, (N, 3, S, S) uint8. Raises ImageError if one cannot be opened."""
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
