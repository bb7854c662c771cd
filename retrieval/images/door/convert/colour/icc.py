"""From the colours of an ICC profile to sRGB, by Little CMS."""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms


def to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert L, RGB, CMYK or LAB to sRGB; returns the same object if it already is sRGB."""
    # A broken profile, or one for another colour space (lcms reports that), is ignored: it is no reason to reject the
    # image.
    with contextlib.suppress(Exception):
        if icc and not (image.mode == "RGB" and len(icc) <= 2**14 and _is_srgb(icc)):
            return _convert(image, icc)
    return image if image.mode == "RGB" else image.convert("RGB")


def _convert(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert with an ICC profile. Each call builds its own transform: it caches pixels, so threads cannot share it."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return converted


@lru_cache(maxsize=32)  # a dataset repeats a few profiles; the caller excludes large ones, which keeps the cache small
def _is_srgb(icc: bytes) -> bool:
    """Whether a profile is plain sRGB, judged by its effect rather than its name: on a 9 x 9 x 9 colour cube it changes
    no channel by more than one level."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    moved = np.asarray(_convert(Image.fromarray(cube), icc))
    return int(np.abs(moved.astype(int) - cube).max()) <= 1
