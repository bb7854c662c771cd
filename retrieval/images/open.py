"""The only entry point for images: whatever contains one is turned into an upright sRGB image.

    open_image("cat.jpg")           # PIL.Image.Image, mode RGB
    open_image(uploaded_bytes)      # the same; the format is detected from the content, never from a name
    open_image(array)               # uint8, (H, W), (H, W, 3) or (H, W, 4)
    thumbnail_jpeg(picture, 256)    # JPEG bytes for a gallery

Every problem with an image is raised as an `ImageError`, with a one-line message that can be shown to a user.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images.door.convert import upright_rgb
from retrieval.images.door.decode import decode
from retrieval.images.door.files import File, name_of, unread
from retrieval.images.door.limits import check_memory, check_shape, part_memory
from retrieval.images.door.views import WHOLE, View, enough_for, within
from retrieval.images.door.workers.apart import decode_apart

Picture = File | Image.Image | npt.NDArray[np.uint8]
"""Anything that contains an image: a path, the bytes of a file, a binary file, a PIL image, or a uint8 array."""


def open_image(source: Picture, *, at_least: int | None = None) -> Image.Image:
    """Read an image: the first frame or page, upright, in sRGB, with transparency blended onto white.

    Args:
        source: the bytes of a file; its path; a binary file object, read from its current position; a PIL image of any
            mode, left unchanged; or a uint8 array of shape (H, W), (H, W, 3) in RGB or (H, W, 4) in RGBA.
        at_least: smallest acceptable side in pixels; a JPEG may then be decoded at 1/2, 1/4 or 1/8 size, which is
            faster.

    Returns:
        An image of mode RGB, uint8 in [0, 255], shape (height, width, 3) as an array. EXIF orientation and the ICC
        profile (or what stands for one; see `docs/pictures.md`) have been applied, and `info` is empty, so nothing can
        apply them twice. Pillow may keep it read-only: its methods make a copy before they change it; call `copy`
        before you write to the pixels of `load` yourself. A picture of more than `MAX_PIXELS` (25 million) is opened
        at 1/2, 1/4 or 1/8 of its size. Unsigned integers are scaled from their full range, so 16-bit grey is divided
        by 257. Floats that all lie in [0, 1] are multiplied by 255; other floats, signed integers, and unsigned grey
        of 32 bits, are scaled from their [min, max] to [0, 255]. NaN counts as the smallest finite value, and
        infinities as the smallest and largest finite values.

    Raises:
        ImageError: the source is missing, not a regular file, larger than `MAX_BYTES`, not one of `FORMATS`, over
            `MAX_MEMORY` or `MAX_ASPECT` (both checked in the header, before decoding), damaged or truncated (a JPEG
            that lacks only its end marker opens), or costly beyond reason; or it is a URL, or an object without an
            image. On Linux also: decoding it takes too long or too much memory, or crashes.
        LookalikeError: the process that decodes (see `docs/how-it-works.md`) cannot be started.
    """
    return open_views(source, [WHOLE], at_least=at_least)[0]


def open_views(source: Picture, views: Sequence[View], *, at_least: int | None = None) -> list[Image.Image]:
    """Read an image as `open_image` does, but only the views that are wanted of it, each an image of mode RGB.

    A large picture is then never in the memory of this process, where there are workers. A JPEG that is much larger
    than all views is decoded at a fraction of its size: at least three times that of each view. Raises like
    `open_image`.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if isinstance(source, Image.Image):
        image = _from_pil(source)
        return [view.of(image) for view in views]
    return decode_apart(source, at_least or enough_for(views), views)


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    if array.dtype == np.uint8 and array.size and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        return Image.fromarray(np.ascontiguousarray(array))
    raise ImageError(
        f"a picture given as an array must be uint8, of shape (H, W), (H, W, 3) or (H, W, 4), and not empty; this one "
        f"is {array.dtype}, of shape {array.shape}"
    )


def _from_pil(picture: Image.Image) -> Image.Image:
    """Convert a PIL image that the caller opened and continues to use, exactly as a file is converted."""
    name = name_of(getattr(picture, "filename", None) or "")
    if not (picture.width and picture.height):
        raise ImageError(f"{name} has no pixels ({picture.width} x {picture.height})")
    check_memory(name, picture.size, part_memory(picture))
    check_shape(name, *picture.size)
    try:
        if (data := unread(picture)) is not None:
            opened = decode(name, data, None)
            if opened.size in (picture.size, picture.size[::-1]):  # not after `draft` or another frame was chosen
                return opened
        picture.load()
        return upright_rgb(picture.copy())
    except ImageError:
        raise
    except Exception as error:  # a lazily opened file fails here, with any of its decoder's exceptions
        raise ImageError(f"{name} cannot be decoded: {error}") from error


def thumbnail_jpeg(image: Image.Image, longer_side: int = 256, quality: int = 80) -> bytes:
    """Encode an image as a small JPEG for display.

    Args:
        image: an image from `open_image`; one of another mode is converted to RGB by Pillow's default rules.
        longer_side: largest number of pixels on the longer side; a smaller image keeps its size.
        quality: JPEG quality, 1 to 95.

    Returns:
        The bytes of a JPEG file without metadata. The aspect ratio is kept up to rounding; each side has at least one
        pixel.
    """
    shrink = within(longer_side)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    # Resize even to the same size, which copies: saving modifies the object, and other threads may be saving it too.
    small = rgb.resize(shrink.size_of(*image.size), shrink.filter, reducing_gap=shrink.gap)
    buffer = io.BytesIO()
    # An empty comment, or Pillow copies one from `info`. optimize=True saves a tenth of the size, without loss.
    small.save(buffer, "JPEG", quality=quality, optimize=True, comment=b"")
    return buffer.getvalue()
