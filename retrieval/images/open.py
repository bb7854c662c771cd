"""The one door through which a picture comes in: whatever holds one becomes an upright picture in sRGB.

    open_image("cat.jpg")           # PIL.Image.Image, mode RGB
    open_image(uploaded_bytes)      # the same; the format is told from the content, never from a name
    open_image(array)               # uint8, (H, W), (H, W, 3) or (H, W, 4)
    thumbnail_jpeg(picture, 256)    # JPEG bytes for a gallery

Whatever is wrong with a picture comes out as an `ImageError`, in one line that can be shown to a person.
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
"""Whatever holds a picture: a path, the bytes of a file, a binary file, a PIL image, or a uint8 array."""
Region = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, shares of its width and height in [0, 1]."""

_ACCEPTED = "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are accepted"

# Only to word the refusal: which files are read is for Pillow's own checks of the content to say. First match wins.
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
    """Read a picture: the first frame or page, upright, in sRGB, on white where it was transparent.

    Args:
        source: the bytes of a file, its path, a binary file object, which is read from where it stands, a PIL image of
            any mode, which is not changed, or a uint8 array of shape (H, W), (H, W, 3) in RGB or (H, W, 4) in RGBA.
        at_least: pixels a side that will do; a JPEG may then be decoded, quicker, at 1/2, 1/4 or 1/8 of its size.

    Returns:
        A picture of mode RGB, uint8 in [0, 255], shape (height, width, 3) as an array, with an empty `info`: turning
        by EXIF and conversion by ICC profile are done, and nothing is left behind that could do them twice.
        16-bit grey is divided by 257 (12-bit by 4095 / 255). 32-bit floats that all lie in [0, 1] are multiplied by
        255; any other floats, and 32-bit integers, are stretched from their least to their greatest value. NaN counts
        as the least, and infinities as the least and the greatest, finite value.

    Raises:
        ImageError: nothing there, not a regular file, over `MAX_BYTES`, not one of `FORMATS`, over `MAX_PIXELS` or
            `MAX_ASPECT` (both told from the header, before a pixel is decoded), damaged, or cut short; an address on
            the web, or an object that holds no picture.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pil(source)
    return _from_file(_name(source), read_bytes(source), at_least)


def _from_file(name: str, data: bytes, at_least: int | None) -> Image.Image:
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    # Lenience towards truncated files is a switch for the whole process that any import may have thrown, and Pillow has
    # no other. Setting it is the same act in every thread, so no lock; another thread that sets it back to True while
    # this one decodes cannot be guarded against.
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
        raise ImageError(f"{name} needs more memory than there is to decode it") from error
    except Exception as error:
        # Broad on purpose. Pillow's plugins let through whatever a hostile file makes them trip over: OSError,
        # SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, zlib.error, warnings made
        # errors, ... A list of them would be a list of the ones met so far.
        raise ImageError(f"{name} {_complaint(data)}") from error


def as_region(value: object) -> Region:
    """Anybody's value as a region; raises ImageError unless it is a list or tuple of four numbers that are one."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, list | tuple) and len(value) == 4:
        left, top, right, bottom = (v if _is_number(v) else math.nan for v in value)
        if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return float(left), float(top), float(right), float(bottom)
    found = short(repr(value), 100)
    raise ImageError(f"a region is [left, top, right, bottom], shares of the picture from 0 to 1, not {found}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool)


def crop(image: Image.Image, region: object) -> Image.Image:
    """The part of a picture in a region: whole pixels, and at least one. Raises ImageError as `as_region` does."""
    left, top, right, bottom = as_region(region)
    # Rounded, since a share that went through other programs may be a hair below the pixel that was meant.
    x, y = min(round(left * image.width), image.width - 1), min(round(top * image.height), image.height - 1)
    return image.crop((x, y, max(round(right * image.width), x + 1), max(round(bottom * image.height), y + 1)))


def thumbnail_jpeg(image: Image.Image, longer_side: int = 256, quality: int = 80) -> bytes:
    """Encode a picture as a small JPEG for display.

    Args:
        image: a picture as `open_image` gives it; one of another mode is converted to RGB by Pillow's plain rules.
        longer_side: the most pixels along the longer side; a picture that is smaller already keeps its size.
        quality: JPEG quality, 1 to 95.

    Returns:
        The bytes of a JPEG file without metadata. The aspect ratio is kept to the pixel, and no side is below 1 pixel.
    """
    scale = min(1.0, longer_side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    # Even to its own size, for a copy: saving leaves notes on the object, and other threads may be saving it too.
    small = rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    # The comment is named because Pillow would else copy one over from `info`; optimize: a tenth less, losslessly.
    small.save(buffer, "JPEG", quality=quality, optimize=True, comment=b"")
    return buffer.getvalue()


def read_bytes(source: File) -> bytes:
    """The whole of a file, `MAX_BYTES` at most; its content is not looked at.

    Args:
        source: as for `open_image`; bytes are handed back as they are.

    Raises:
        ImageError: no such file, not a regular file (a folder, FIFO, device or socket is never opened), not readable,
            or over `MAX_BYTES`, in which case it is not read to its end.
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
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte, a file that is closed
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a readable file"
        raise ImageError(f"{name} cannot be read: {reason}") from error


def not_a_file(source: object) -> str | None:
    """Why an object cannot be read as a file, with what to give in its place; None where it may be one."""
    if isinstance(source, str) and re.match(r"(?i)\s*(https?|ftp|s3|gs|hf)://", source):
        return f"{short(source, 100)!r} is an address: download it first, and give its path or its bytes"
    if isinstance(source, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(source, "read"):
        return None
    kind = type(source)
    tensor = kind.__module__.partition(".")[0] in {"torch", "tensorflow", "jax", "jaxlib"}
    advice = "; make it an array first: numpy, uint8, (H, W, 3)" if tensor else ""
    return f"a picture is a path, bytes, a binary file, a PIL image or a uint8 array, not {kind.__qualname__}{advice}"


def _read_capped(name: str, file: BinaryIO, expected: int) -> bytes:
    """Read to the end of `file`, or to one byte over the cap: a file can grow after its size was asked for."""
    parts, room = [], MAX_BYTES + 1
    while room and (part := file.read(min(room, expected + 1))):  # asking for far too much is slow for a small file
        if not isinstance(part, bytes):
            raise ImageError(f"{name} is open as text; open it in binary mode")
        parts.append(part)
        room -= len(part)
    if not room:
        raise _too_many_bytes(name)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_many_bytes(name: str) -> ImageError:
    return ImageError(f"{name} is too large; at most {MAX_BYTES // 2**20} MiB are accepted")


def _name(source: object) -> str:
    """What to call `source` in a message: its file name, never its folders, on one line."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    name = Path(path).name if isinstance(path, str | os.PathLike) else ""
    return "".join(c if c.isprintable() else "?" for c in name[:100]) or "the image"


def _complaint(data: bytes) -> str:
    """Why these bytes could not be decoded, with what they look like."""
    head = data[:4096]
    found = next((kind for kind, pattern in _SIGNATURES if re.match(pattern, head, re.DOTALL)), None)
    if found and found.upper() in FORMATS:
        return f"is damaged, cut short, or a rare kind of {found} that cannot be read"
    return f"is not a picture that can be read{f' (found: {found})' if found else ''}; {_ACCEPTED}"


def _check_size(name: str, image: Image.Image) -> None:
    """Hold what the header claims against the limits; Pillow itself opens no picture without pixels."""
    sizes = [image.size]
    if image.format == "TIFF" and hasattr(
        image, "tag_v2"
    ):  # one tile is decoded whole, and may be far larger than the picture that it is cut to
        sizes.append((image.tag_v2.get(322, 1), image.tag_v2.get(323, 1)))
    for width, height in sizes:
        if width * height > MAX_PIXELS:
            raise ImageError(f"{name} has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{name} is too long and thin ({width} x {height}); at most {MAX_ASPECT}:1 is accepted")


def _decode(image: ImageFile.ImageFile, at_least: int | None) -> Image.Image:
    """Decode an opened picture, once, and bring it to RGB; `at_least` is that of `open_image`."""
    if at_least:
        image.draft(None, (at_least, at_least))
    stored = stored_form(image)
    image.load()
    return upright_rgb(image, stored)


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    if array.dtype == np.uint8 and array.size and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        return Image.fromarray(np.ascontiguousarray(array))
    raise ImageError(
        f"an array that holds a picture is uint8, of shape (H, W), (H, W, 3) or (H, W, 4), and not empty; this one is "
        f"{array.dtype}, of shape {array.shape}"
    )


def _from_pil(picture: Image.Image) -> Image.Image:
    """The same as for a file, of a picture that the caller has opened, and goes on to use."""
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
    except Exception as error:  # a file that is opened lazily fails here, in any of its decoder's ways
        raise ImageError(f"{name} cannot be decoded: {error}") from error
