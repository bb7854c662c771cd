"""PNG (Portable Network Graphics Specification, third edition: the sections named below)."""

from __future__ import annotations

import contextlib
import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from retrieval.images.door.convert import plain
from retrieval.images.door.convert.bands import boxes, by_bands
from retrieval.images.door.convert.colour.codes import SRGB_POINTS
from retrieval.images.door.convert.colour.encoding import Encoding, by_number
from retrieval.images.door.convert.depth import opaque_but
from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.upright import orientation, turned

# By rawmode of 16-bit pixels: the mode and the rawmodes with which Pillow gives their upper and their lower bytes. Grey
# and alpha, four bytes each pixel, pass for RGBA.
_HALVES = {
    "RGB;16B": ("RGB", ("RGB;16B", "RGB;16L")),
    "RGBA;16B": ("RGBA", ("RGBA;16B", "RGBA;16L")),
    "LA;16B": ("RGBA", ("RGBA",)),
}


def read(image: Image.Image, data: bytes | None) -> Pixels:
    """Decode an opened PNG; modifies `image`. Without `data`, cICP and 16-bit colours are not looked at."""
    tile = getattr(image, "tile", None)
    rawmode = tile[0].args if tile else None
    key = image.info.get("transparency")
    encoding = _encoding(image.info, _cicp(data or b""))
    wide = data is not None and rawmode in _HALVES and (encoding is not None or isinstance(key, tuple))
    if isinstance(key, int) and rawmode in ("L;2", "L;4"):
        # Pillow scales these pixels to 8 bits but leaves the transparent value as stored in the file (11.3.1.1).
        image.info["transparency"] = key * (85 if rawmode == "L;2" else 17)
    if encoding and image.mode.startswith("I;16"):
        plain.decode(image)
        return turned(_from_grey(image, key, encoding), orientation(image))
    if not (wide and data is not None and isinstance(rawmode, str)):
        return _encoded(plain.read(image, data), encoding)
    return _from_wide(data, rawmode, key, encoding)


def _encoding(info: dict[Any, Any], cicp: Encoding | None) -> Encoding | None:
    """What counts of the chunks that describe colours, in the order of section 4.3; None where nothing or an ICC
    profile does, or where it is sRGB. As in browsers, cHRM counts only beside gAMA, and a gAMA without it means sRGB if
    it is within 5 % of 1/2.2, the number that sRGB stands behind (11.3.2.4)."""
    if cicp:
        return None if cicp.is_srgb else cicp
    gamma, points = info.get("gamma", 0), info.get("chromaticity", SRGB_POINTS)
    if not gamma or info.get("icc_profile") or "srgb" in info:
        return None
    exponent = 1 / gamma
    with contextlib.suppress(Exception):  # three colours on one line, or other numbers that make no sense
        encoding = Encoding(tuple(points), float(exponent))
        encoding.to_srgb(np.zeros((1, 1, 3), np.uint8))
        return None if encoding.keeps_hues and abs(gamma * 2.2 - 1) < 0.05 else encoding
    return None


def _cicp(data: bytes) -> Encoding | None:
    """The colour space that a cICP chunk gives by number (11.3.2.6); one of a limited range or of YCbCr is not valid
    for what browsers show, and is passed over as they do."""
    place = 8
    while data[place + 4 : place + 8] not in (b"IDAT", b"") and place < len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8].ljust(8, b"\0"))
        if name == b"cICP" and length == 4:
            primaries, transfer, matrix, full = data[place + 8 : place + 12].ljust(4, b"\0")
            return by_number(primaries, transfer) if (matrix, full) == (0, 1) else None
        place += 12 + length
    return None


def _encoded(pixels: Pixels, encoding: Encoding | None) -> Pixels:
    pixels.encoding = encoding
    return pixels


def _half(data: bytes, rawmode: str, half: int) -> Image.Image:
    """The upper (0) or the lower bytes (1) of a 16-bit file: Pillow has no mode for its numbers, so that it decodes the
    file twice. Of grey and alpha, there is one image with both."""
    mode, halves = _HALVES[rawmode]
    image = PngImagePlugin.PngImageFile(io.BytesIO(data))
    image._mode = mode
    image.tile = [tile._replace(args=halves[half]) for tile in image.tile]
    image.info.pop("transparency", None)
    image.load()
    return image


def _from_grey(image: Image.Image, key: object, encoding: Encoding) -> Pixels:
    """8-bit colour and alpha from 16 bits of grey."""
    table = _greys(encoding)
    return Pixels(by_bands(image, lambda values: table[values], "L"), opaque_but(image, key))


def _greys(encoding: Encoding | None) -> npt.NDArray[np.uint8]:
    """8 bits for each of 16."""
    values = np.arange(2**16, dtype=np.uint16)
    if encoding is None:
        return (values >> 8).astype(np.uint8)
    return encoding.to_srgb(np.repeat(values[:, None, None], 3, axis=2))[:, 0, 0]


def _from_wide(data: bytes, rawmode: str, key: object, encoding: Encoding | None) -> Pixels:
    """8-bit colour and alpha from 16 bits, band by band; the colours overwrite the upper bytes."""
    upper = _half(data, rawmode, 0)
    turn = orientation(upper)
    if rawmode == "LA;16B":
        table = _greys(encoding)
        grey = by_bands(upper, lambda values: table[values[..., 0].astype(np.uint16) * 256 + values[..., 1]], "L")
        return turned(Pixels(grey, upper.getchannel(2)), turn)
    lower = _half(data, rawmode, 1)
    mask = upper.getchannel("A") if upper.mode == "RGBA" else None
    if isinstance(key, tuple) and mask is None:
        mask = Image.new("L", upper.size)
    for box in boxes(*upper.size):
        values = np.asarray(upper.crop(box))[..., :3].astype(np.uint16) * 256 + np.asarray(lower.crop(box))[..., :3]
        if mask is not None and upper.mode == "RGB":
            there = (values == np.array(key)).all(axis=-1)
            mask.paste(Image.fromarray(np.where(there, 0, 255).astype(np.uint8)), box)
        if encoding:
            upper.paste(Image.fromarray(encoding.to_srgb(values)).convert(upper.mode), box)
    del lower
    colour = upper.convert("RGB") if upper.mode == "RGBA" else upper.copy()  # without the file
    return turned(Pixels(colour, mask), turn)
