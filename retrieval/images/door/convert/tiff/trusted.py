"""Which TIFFs Pillow reads as they are; the others are read here."""

from __future__ import annotations

from retrieval.images.door.convert.tiff.layout import (
    ASSOCIATED,
    BYTEWISE,
    CIELAB,
    CMYK,
    COLOURS,
    GREY,
    GREY_INVERTED,
    PALETTE,
    RGB,
    UNASSOCIATED,
    YCBCR,
    Layout,
)

# Bits and SampleFormat of the grey, without further samples, that Pillow reads right.
_GREY = {GREY_INVERTED: {(1, 1), (2, 1), (4, 1), (8, 1), (32, 3)}}
_GREY[GREY] = _GREY[GREY_INVERTED] | {(12, 1), (16, 1), (16, 2), (32, 2)}
# Extra samples that it reads right behind RGB of 8 bits, and of 16.
_EXTRAS: dict[int, set[tuple[int, ...]]] = {
    8: {(), (0,), (0, 0), (0, 0, 0), (999,), *((kind, *[0] * n) for kind in (1, 2) for n in range(3))},
    16: {(), (0,), (ASSOCIATED,), (UNASSOCIATED,)},
}


def pillow_is_right(layout: Layout) -> bool:
    """Whether Pillow's own reading is the right one, or the only one there is."""
    if layout.compression not in BYTEWISE or layout.photometric not in COLOURS:
        return True  # libtiff turns pixels packed as JPEG, WebP, fax and so on into pixels
    bits, kind, colours = layout.bits[0], layout.kinds[0], COLOURS[layout.photometric]
    if len(set(layout.bits)) != 1 or len(set(layout.kinds)) != 1:
        return False
    if colours == 1 and layout.samples == 1:
        if layout.photometric == PALETTE:
            return bits <= 8 and kind == 1 and max(layout.tags.get(320, (256,))) >= 256
        right = (bits, kind) in _GREY[layout.photometric]
        # It leaves big-endian numbers that libtiff has unpacked as they are, although libtiff has turned their bytes.
        swapped = layout.order == ">" and ((layout.compression != 1 and (bits, kind) != (16, 1)) or bits == 12)
        return right and not (bits > 8 and swapped) and not (bits == 12 and layout.compression != 1)
    if kind != 1 or (layout.planar and not _planes_are_right(layout)):
        return False
    if layout.photometric == RGB:
        return layout.extras in _EXTRAS.get(bits, set()) and layout.samples == 3 + len(layout.extras)
    if layout.photometric == CMYK:
        return bits in (8, 16) and layout.samples == 4
    if layout.photometric == YCBCR:
        return bits == 8 and layout.samples == 3 and not layout.planar and layout.compression != 1
    if layout.photometric == GREY:
        return bits == 8 and layout.extras == (UNASSOCIATED,) and layout.samples == 2 and not layout.planar
    return layout.photometric == CIELAB and bits == 8 and layout.samples == 3 and not layout.planar


def _planes_are_right(layout: Layout) -> bool:
    """Whether Pillow reads samples that are stored plane by plane: of 16 bits only what libtiff has unpacked."""
    known = layout.extras in ((), (UNASSOCIATED,)) or (layout.extras == (ASSOCIATED,) and layout.bits[0] == 16)
    return known and (layout.bits[0] == 8 or (layout.bits[0] == 16 and layout.compression != 1))
