"""From the samples of a TIFF to 8-bit colours (TIFF 6.0: sections 4, 5, 16, 18, 21 and 23)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.tiff.layout import (
    CIELAB,
    COLOURS,
    GREY,
    GREY_INVERTED,
    ICCLAB,
    PALETTE,
    Layout,
)
from retrieval.images.door.convert.tiff.samples import Samples, bands

Bytes = npt.NDArray[np.uint8]
MODES = {1: "L", 3: "RGB", 4: "CMYK"}


def read_samples(data: bytes, layout: Layout) -> Pixels:
    """Decode one page; raises ValueError or OSError like `bands`."""
    count, alpha = COLOURS[layout.photometric], layout.alpha
    to_bytes = _colours(data, layout)
    shades = 3 if layout.photometric == PALETTE else count
    colour = np.empty((layout.height, layout.width, shades), np.uint8)
    mask = np.empty((layout.height, layout.width), np.uint8) if alpha else None
    for top, samples in bands(data, layout):
        rows = slice(top, top + len(samples))
        colours = samples[..., :count]
        if alpha and mask is not None:
            opacity = _fraction(samples[..., alpha[0]], layout.bits[alpha[0]], layout.kinds[alpha[0]])
            mask[rows] = np.rint(opacity * 255)
            colours = _unmultiplied(colours, opacity[..., None], layout) if alpha[1] else colours
        colour[rows] = to_bytes(colours)
    mode = "LAB" if layout.photometric in (CIELAB, ICCLAB) else MODES[shades]
    return Pixels(picture(colour, mode), None if mask is None else picture(mask, "L"), layout.tags.get(34675))


def picture(values: Bytes, mode: str) -> Image.Image:
    """A picture of this mode, from bytes of shape (height, width, bands)."""
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), values.tobytes())


def _colours(data: bytes, layout: Layout) -> Callable[[Samples], Bytes]:
    """What turns the colour samples of a band into bytes."""
    bits, kind = layout.bits[0], layout.kinds[0]
    if layout.photometric == PALETTE:
        palette = _palette(layout)
        return lambda samples: palette[samples[..., 0]]
    if layout.photometric in (CIELAB, ICCLAB):
        return lambda samples: _lab(samples, layout)
    low, high = _range(data, layout)
    if layout.photometric == GREY_INVERTED and kind != 3:  # no program turns floats round
        return lambda samples: 255 - _scaled(samples, low, high)
    if kind == 1 and bits <= 16:
        levels = np.arange(2**bits, dtype=np.uint32)
        table = ((levels * 255 + (2**bits - 1) // 2) // (2**bits - 1)).astype(np.uint8)
        return lambda samples: table[samples]
    return lambda samples: _scaled(samples, low, high)


def _range(data: bytes, layout: Layout) -> tuple[float, float]:
    """The values that become 0 and 255: those of the sample's type, or, for floats, signed numbers and grey of 32 bits
    and more, the smallest and the largest that there are; floats that all lie in [0, 1] keep that range."""
    bits, kind = layout.bits[0], layout.kinds[0]
    if kind == 1 and (bits < 32 or layout.photometric not in (GREY, GREY_INVERTED)):
        return 0.0, float(2**bits - 1)
    low, high = np.inf, -np.inf
    for _, samples in bands(data, layout):
        colours = samples[..., : COLOURS[layout.photometric]]
        finite = colours[np.isfinite(colours)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high or (kind == 3 and low >= 0 and high <= 1):
        return (0.0, 1.0) if low <= high else (0.0, 0.0)
    return low, high


def _scaled(samples: Samples, low: float, high: float) -> Bytes:
    """Bytes from numbers; NaN counts as the smallest, infinities as the ends of the range."""
    values = np.nan_to_num(samples.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint((np.clip(values, low, high) - low) * (255 / ((high - low) or 1))).astype(np.uint8)


def _fraction(samples: Samples, bits: int, kind: int) -> npt.NDArray[np.float32]:
    """Opacity from 0 to 1: floats hold it as it is, integers as a part of their largest value."""
    values = np.nan_to_num(samples.astype(np.float32)) / (1 if kind == 3 else 2 ** (bits - (kind == 2)) - 1)
    return np.clip(values, 0, 1)


def _unmultiplied(colours: Samples, opacity: npt.NDArray[np.float32], layout: Layout) -> Samples:
    """Colours that were multiplied by their opacity, divided by it again (ExtraSamples 1)."""
    values = colours / np.maximum(opacity, 1e-6)
    if layout.kinds[0] == 3:
        return values
    return np.clip(np.rint(values), 0, 2 ** layout.bits[0] - 1).astype(colours.dtype.newbyteorder("="))


def _palette(layout: Layout) -> Bytes:
    """The colours of a palette, of shape (2^bits, 3). Its numbers have 16 bits; files whose largest is below 256 come
    from writers that took them for bytes, and libtiff reads them so."""
    colours = np.array(layout.tags[320], np.uint32).reshape(3, -1).T
    if len(colours) != 2 ** layout.bits[0]:
        raise ValueError("a palette of another size")
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def _lab(samples: Samples, layout: Layout) -> Bytes:
    """Lightness from 0 to 255, and signed a and b, which is how Pillow takes them. CIELab stores a and b as signed
    numbers, ICCLab plus half of the range (Adobe PageMaker 6.0 TIFF Technical Notes); its L* of 100 is ff00."""
    bits, kind = layout.bits[0], layout.photometric
    if bits not in (8, 16) or layout.kinds[0] == 3:
        raise ValueError("Lab of another depth")
    values = samples.astype(np.int32) & (2**bits - 1)
    if kind == CIELAB:
        values[..., 1:] ^= 1 << (bits - 1)
    if bits == 16:
        lightness = values[..., :1] * 255 / (65535 if kind == CIELAB else 65280)
        values = np.rint(np.concatenate([lightness, values[..., 1:] / 256], axis=-1))
    signed: Bytes = np.clip(values, 0, 255).astype(np.uint8) ^ np.array([0, 128, 128], np.uint8)
    return signed
