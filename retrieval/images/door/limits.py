"""How large a picture may be: by the memory that decoding it needs, and what is returned by its pixels."""

from __future__ import annotations

from PIL import Image

from retrieval.errors import ImageError

MAX_PIXELS = 25_000_000
"""Pixels of a returned picture: a larger one is opened at 1/2, 1/4 or 1/8 of its size."""
MAX_ASPECT = 100
"""Longer side by shorter side."""
MAX_MEMORY = 768 * 2**20
"""Bytes that decoding and converting a picture may need, by `decoding_memory`; its file comes on top."""

_ORDINARY = 128 * 2**20  # bytes that an ordinary picture needs, at most
# Bytes of a pixel in memory, by mode; of every other mode 4.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
# Bytes for each pixel of the file that decoders need besides: planes of YCbCr, a second canvas, a copy.
_DECODER = {"WEBP": 13, "AVIF": 14, "HEIF": 6}
_CONSTANT = 2**24  # rows that are being converted
_WIDE = 5  # of a PNG with 16-bit colours: its lower bytes, and an alpha
_DEEP = 8  # more than 8 bits of a HEIC


def reduction(width: int, height: int) -> int:
    """1, or the power of 2 by which the sides have to be divided so that no more than `MAX_PIXELS` remain."""
    by = 1
    while (width // by) * (height // by) > MAX_PIXELS:
        by *= 2
    return by


def decoding_memory(image: Image.Image, pixels: int | None = None) -> int:
    """An upper estimate of the bytes that it takes to decode an opened image and to convert it.

    Args:
        image: not decoded yet; its header says the rest.
        pixels: how many the decoder makes, if not all of the image's: of a JPEG at a part of its size, or of a tile.
    """
    made = pixels or image.width * image.height
    shown = min(made, MAX_PIXELS)
    stored = _STORED.get(image.mode, 4)
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    tile = getattr(image, "tile", None)
    besides = _DECODER.get(image.format or "", 0)
    if image.format == "PNG" and tile and str(tile[0].args) in ("RGB;16B", "RGBA;16B", "LA;16B"):
        besides = _WIDE
    if image.format == "HEIF" and image.info.get("bit_depth", 8) > 8:
        besides = _DEEP
    split = 9 if transparent else 4 if stored < 4 else 0
    coloured = 4 if image.info.keys() & {"icc_profile", "gamma"} or image.format in ("PNG", "AVIF") else 0
    memory: float = (
        _CONSTANT + made * (stored + max(besides, split)) + shown * (4 + (4 if transparent else 0) + coloured)
    )
    if image.info.get("progressive"):
        memory += image.width * image.height * _coefficients(image)
    return int(memory)


def _coefficients(image: Image.Image) -> float:
    """Bytes of a progressive JPEG for each pixel: 2 for each sample, of which there are fewer of colour than of light
    in most photographs."""
    samples = [across * down for _, across, down, _ in getattr(image, "layer", [])]
    return 2 * sum(samples) / max(samples, default=1) if samples else 8


def part_memory(image: Image.Image) -> int:
    """As `decoding_memory`, with what decoders make more or less of than the pixels of the image: a tile of a TIFF is
    decoded whole, and may be far larger than the image cropped from it; a JPEG may be decoded at a part of its size."""
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        by = min(reduction(width, height), 8)
        return decoding_memory(image, (width // by) * (height // by))
    if image.format == "TIFF" and hasattr(image, "tag_v2"):
        tile = image.tag_v2.get(322, 1) * image.tag_v2.get(323, 1)
        return decoding_memory(image, max(width * height, tile))
    return decoding_memory(image)


def check_memory(name: str, size: tuple[int, int], memory: int) -> None:
    """Raise ImageError if `memory`, in bytes, is more than `MAX_MEMORY`; the size is for the message."""
    if memory > MAX_MEMORY:
        large = size[0] * size[1] > MAX_PIXELS
        raise ImageError(
            f"{name} has {size[0]} x {size[1]} pixels, which take {memory / 2**20:,.0f} MiB of memory to decode; at "
            f"most {MAX_MEMORY // 2**20} MiB are allowed: save it "
            f"{f'with no more than {MAX_PIXELS:,} pixels' if large else 'as a JPEG'}"
        )


def is_large(pixels: int, memory: int) -> bool:
    """Whether decoding may take more than about a fifth of a second: more than a telephone's photograph of 12 MP."""
    return pixels > MAX_PIXELS or memory > _ORDINARY


def check_shape(name: str, width: int, height: int) -> None:
    """Raise ImageError if a picture is longer and thinner than `MAX_ASPECT` allows."""
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{name} is too long and thin ({width} x {height}); at most {MAX_ASPECT}:1 is accepted")
