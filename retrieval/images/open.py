"""The only entry point for images: whatever contains one is turned into an upright sRGB image.

    open_image("cat.jpg")           # PIL.Image.Image, mode RGB
    open_image(uploaded_bytes)      # the same; the format is detected from the content, never from a name
    open_image(array)               # uint8, (H, W), (H, W, 3) or (H, W, 4)
    thumbnail_jpeg(picture, 256)    # JPEG bytes for a gallery

Every problem with an image is raised as an `ImageError`, with a one-line message that can be shown to a user.
"""

import io
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from retrieval.errors import ImageError, short
from retrieval.images.convert import stored_form, upright_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 25_000_000
MAX_ASPECT = 100

File = bytes | str | os.PathLike[str] | BinaryIO
Picture = File | Image.Image | npt.NDArray[np.uint8]
"""Anything that contains an image: a path, the bytes of a file, a binary file, a PIL image, or a uint8 array."""
Region = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, as fractions of its width and height in [0, 1]."""

_ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are accepted"

# Only for the wording of errors: Pillow's own checks of the content decide which files are read. First match wins.
_SIGNATURES = [
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG"),
    ("WebP", rb"RIFF....WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]|MM\*\0"),
    ("BMP", rb"BM.{4}\0\0\0\0"),
    ("AVIF", rb".{4}ftyp(avif|avis)|.{4}ftyp(mif1|msf1).{0,40}avi[fs]"),
    ("HEIC", rb".{4}ftyp(hei|hev|mif1|msf1)"),
    ("MP4 or QuickTime video", rb".{4}ftyp"),
    ("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    ("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),
    ("PDF", rb"%PDF-"),
    ("EPS or PostScript", rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("PSD (Photoshop)", rb"8BPS"),
    ("ICO or CUR icon", rb"\0\0[\x01\x02]\0[^\0]"),
    ("SVG", rb".{0,2000}<svg[\s:>]"),
    ("HTML", rb"\s*<(?i:!doctype html|html)"),
    ("PNM", rb"P[1-7fF]\s"),
    ("ZIP", rb"PK\x03\x04"),
    ("gzip", rb"\x1f\x8b"),
    ("text", rb"[\t\n\r\x20-\x7e]{16}"),
]


def open_image(source: Picture, *, at_least: int | None = None) -> Image.Image:
    """Read an image: the first frame or page, upright, in sRGB, with transparency blended onto white.

    Args:
        source: the bytes of a file; its path; a binary file object, read from its current position; a PIL image of any
            mode, left unchanged; or a uint8 array of shape (H, W), (H, W, 3) in RGB or (H, W, 4) in RGBA.
        at_least: smallest acceptable side in pixels; a JPEG may then be decoded at 1/2, 1/4 or 1/8 size, which is
            faster.

    Returns:
        An image of mode RGB, uint8 in [0, 255], shape (height, width, 3) as an array. EXIF orientation and the ICC
        profile have been applied, and `info` is empty, so nothing can apply them twice.
        16-bit grey is divided by 257 (12-bit by 4095 / 255). 32-bit floats that all lie in [0, 1] are multiplied by
        255; other floats, and 32-bit integers, are scaled from their [min, max] to [0, 255]. NaN counts as the
        smallest finite value, and infinities as the smallest and largest finite values.

    Raises:
        ImageError: the source is missing, not a regular file, larger than `MAX_BYTES`, not one of `FORMATS`, over
            `MAX_PIXELS` or `MAX_ASPECT` (both checked in the header, before decoding), damaged or truncated; or it is
            a URL, or an object that contains no image.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source)
    return _from_file(_name(source), read_bytes(source), at_least)


def _from_file(name: str, data: bytes, at_least: int | None) -> Image.Image:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    # Whether Pillow accepts truncated files is a process-wide switch that any import may have changed; Pillow has no
    # other. Every thread here sets the same value, so no lock is needed; nothing can prevent foreign code in another
    # thread from setting it back to True during decoding.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(name, image)
        return _decode(image, at_least)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has too many pixels; at most {MAX_PIXELS:,} are accepted") from error
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory to decode than is available") from error
    except Exception as error:
        # Broad on purpose. On malicious files Pillow's plugins raise almost anything: OSError, SyntaxError,
        # ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, zlib.error, warnings turned into
        # errors, ... A list could only contain those seen so far.
        raise ImageError(f"{name} {_complaint(data)}") from error


