"""Preprocessing: an RGB picture to the input of a network, with Pillow and NumPy; bit for bit timm's transform."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from retrieval.arrays import Floats
from retrieval.encoders.base import Resize, resize_by, span
from retrieval.errors import EncoderError

# What timm takes where a network's configuration says nothing.
_DEFAULTS: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "crop_mode": "center",
}


def data_config_of(pretrained_cfg: dict[str, Any]) -> dict[str, Any]:
    """timm's preprocessing configuration (`timm.data.resolve_data_config`) of a network's `pretrained_cfg`."""
    return {name: pretrained_cfg.get(name) or default for name, default in _DEFAULTS.items()}


class Transform:
    """Resizes, crops and normalises a picture as timm's evaluation transform with the same configuration."""

    def __init__(self, data_config: dict[str, Any]) -> None:
        """Raises EncoderError for an interpolation that Pillow does not have."""
        mode = data_config["crop_mode"]
        # timm takes every other crop mode for `center`.
        resize = resize_by({**data_config, "crop_mode": mode if mode in ("squash", "border") else "center"})
        if resize is None:
            raise EncoderError(f"pictures cannot be resized with the interpolation {data_config['interpolation']!r}.")
        self._resize: Resize = resize
        self._height, self._width = data_config["input_size"][1:]
        mean, std = (np.array(data_config[name], np.float32) for name in ("mean", "std"))
        self._fill = tuple(round(255 * float(value)) for value in data_config["mean"]) if mode == "border" else None
        # There are only 256 values a channel. In float32 and in this order, as torchvision computes them.
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        self._levels: Floats = (levels - mean[:, None]) / std[:, None]

    def __call__(self, image: Image.Image) -> Floats:
        """RGB image to (3, H, W) float32."""
        size = self._resize.size_of(*image.size)
        resized = image if image.size == size else image.resize(size, Image.Resampling(self._resize.filter))
        (left, right), (top, bottom) = span(size[0], self._width), span(size[1], self._height)
        if (left, top, right, bottom) != (0, 0, *size):
            resized = self._cropped(resized, (left, top, right, bottom))
        pixels = np.asarray(resized)
        out = np.empty((3, self._height, self._width), np.float32)
        for channel, levels in enumerate(self._levels):
            np.take(levels, pixels[..., channel], out=out[channel], mode="clip")  # `clip` writes without a copy
        return out

    def _cropped(self, image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        """The box of a picture; what lies outside of the picture is black, or the mean of the border mode."""
        if self._fill is None:
            return image.crop(box)
        whole = Image.new("RGB", (self._width, self._height), self._fill)
        whole.paste(image, (-box[0], -box[1]))
        return whole
