"""Preprocessing: an RGB picture to the input of a network, with Pillow and NumPy; bit for bit timm's transform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from retrieval.arrays import Floats
from retrieval.encoders.base import Resize, resize_by, span
from retrieval.errors import EncoderError, short_repr

# What timm takes where a network's configuration says nothing.
_DEFAULTS: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "crop_mode": "center",
}
_MOST_SIDE = 2_048  # pixels of the input: a network needs about a kilobyte for each
_CROPS = (0.1, 4.0)  # share of the picture that is kept: a small one would enlarge the picture first
_MOST_RESIZED = 4_096  # pixels of a side before it is cropped
_MOST_PIXELS = 2**24  # of a picture before it is cropped: 256 x 65,536, for example
_LARGEST, _LEAST_STD = 1_000.0, 1e-6  # of pixels from 0 to 1; beyond them, float32 has infinities


def data_config_of(pretrained_cfg: dict[str, Any]) -> dict[str, Any]:
    """timm's preprocessing configuration (`timm.data.resolve_data_config`) of a network's `pretrained_cfg`."""
    return {name: pretrained_cfg.get(name) or default for name, default in _DEFAULTS.items()}


def check_data_config(data_config: dict[str, Any]) -> None:
    """Raise ValueError for a configuration with which a picture would take much memory, or give no (3, H, W) numbers.

    It may be of any form: what is read from a file is only known to be JSON.
    """
    size, crop = data_config["input_size"], data_config["crop_pct"]
    if not (_are(size, (int,)) and size[0] == 3 and all(1 <= side <= _MOST_SIDE for side in size)):
        raise _wrong("input_size", f"3 and two sides of 1 to {_MOST_SIDE:,} pixels", size)
    if type(crop) not in (int, float) or not _CROPS[0] <= crop <= _CROPS[1]:
        raise _wrong("crop_pct", f"a number from {_CROPS[0]} to {_CROPS[1]}", crop)
    if not all(1 <= side / crop <= _MOST_RESIZED for side in size[1:]):
        raise _wrong(
            "input_size / crop_pct", f"1 to {_MOST_RESIZED:,} pixels a side", [side / crop for side in size[1:]]
        )
    for name, least in (("mean", 0.0), ("std", _LEAST_STD)):
        numbers = data_config[name]
        if not (_are(numbers, (int, float)) and all(least <= abs(number) <= _LARGEST for number in numbers)):
            raise _wrong(name, f"three numbers, one a channel, from {least} to {_LARGEST:,.0f}", numbers)
    for name in ("interpolation", "crop_mode"):
        if not isinstance(data_config[name], str):
            raise _wrong(name, "text", data_config[name])


def _are(values: Any, types: tuple[type, ...]) -> bool:
    """Whether these are three numbers of these types; a boolean is none."""
    return isinstance(values, list | tuple) and len(values) == 3 and all(type(value) in types for value in values)


def _wrong(name: str, wanted: str, found: object) -> ValueError:
    return ValueError(f"{name} must be {wanted}, found {short_repr(found, 80)}")


class Transform:
    """Resizes, crops and normalises a picture as timm's evaluation transform with the same configuration."""

    def __init__(self, data_config: dict[str, Any]) -> None:
        """Raises EncoderError for a configuration that is not one, or an interpolation that Pillow does not have."""
        try:
            check_data_config(data_config)
        except ValueError as error:
            raise EncoderError(f"pictures cannot be prepared for this network: {error}.") from error
        mode = data_config["crop_mode"]
        # timm takes every other crop mode for `center`.
        resize = resize_by({**data_config, "crop_mode": mode if mode in ("squash", "border") else "center"})
        if resize is None:
            found = short_repr(data_config["interpolation"], 80)
            raise EncoderError(f"pictures cannot be resized with the interpolation {found}.")
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
        (left, right), (top, bottom) = span(size[0], self._width), span(size[1], self._height)
        resized = self._resized(image, size, (left, top, right, bottom))
        pixels = np.asarray(resized)
        out = np.empty((3, self._height, self._width), np.float32)
        for channel, levels in enumerate(self._levels):
            np.take(levels, pixels[..., channel], out=out[channel], mode="clip")  # `clip` writes without a copy
        return out

    def _resized(self, image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
        """The box of a picture that is resized to this size."""
        resampling = Image.Resampling(self._resize.filter)
        if math.prod(size) > _MOST_PIXELS:  # a very long one, of which the middle is shown: what is cut off is not made
            sides = [found / after for found, after in zip(image.size, size, strict=True)] * 2
            part = [at * side for at, side in zip(box, sides, strict=True)]
            return image.resize((self._width, self._height), resampling, (part[0], part[1], part[2], part[3]))
        resized = image if image.size == size else image.resize(size, resampling)
        return resized if box == (0, 0, *size) else self._cropped(resized, box)

    def _cropped(self, image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        """The box of a picture; what lies outside of the picture is black, or the mean of the border mode."""
        if self._fill is None:
            return image.crop(box)
        whole = Image.new("RGB", (self._width, self._height), self._fill)
        whole.paste(image, (-box[0], -box[1]))
        return whole
