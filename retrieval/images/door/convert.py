"""Convert an image of any mode, bit depth and colour profile to upright 8-bit sRGB."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms, ImageOps


@dataclass(frozen=True)
class Stored:
    """How a file stores its pixels; the decoded image no longer shows it."""

    rawmode: object = None  # PNG only
    bits: int = 16  # bits per grey sample; Pillow leaves 12-bit TIFF values at 0 to 4095


def stored_form(image: Image.Image) -> Stored:
    """Read the storage format. Call this before the image is decoded."""
    tile = getattr(image, "tile", None)
    rawmode = tile[0].args if image.format == "PNG" and tile else None
    return Stored(rawmode, getattr(image, "tag_v2", {}).get(258, (16,))[0])  # BitsPerSample


def upright_rgb(image: Image.Image, stored: Stored) -> Image.Image:
    """Turn a decoded image upright and convert it to RGB; may modify `image` in place."""
    # In place, to avoid copying an image that is already upright. Pillow applies a TIFF's orientation while loading,
    # which leaves none to apply here. A broken EXIF block is no reason to reject the image.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    colour, alpha = _split(image, stored)
    rgb = _to_srgb(colour, image.info.get("icc_profile"))
    if alpha is not None:
        rgb, opaque = Image.new("RGB", rgb.size, "white"), rgb
        rgb.paste(opaque, mask=alpha)
    elif rgb is image:
        rgb = image.copy()  # the opened image keeps its file and decoder alive, which can be larger than the pixels
    rgb.info = {}
    return rgb


def _split(image: Image.Image, stored: Stored) -> tuple[Image.Image, Image.Image | None]:
    """Split into colour (mode L, RGB, CMYK or LAB, 8 bits) and alpha (mode L, or None for an opaque image)."""
    key, rawmode = image.info.get("transparency"), stored.rawmode
    if image.mode.startswith("I;16"):
        return _from_16_bit(image, key, stored.bits)
    if image.mode in ("I", "F"):
        return _from_32_bit(image), None
    if isinstance(key, int) and rawmode in ("L;2", "L;4"):
        # Pillow scales these pixels to 8 bits but leaves the transparent value as stored in the file.
        image.info["transparency"] = key * (85 if rawmode == "L;2" else 17)
    elif isinstance(key, tuple) and rawmode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.has_transparency_data:
        both = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        return both.convert(both.mode[:-1]), both.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _from_16_bit(image: Image.Image, key: object, bits: int) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit grey to 8 bits (Pillow would clip at 255); alpha comes from the transparent value, if any."""
    values = np.asarray(image)
    white = 2**bits - 1
    table = ((np.minimum(np.arange(2**16), white) * 255 + white // 2) // white).astype(np.uint8)
    alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)) if isinstance(key, int) else None
    return Image.fromarray(table[values]), alpha


def _from_32_bit(image: Image.Image) -> Image.Image:
    """Scale 32-bit integers or floats to 8 bits, as documented in `open_image`."""
    values = np.asarray(image).astype(np.float64)  # exact for int32, and wide enough for the range of any float32
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return Image.fromarray(np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8))


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
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
