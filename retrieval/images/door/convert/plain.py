"""What Pillow has decoded, split into 8-bit colour and alpha, whatever its mode."""

from __future__ import annotations

from PIL import Image

from retrieval.images.door.convert.depth import from_16_bit, from_32_bit
from retrieval.images.door.convert.pixels import Pixels
from retrieval.images.door.convert.upright import forget_xmp, turn_by_exif


def read(image: Image.Image, data: bytes | None = None) -> Pixels:
    """Decode an opened image, turn it upright, and split it; modifies `image`."""
    bits = 12 if getattr(image, "tag_v2", {}).get(258) == (12,) else 16  # Pillow leaves these at 0 to 4095
    decode(image)
    turn_by_exif(image)
    return split(image, bits)


def decode(image: Image.Image) -> None:
    """Decode, without what the XMP text says."""
    forget_xmp(image)
    image.load()
    forget_xmp(image)  # a PNG may have it behind the pixels


def split(image: Image.Image, bits: int = 16) -> Pixels:
    """Colour and alpha of a decoded image; `bits` are those of each sample of 16-bit grey."""
    key, profile = image.info.get("transparency"), image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        return Pixels(*from_16_bit(image, key, bits), profile)
    if image.mode in ("I", "F"):
        return Pixels(from_32_bit(image), None, profile)
    if image.has_transparency_data:
        both = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        return Pixels(both.convert(both.mode[:-1]), both.getchannel("A"), profile)
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return Pixels(image, None, profile)
    return Pixels(image.convert("L" if image.mode == "1" else "RGB"), None, profile)
