"""RAW photographs, which most cameras write as TIFF files whose first page is only a small preview."""

from __future__ import annotations

from collections.abc import Mapping

from retrieval.images.door.checks.blocks.tags import Directory, Tag
from retrieval.images.door.formats import EXPORT, RefusedError

_SUBFILE, _PHOTOMETRIC, _MAKE, _OTHERS, _DNG = 254, 262, 271, 330, 50706
_SENSOR = {32803, 34892}  # photometric: values of a sensor behind its colour filter; the same as linear colours
_MAKERS = {"nikon": "Nikon NEF", "sony": "Sony ARW", "pentax": "Pentax PEF", "samsung": "Samsung SRW"}


def check_raw(directory: Directory, tags: Mapping[int, Tag]) -> None:
    """Raise RefusedError if the first page is not the picture that a camera has taken.

    A preview says that it is a reduced copy (NewSubfileType), and points at the other pages (SubIFDs, TIFF Technical
    Note 1); a DNG states its version (Adobe's DNG specification, chapter 4). A CR2 has "CR" behind the TIFF header.
    """

    def value(number: int) -> int:
        return next(iter(directory.values(tags[number], 1)), 0) if number in tags else 0

    reduced = bool(value(_SUBFILE) & 1)
    if bytes(directory.data[8:10]) == b"CR" and directory.start >= 16:
        kind = "Canon CR2"
    elif _DNG in tags and (reduced or value(_PHOTOMETRIC) in _SENSOR):
        kind = "DNG"
    elif reduced and _OTHERS in tags:
        made = tags.get(_MAKE)
        maker = bytes(directory.data[made.start : made.start + min(made.size, 64)]) if made else b""
        word = maker.decode("latin-1").lower().strip("\0 ").partition(" ")[0]
        kind = _MAKERS.get(word, "of a camera")
    else:
        return
    raise RefusedError(f"is a RAW photograph ({kind}), and only its small preview could be read; {EXPORT}")
