"""JPEG: the segments before the first scan are cut down to what decoding needs, and the number of scans is bounded."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from retrieval.images.door.checks.blocks.icc import MAX_PROFILE, safe_profile
from retrieval.images.door.checks.blocks.tags import exif_block, orientation
from retrieval.images.door.checks.ending import with_end
from retrieval.images.door.formats import RefusedError

_MOST_SEGMENTS = 10_000
MOST_SCANS = 100  # encoders write about ten, and at most 64
_MOST_SCANNED = 1_500_000_000  # pixels times scans: even an empty scan takes time for each block
_MOST_EXIF_SEGMENTS = 16

# A marker in or after the data of a scan: not a stuffed zero, not a fill byte, not a restart marker.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# A decoder that is given a file in pieces reads a long row of fill bytes again with every piece.
_FILL = re.compile(rb"\xff{256,}")

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_BARE = {0x01, _SOI, *range(0xD0, 0xD8)}  # markers without a length
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ICC = b"ICC_PROFILE\0"
_MARKS = {0xE0: b"JFIF", 0xEE: b"Adobe"}  # the two segments that say how colours are stored


class Segment(NamedTuple):
    """A marker with its parameters; `start` is its 0xFF, `end` is after the parameters."""

    marker: int
    start: int
    end: int


def is_jpeg(data: bytes) -> bool:
    """Whether these bytes start as a JPEG file does."""
    return data.startswith(b"\xff\xd8\xff")


def clean(data: bytes, max_pixels: int) -> bytes:
    """Keep the tables, frame, scans, colour profile and orientation; see `only_needed`."""
    segments = walk(data)
    first = next((number for number, segment in enumerate(segments) if segment.marker == _SOS), len(segments))
    _check_scans(data, segments, first)
    view = memoryview(data)
    parts, dropped = _header(view, segments[:first])
    tail, tail_changed = _scans(view, segments[first:])
    if dropped or tail_changed:
        data = b"".join([*parts, *tail])
    if first < len(segments) and not _ends(segments):
        return with_end(data, walk(data), max_pixels)
    return data


def lacks_end(data: bytes) -> bool:
    """Whether a JPEG file has no end marker."""
    return not data.endswith(b"\xff\xd9") and not _ends(walk(data))


def _ends(segments: list[Segment]) -> bool:
    return bool(segments) and segments[-1].marker == _EOI


def walk(data: bytes) -> list[Segment]:
    """All segments from the first to the end marker; stops before one that is cut short."""
    found: list[Segment] = []
    place = 2
    while match := _MARKER.search(data, place):
        start, marker = match.start(), data[match.start() + 1]
        place = start + 2
        if marker not in _BARE and marker != _EOI:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
        if place > len(data):
            break
        found.append(Segment(marker, start, place))
        if marker == _EOI:
            break
        if len(found) > _MOST_SEGMENTS:
            raise RefusedError(f"is a JPEG file of more than {_MOST_SEGMENTS:,} segments, which no picture needs")
    return found


def _check_scans(data: bytes, segments: list[Segment], first: int) -> None:
    """Bound what the scans of a file may cost."""
    scans = sum(segment.marker == _SOS for segment in segments)
    if scans > MOST_SCANS:
        raise RefusedError(f"has {scans:,} scans; at most {MOST_SCANS} are accepted: save it again as JPEG")
    for segment in segments[:first]:
        if segment.marker in FRAMES and segment.end - segment.start >= 10:
            height, width = struct.unpack_from(">HH", data, segment.start + 5)
            if scans > 1 and width * height * scans > _MOST_SCANNED:
                raise RefusedError(f"has {scans} scans of {width} x {height} pixels, too many to decode: save it again")


def _header(view: memoryview, segments: list[Segment]) -> tuple[list[bytes | memoryview], bool]:
    """What is kept of the file before the first scan, and whether anything is not."""
    exif = _exif(view, segments)
    chunks, profile, safe = _profile(view, segments)
    turn = orientation(exif)
    parts: list[bytes | memoryview] = [view[:2]]
    if turn != 1:
        parts.append(_segment(0xE1, b"Exif\0\0" + exif_block(turn)))
    if safe and safe is not profile:
        pieces = [safe[i : i + 65_000] for i in range(0, len(safe), 65_000)]
        parts += [_segment(0xE2, _ICC + bytes((i + 1, len(pieces))) + piece) for i, piece in enumerate(pieces)]
    keep = set(chunks) if safe and safe is profile else set()
    end, dropped = 2, False
    for segment in segments:
        if segment in keep or _is_needed(segment.marker, view[segment.start + 4 : segment.end]):
            parts.append(view[segment.start : segment.end])
            dropped = dropped or segment.start != end
        else:
            dropped = True
        end = segment.end
    return parts, dropped


def _is_needed(marker: int, body: memoryview) -> bool:
    """Whether a decoder needs a segment, profiles aside."""
    if marker in _MARKS:
        return bytes(body[:5]).startswith(_MARKS[marker])
    return marker != _COM and marker not in _BARE - {_SOI} and not 0xE0 <= marker <= 0xEF


def _exif(view: memoryview, segments: list[Segment]) -> bytes:
    """The EXIF block, which may be spread over segments, without what lies beyond a size that no directory reaches."""
    bodies = [view[s.start + 4 : s.end] for s in segments if s.marker == 0xE1]
    blocks = [body[6:] for body in bodies if bytes(body[:6]) == b"Exif\0\0"]
    return b"".join(blocks[:_MOST_EXIF_SEGMENTS])


def _profile(view: memoryview, segments: list[Segment]) -> tuple[list[Segment], bytes, bytes | None]:
    """The segments of the colour profile, the profile, and what `safe_profile` makes of it."""
    found = [s for s in segments if s.marker == 0xE2 and view[s.start + 4 : s.start + 16] == _ICC]
    found.sort(key=lambda s: bytes(view[s.start + 16 : s.start + 17]))
    whole = found and view[found[0].start + 17 : found[0].start + 18] == bytes((len(found) & 255,))
    if not whole or sum(s.end - s.start for s in found) > 2 * MAX_PROFILE:
        return [], b"", None
    profile = b"".join(view[s.start + 18 : s.end] for s in found)
    return found, profile, safe_profile(profile)


def _scans(view: memoryview, segments: list[Segment]) -> tuple[list[memoryview], bool]:
    """The scans, without long rows of fill bytes, and whether there were any."""
    parts: list[memoryview] = []
    run = segments[0].start if segments else len(view)
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        for row in _FILL.finditer(view, segment.end, following.start if following else len(view)):
            parts.append(view[run : row.start() + 1])
            run = row.end()
    parts.append(view[run:])
    return parts, len(parts) > 1


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
