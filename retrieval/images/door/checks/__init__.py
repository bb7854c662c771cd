"""Checks of a file before any decoder sees it: its structure is walked, and only what conversion needs is passed on.

A decoder can be made to spend minutes or gigabytes on parts of a file that contribute no pixel: comments, other frames,
the tags of an EXIF block. So each format has a short walker here, in time linear in the size of the file, which drops
what is not needed, and refuses what no honest file contains. A BMP has nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Callable

from retrieval.errors import ImageError
from retrieval.images.door.checks import avif, gif, heif, jpeg, png, tiff, webp
from retrieval.images.door.formats import FORMATS, RefusedError

_WALKERS: list[tuple[Callable[[bytes], bool], Callable[[bytes, int], bytes]]] = [
    (jpeg.is_jpeg, jpeg.clean),
    (png.is_png, png.clean),
    (webp.is_webp, webp.clean),
    (gif.is_gif, gif.clean),
    (tiff.is_tiff, tiff.clean),
    *([(heif.is_heif, heif.clean)] if "HEIF" in FORMATS else []),
    (avif.is_avif, avif.clean),
]


def only_needed(name: str, data: bytes, max_pixels: int) -> bytes:
    """The same picture without what conversion does not need; `data` itself if there is nothing to drop.

    Pixels, palette, transparency, colour (ICC profile, PNG's colour chunks, Adobe's marker) and orientation are kept.
    The EXIF block becomes one with the orientation alone. A colour profile that would cost too much is dropped. Of
    several frames or pages, only the first is certain to be kept.

    Args:
        name: for messages.
        data: a whole file, of any kind; one of no accepted format is returned unchanged.
        max_pixels: the limit on width x height, for sizes that a decoder allocates before it can be asked for them.

    Raises:
        ImageError: decoding could take far more time or memory than the picture is worth.
    """
    for accepts, clean in _WALKERS:
        if accepts(data):
            try:
                return clean(data, max_pixels)
            except RefusedError as reason:
                raise ImageError(f"{name} {reason}") from None
    return data


def remark(data: bytes) -> str | None:
    """What to say of a picture that opens although its file is not whole, as the rest of a sentence; usually None."""
    if jpeg.is_jpeg(data) and jpeg.lacks_end(data):
        return "lacks its end marker, as if cut short; every line of the picture is there"
    return None
