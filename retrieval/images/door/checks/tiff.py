"""TIFF and BigTIFF: the first directory is rewritten with the tags that decoding needs; it becomes the only one."""

from __future__ import annotations

import struct
from collections import Counter

from retrieval.images.door.checks.blocks.icc import MAX_PROFILE, safe_profile
from retrieval.images.door.checks.blocks.tags import MOST_TAGS, Directory, Tag
from retrieval.images.door.checks.raw import check_raw
from retrieval.images.door.formats import RefusedError

_MOST_PIECES = 65_536  # strips or tiles
_MOST_SHARED = 8  # times the size of the file
_MOST_SAMPLES = 1024  # values of a tag that has one for each sample of a pixel
_MOST_TABLE = 3 * 2**17  # bytes of a palette, or of the tables that the strips of a JPEG share
_SMALL, _SMALL_IN_ALL = 4096, 2**16  # bytes of any other tag, and of all of them

_WIDTH, _HEIGHT, _SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 277, 278, 284, 322, 323
_STRIPS, _TILES = 273, 324
_PIECES = {273, 279, 324, 325}  # offsets and sizes of strips and tiles
_TABLES = {320, 347}
_PROFILE = 34675
# How pixels are stored: width, height, bits, compression, photometric, fill order, orientation, samples, rows, planes,
# predictor, tile size, extra samples, sample format, YCbCr.
_LAYOUT = {256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323, 338, 339, 529, 530, 531, 532}
# Other directories (of EXIF, GPS, smaller copies), and blocks that hold no pixels: XMP, IPTC, Photoshop.
_DROPPED = {330, 700, 33723, 34377, 34665, 34853, 37724, 40965}


def is_tiff(data: bytes) -> bool:
    """Whether these bytes start as a TIFF file does."""
    return data[:2] in (b"II", b"MM") and bool({42, 43} & {*data[2:4]})


def clean(data: bytes, max_pixels: int) -> bytes:
    """Keep the first page, its layout, palette, colour profile and small tags; see `only_needed`.

    Raises ValueError for BigTIFF in big-endian order, which Pillow takes for another format, and for a layout that is
    not clear.
    """
    try:
        directory = Directory(data)
    except struct.error:
        return data
    if directory.big and directory.order == ">":
        raise ValueError("not supported")
    if len(directory) > MOST_TAGS:
        raise RefusedError(f"is a TIFF file of {len(directory):,} tags; at most {MOST_TAGS:,} are accepted")
    tags = list(directory.tags())
    _check_overlap(len(data), directory, tags)
    unique = _by_number(tags)
    check_raw(directory, unique)
    most = _most_pieces(directory, unique)
    kept, patch, room = [], (0, b""), _SMALL_IN_ALL
    for number, tag in sorted(unique.items()):
        if number in _PIECES:
            kept.append(tag._replace(length=min(tag.length, most)))
        elif number in _LAYOUT or number in _TABLES:
            if (tag.size > _MOST_TABLE) if number in _TABLES else (tag.length > _MOST_SAMPLES):
                raise ValueError("a tag of the layout is too long")
            kept.append(tag)
        elif number == _PROFILE:
            profile = bytes(data[tag.start : tag.start + tag.size]) if tag.size <= MAX_PROFILE else b""
            safe = safe_profile(profile)
            if safe and safe is not profile:
                patch = tag.start, safe
            kept += [tag] if safe else []
        elif number not in _DROPPED and tag.size <= min(_SMALL, room) and tag.start + tag.size <= len(data):
            room -= tag.size
            kept.append(tag)
    if kept == tags and not patch[1] and directory.following() == 0:
        return data
    return _rewritten(data, patch, directory, kept)


def _by_number(tags: list[Tag]) -> dict[int, Tag]:
    if any(number in _LAYOUT | _PIECES for number, count in Counter(t.number for t in tags).items() if count > 1):
        raise ValueError("a tag of the layout is there twice")
    return {tag.number: tag for tag in tags}


def _most_pieces(directory: Directory, tags: dict[int, Tag]) -> int:
    """The number of strips or tiles that the picture needs; offsets beyond it mean nothing."""

    def value(number: int, default: int) -> int:
        found = directory.values(tags[number], 1) if number in tags else ()
        return found[0] if found else default

    width, height = value(_WIDTH, 0), value(_HEIGHT, 0)
    planes = max(1, value(_SAMPLES, 1)) if value(_PLANAR, 1) == 2 else 1
    pieces = [(width, value(_ROWS, height))] if _STRIPS in tags else []
    pieces += [(value(_TILE_WIDTH, 0), value(_TILE_HEIGHT, 0))] if _TILES in tags else []
    needed = max((_ceil(width, across) * _ceil(height, down) * planes for across, down in pieces), default=1)
    present = max((tag.length for number, tag in tags.items() if number in _PIECES), default=0)
    if min(present, needed) > _MOST_PIECES:
        raise RefusedError(f"is a TIFF file of {needed:,} strips or tiles; at most {_MOST_PIECES:,} are accepted")
    return max(needed, 1)


def _check_overlap(size: int, directory: Directory, tags: list[Tag]) -> None:
    """Pieces may share bytes, as empty tiles do, but not many times the whole file, which would be read each time."""
    for tag in tags:
        if tag.number in (279, 325) and tag.length > 1:
            lengths = directory.values(tag, _MOST_PIECES)
            if sum(min(length, size) for length in lengths) > _MOST_SHARED * size:
                raise RefusedError("is a TIFF file whose strips or tiles overlap many times")


def _ceil(whole: int, part: int) -> int:
    """How many parts a length needs; a part without length is an error that decoders have ways to deal with."""
    return -(-whole // part) if part > 0 else _MOST_PIECES


def _rewritten(data: bytes, profile: tuple[int, bytes], directory: Directory, tags: list[Tag]) -> bytes:
    """The file with fewer tags in the place of its first directory, and no other after it; a profile (place, content)
    is replaced. Nothing becomes longer: what lay beyond the end of the file would otherwise lie inside it."""
    order, big = directory.order, directory.big
    letter, width = ("Q", 8) if big else ("I", 4)
    entries = [struct.pack(order + ("Q" if big else "H"), len(tags))]
    for tag in tags:
        number, kind, count, place = tag
        value = data[place : place + tag.size].ljust(width, b"\0")
        field = struct.pack(order + letter, place) if tag.size > width else value
        entries.append(struct.pack(f"{order}HH{letter}", number, kind, count) + field)
    copy = bytearray(data)
    for start, new in (profile, (directory.start, b"".join([*entries, bytes(width)]))):
        copy[start : start + len(new)] = new[: max(0, len(data) - start)]
    return bytes(copy)
