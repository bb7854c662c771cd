"""Convert a picture of any mode, bit depth and colour to upright 8-bit sRGB; one module for each format."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageFile

from retrieval.images.door.checks.heif import is_heif
from retrieval.images.door.convert import avif, bmp, gif, heif, plain, png, tiff
from retrieval.images.door.convert.blend import to_rgb
from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.upright import turned
from retrieval.images.door.formats import FORMATS
from retrieval.images.door.limits import MAX_PIXELS, decoding_memory, part_memory, reduction

# What decodes an opened image of a format; the others are decoded by `plain`.
READERS: dict[str, Callable[[Image.Image, bytes | None], Pixels]] = {
    "AVIF": avif.read,
    "BMP": bmp.read,
    "GIF": gif.read,
    "HEIF": heif.read,
    "PNG": png.read,
}


@dataclass
class Opened:
    """A picture whose header was read, and whose pixels were not."""

    size: tuple[int, int]  # width and height
    memory: int  # an upper estimate of the bytes that it takes to decode and convert it
    pixels: Callable[[int | None], Pixels]  # decodes; the argument is `at_least` of `open_image`

    def rgb(self, at_least: int | None = None) -> Image.Image:
        """Decode and convert to an upright image of mode RGB without metadata, of at most `MAX_PIXELS`."""
        return _finished(self.pixels(at_least), None)


def open_data(data: bytes) -> Opened:
    """Read the header. Raises whatever Pillow raises for a file that it does not know."""
    if layout := tiff.own_layout(data):
        orientation = layout.tags.get(274)
        size, memory = (layout.width, layout.height), tiff.memory_for(layout)
        return Opened(size, memory, lambda _: turned(tiff.read(data, layout), orientation))
    if header := bmp.own_header(data):
        pixels = header.width * header.height
        size, memory = (header.width, header.height), 15 * pixels + 12 * min(pixels, MAX_PIXELS)
        return Opened(size, memory, lambda _: bmp.read_own(data, header))
    if is_heif(data) and "HEIF" in FORMATS:
        image = Image.open(io.BytesIO(data), formats=["HEIF"])
        memory = decoding_memory(image, max(image.width * image.height, heif.coded_pixels(data)))
        return Opened(image.size, memory, lambda _: heif.read(image, data))
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    return Opened(image.size, part_memory(image), lambda at_least: _decode(image, data, at_least))


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turn an opened or decoded image upright and convert it to RGB; may modify `image` in place."""
    return _finished(READERS.get(image.format or "", plain.read)(image, None), image)


def _decode(image: ImageFile.ImageFile, data: bytes, at_least: int | None) -> Pixels:
    by = reduction(*image.size)
    if at_least and min(image.size) // at_least >= by:
        image.draft(None, (at_least, at_least))
    elif by > 1:
        image.draft(None, (image.width // by, image.height // by))
    return READERS.get(image.format or "", plain.read)(image, data)


def _finished(pixels: Pixels, image: Image.Image | None) -> Image.Image:
    by = reduction(*pixels.colour.size)
    if by > 1:
        pixels.colour = pixels.colour.reduce(by)
        pixels.alpha = None if pixels.alpha is None else pixels.alpha.reduce(by)
    rgb = to_rgb(pixels)
    if rgb is image or isinstance(rgb, ImageFile.ImageFile):
        rgb = rgb.copy()  # the opened image keeps its file and decoder alive, which can be larger than the pixels
    rgb.info = {}
    return rgb
