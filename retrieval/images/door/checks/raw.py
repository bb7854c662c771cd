"""RAW photographs, which most cameras write as TIFF files whose first page is only a small preview."""

from __future__ import annotations

from collections.abc import Mapping

from retrieval.images.door.checks.blocks.tags import Directory, Tag
from retrieval.images.door.formats import EXPORT, RefusedError

_SUBFILE, _PHOTOMETRIC, _MAKE, _OTHERS, _DNG = 254, 262, 271, 330, 50706
_SENSOR = {32803, 34892}  # photometric: values of a sensor behind its colour filter; the same as linear colours
_MAKERS = {
    "nikon": "Nikon NEF",
    "sony": "Sony ARW",
    "pentax": "Pentax PEF",
    "ricoh": "Pentax PEF",
    "samsung": "Samsung SRW",
}
_CR2 = b"CR\2"  # behind the TIFF header; then a minor version and the place of the directory of the raw data
_CR2_START = 16  # of its first directory


def check_raw(directory: Directory, tags: Mapping[int, Tag]) -> None:
    """Raise RefusedError if the first page is not the picture that a camera has taken.

    A preview says that it is a reduced copy (NewSubfileType), and points at the other pages (SubIFDs, TIFF Technical
    Note 1); a DNG states its version (Adobe's DNG specification, chapter 4). A CR2 has a header of 16 bytes, with its
    mark behind that of TIFF. A PEF has the values of the sensor in its first page.
    """

    def value(number: int) -> int:
        return next(iter(directory.values(tags[number], 1)), 0) if number in tags else 0

    reduced = bool(value(_SUBFILE) & 1)
    if bytes(directory.data[8:11]) == _CR2 and directory.start == _CR2_START:
        kind = "Canon CR2"
    elif _DNG in tags and (reduced or value(_PHOTOMETRIC) in _SENSOR):
        kind = "DNG"
    elif reduced and _OTHERS in tags:
        kind = _maker(directory, tags) or "of a camera"
    elif value(_PHOTOMETRIC) in _SENSOR and (maker := _maker(directory, tags)):
        raise RefusedError(f"is a RAW photograph ({maker}), which only programs for its camera can read; {EXPORT}")
    else:
        return
    raise RefusedError(f"is a RAW photograph ({kind}), and only its small preview could be read; {EXPORT}")


def _maker(directory: Directory, tags: Mapping[int, Tag]) -> str | None:
    """The kind of file that the maker of the camera has; None if it is not known."""
    made = tags.get(_MAKE)
    text = bytes(directory.data[made.start : made.start + min(made.size, 64)]) if made else b""
    return _MAKERS.get(text.decode("latin-1").lower().strip("\0 ").partition(" ")[0])
