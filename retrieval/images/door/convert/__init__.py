"""Convert a picture of any mode, bit depth and colour to upright 8-bit sRGB; one module for each format."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageFile

from retrieval.images.door.convert import avif, bmp, gif, plain, png, tiff
from retrieval.images.door.convert.blend import to_rgb
from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.upright import turned
from retrieval.images.door.formats import FORMATS

# What decodes an opened image of a format; the others are decoded by `plain`.
READERS: dict[str, Callable[[Image.Image, bytes | None], Pixels]] = {
    "AVIF": avif.read,
    "BMP": bmp.read,
    "GIF": gif.read,
    "PNG": png.read,
}


@dataclass
class Opened:
    """A picture whose header was read, and whose pixels were not."""

    sizes: list[tuple[int, int]]  # width and height of the picture, then of the parts that are decoded whole
    pixels: Callable[[int | None], Pixels]  # decodes; the argument is `at_least` of `open_image`

    def rgb(self, at_least: int | None = None) -> Image.Image:
        """Decode and convert to an upright image of mode RGB without metadata."""
        return _finished(self.pixels(at_least), None)


def open_data(data: bytes) -> Opened:
    """Read the header. Raises whatever Pillow raises for a file that it does not know."""
    if layout := tiff.own_layout(data):
        size = layout.width, layout.height
        orientation = layout.tags.get(274)
        return Opened([size, layout.chunk], lambda _: turned(tiff.read(data, layout), orientation))
    if header := bmp.own_header(data):
        return Opened([(header.width, header.height)], lambda _: bmp.read_own(data, header))
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    return Opened(sizes_of(image), lambda at_least: _decode(image, data, at_least))


def sizes_of(image: Image.Image) -> list[tuple[int, int]]:
    """The sizes that an opened image needs memory for."""
    sizes = [image.size]
    # A tile is decoded whole, and may be far larger than the image cropped from it.
    if image.format == "TIFF" and hasattr(image, "tag_v2"):
        sizes.append((image.tag_v2.get(322, 1), image.tag_v2.get(323, 1)))
    return sizes


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turn an opened or decoded image upright and convert it to RGB; may modify `image` in place."""
    return _finished(READERS.get(image.format or "", plain.read)(image, None), image)


def _decode(image: ImageFile.ImageFile, data: bytes, at_least: int | None) -> Pixels:
    if at_least:
        image.draft(None, (at_least, at_least))
    return READERS.get(image.format or "", plain.read)(image, data)


def _finished(pixels: Pixels, image: Image.Image | None) -> Image.Image:
    rgb = to_rgb(pixels)
    if rgb is image or isinstance(rgb, ImageFile.ImageFile):
        rgb = rgb.copy()  # the opened image keeps its file and decoder alive, which can be larger than the pixels
    rgb.info = {}
    return rgb
