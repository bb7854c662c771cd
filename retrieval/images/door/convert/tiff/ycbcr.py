"""YCbCr that is not packed as JPEG, with as many samples of colour as of luminance or fewer (TIFF 6.0, section 21)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.tiff.layout import GREY, Layout
from retrieval.images.door.convert.tiff.meaning import picture
from retrieval.images.door.convert.tiff.samples import Samples, bands

Bytes = npt.NDArray[np.uint8]


def read_ycbcr(data: bytes, layout: Layout) -> Pixels:
    """Decode one page; raises ValueError or OSError like `bands`."""
    across, down = (int(each) for each in layout.tags.get(530, (2, 2)))
    if set(layout.bits) != {8} or layout.samples != 3 or across not in (1, 2, 4) or down not in (1, 2, 4):
        raise ValueError("YCbCr of another depth, or with other samples")
    if layout.predictor != 1 and (across, down) != (1, 1):
        raise ValueError("a predictor for samples of different sizes")
    colour = np.empty((layout.height, layout.width, 3), np.uint8)
    for top, samples in (_planes if layout.planar else _units)(data, layout, across, down):
        part = colour[top : top + len(samples)]
        part[:] = _rgb(samples[: len(part), : layout.width], layout)
    return Pixels(picture(colour, "RGB"), profile=layout.tags.get(34675))


def _units(data: bytes, layout: Layout, across: int, down: int) -> Iterator[tuple[int, Samples]]:
    """Samples that lie in units: the luminance of `across` x `down` pixels, and the two differences of all of them."""
    luma = across * down
    units = replace(_reduced(layout, across, down), bits=(8,) * (luma + 2), kinds=(1,) * (luma + 2))
    for top, samples in bands(data, units):
        rows, columns = samples.shape[:2]
        bright = samples[..., :luma].reshape(rows, columns, down, across).swapaxes(1, 2)
        spread = [_spread(samples[..., luma + n], across, down) for n in range(2)]
        yield top * down, np.stack([bright.reshape(rows * down, columns * across), *spread], axis=-1)


def _planes(data: bytes, layout: Layout, across: int, down: int) -> Iterator[tuple[int, Samples]]:
    """The whole page, from one plane of luminance and two of differences."""
    strips = layout.chunks_across * layout.chunks_down
    found = []
    for plane in range(3):
        part = slice(plane * strips, (plane + 1) * strips)
        one = replace(layout, bits=(8,), kinds=(1,), planar=False, offsets=layout.offsets[part], photometric=GREY)
        one = replace(one, counts=layout.counts[part])
        samples = np.concatenate([s for _, s in bands(data, _reduced(one, across, down) if plane else one)])[..., 0]
        found.append(_spread(samples, across, down) if plane else samples)
    yield 0, np.stack([each[: layout.height, : layout.width] for each in found], axis=-1)


def _reduced(layout: Layout, across: int, down: int) -> Layout:
    """A layout whose pixels stand for `across` x `down` of this one."""
    width, height = math.ceil(layout.width / across), math.ceil(layout.height / down)
    chunk = math.ceil(layout.chunk[0] / across), math.ceil(layout.chunk[1] / down)
    return replace(layout, width=width, height=height, chunk=chunk)


def _spread(samples: Samples, across: int, down: int) -> Samples:
    return np.repeat(np.repeat(samples, down, axis=0), across, axis=1)


def _rgb(samples: Samples, layout: Layout) -> Bytes:
    """RGB by the file's coefficients, and its levels of black and white."""
    red, green, blue = (float(each) for each in layout.tags.get(529, (0.299, 0.587, 0.114)))
    levels = np.array([float(each) for each in layout.tags.get(532, (0, 255, 128, 255, 128, 255))])
    low, high = levels[::2], levels[1::2]
    scaled = (samples - low) * (np.array([255, 127, 127]) / np.where(high == low, 1, high - low))
    luma, blueness, redness = np.moveaxis(scaled, -1, 0)
    r = luma + redness * (2 - 2 * red)
    b = luma + blueness * (2 - 2 * blue)
    g = (luma - blue * b - red * r) / (green or 1)
    rgb: Bytes = np.clip(np.rint(np.stack([r, g, b], axis=-1)), 0, 255).astype(np.uint8)
    return rgb