def as_region(value: object) -> Region:
    """Validate an untrusted value as a region; raises ImageError unless it is a list or tuple of four valid numbers."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, list | tuple) and len(value) == 4:
        left, top, right, bottom = (v if _is_number(v) else math.nan for v in value)
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return float(left), float(top), float(right), float(bottom)
    found = short(repr(value), 100)
    raise ImageError(
        f"a region must be [left, top, right, bottom], as fractions of the picture from 0 to 1, not {found}"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool)


def crop(image: Image.Image, region: object) -> Image.Image:
    """Crop an image to a region, in whole pixels and at least one. Raises ImageError like `as_region`."""
    left, top, right, bottom = as_region(region)
    # Rounded: a fraction that passed through other programs may fall just short of the intended pixel.
    x, y = min(round(left * image.width), image.width - 1), min(round(top * image.height), image.height - 1)
    return image.crop((x, y, max(round(right * image.width), x + 1), max(round(bottom * image.height), y + 1)))


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
    scale = min(1.0, longer_side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    # Resize even to the same size, which copies: saving modifies the object, and other threads may be saving it too.
    small = rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    # An empty comment, or Pillow copies one from `info`. optimize=True saves a tenth of the size, without loss.
    small.save(buffer, "JPEG", quality=quality, optimize=True, comment=b"")
    return buffer.getvalue()


def read_bytes(source: File) -> bytes:
    """Read a whole file of at most `MAX_BYTES`; the content is not inspected.

    Args:
        source: as for `open_image`; bytes are returned unchanged.

    Raises:
        ImageError: the file does not exist, is not a regular file (a folder, FIFO, device or socket is never opened),
            cannot be read, or is larger than `MAX_BYTES` (reading then stops early).
    """
    name = _name(source)
    if complaint := not_a_file(source):
        raise ImageError(complaint)
    if isinstance(source, bytes | bytearray | memoryview):
        if memoryview(source).nbytes > MAX_BYTES:
            raise _too_many_bytes(name)
        return bytes(source)
    try:
        if not isinstance(source, str | os.PathLike):
            return _read_capped(name, source, MAX_BYTES)
        status = Path(source).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name} is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}")
        if status.st_size > MAX_BYTES:
            raise _too_many_bytes(name)
        with Path(source).open("rb") as file:
            return _read_capped(name, file, status.st_size)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte, or a closed file
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable file"
        raise ImageError(f"{name} cannot be read: {reason}") from error


def not_a_file(source: object) -> str | None:
    """The reason why an object cannot be read as a file, with advice; None if it may be readable."""
    if isinstance(source, str) and re.match(r"(?i)\s*(https?|ftp|s3|gs|hf)://", source):
        return f"{short(source, 100)!r} is a URL: download it first, and give its path or bytes"
    if isinstance(source, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(source, "read"):
        return None
    kind = type(source)
    tensor = kind.__module__.partition(".")[0] in {"torch", "tensorflow", "jax", "jaxlib"}
    advice = "; convert it to a NumPy array first: uint8, (H, W, 3)" if tensor else ""
    return (
        f"a picture must be a path, bytes, a binary file, a PIL image or a uint8 array, not {kind.__qualname__}{advice}"
    )


def _read_capped(name: str, file: BinaryIO, expected: int) -> bytes:
    """Read `file` to its end, or to one byte over the limit: a file can grow after its size was checked."""
    parts, room = [], MAX_BYTES + 1
    while room and (part := file.read(min(room, expected + 1))):  # asking for far too much is slow for a small file
        if not isinstance(part, bytes):
            raise ImageError(f"{name} is open in text mode; open it in binary mode")
        parts.append(part)
        room -= len(part)
    if not room:
        raise _too_many_bytes(name)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_many_bytes(name: str) -> ImageError:
    return ImageError(f"{name} is too large; at most {MAX_BYTES // 2**20} MiB are accepted")


def _name(source: object) -> str:
    """The name of `source` for messages: the file name without its folders, on one line."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    name = Path(path).name if isinstance(path, str | os.PathLike) else ""
    return "".join(c if c.isprintable() else "?" for c in name[:100]) or "the image"


def is_pointer(data: bytes) -> bool:
    """Whether these are the first bytes of a pointer of Git LFS instead of a file."""
    return data.startswith(b"version https://git-lfs.github.com/spec/")


def _complaint(data: bytes) -> str:
    """The reason why these bytes could not be decoded, with the format they resemble."""
    head = data[:4096]
    if is_pointer(head):
        return "is a pointer of Git LFS, not the picture itself: run `git lfs pull` in its folder"
    found = next((kind for kind, pattern in _SIGNATURES if re.match(pattern, head, re.DOTALL)), None)
    if found and found.upper() in FORMATS:
        return f"is damaged, cut short, or an unsupported variant of {found}"
    return f"is not a readable picture{f' (found: {found})' if found else ''}; {_ACCEPTED}"


def _check_size(name: str, image: Image.Image) -> None:
    """Check the size in the header against the limits; Pillow itself rejects images without pixels."""
    sizes = [image.size]
    # A tile is decoded whole, and may be far larger than the image cropped from it.
    if image.format == "TIFF" and hasattr(image, "tag_v2"):
        sizes.append((image.tag_v2.get(322, 1), image.tag_v2.get(323, 1)))
    for width, height in sizes:
        if width * height > MAX_PIXELS:
            raise ImageError(f"{name} has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{name} is too long and thin ({width} x {height}); at most {MAX_ASPECT}:1 is accepted")


def _decode(image: ImageFile.ImageFile, at_least: int | None) -> Image.Image:
    """Decode an opened image once, and convert it to RGB; for `at_least` see `open_image`."""
    if at_least:
        image.draft(None, (at_least, at_least))
    stored = stored_form(image)
    image.load()
    return upright_rgb(image, stored)


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    if array.dtype == np.uint8 and array.size and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        return Image.fromarray(np.ascontiguousarray(array))
    raise ImageError(
        f"a picture given as an array must be uint8, of shape (H, W), (H, W, 3) or (H, W, 4), and not empty; this one "
        f"is {array.dtype}, of shape {array.shape}"
    )


def _from_pil(picture: Image.Image) -> Image.Image:
    """Convert a PIL image that the caller opened and continues to use, exactly as a file is converted."""
    name = _name(getattr(picture, "filename", None) or "")
    if not (picture.width and picture.height):
        raise ImageError(f"{name} has no pixels ({picture.width} x {picture.height})")
    _check_size(name, picture)
    try:
        stored = stored_form(picture)
        picture.load()
        return upright_rgb(picture.copy(), stored)
    except ImageError:
        raise
    except Exception as error:  # a lazily opened file fails here, with any of its decoder's exceptions
        raise ImageError(f"{name} cannot be decoded: {error}") from error
