"""One file of a folder or of an archive, and what a place holds that gives no image."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from retrieval.sources.archives.reading import read_packed
from retrieval.sources.base import LeftOut

_ENDINGS = """
blp bmp dib bufr cur pcx dcx dds ps eps fit fits fli flc ftc ftu gbr gif grib png apng jp2 j2k jpc jpf jpx j2c
icns ico im iim tif tiff jfif jpe jpg jpeg mpg mpeg msp pcd pxr pbm pgm ppm pnm psd bw rgb rgba sgi ras tga
icb vda vst webp wmf emf xbm xpm avif heic heif heics heifs hif
"""
PICTURES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Extensions of pictures: those that `datasets` looks for in a folder, AVIF and HEIC."""
_PICTURE = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|BM.{4}\0\0\0\0|.{4}ftyp", re.DOTALL)


@dataclass(frozen=True)
class File:
    """One file of a folder, or of an archive (a zip or tar file)."""

    key: str
    """Its path below the folder, with `/`; for a file in an archive, the archive's path and then the path inside."""
    path: str
    """Where it is read: a path, `zip://inner::path`, or `tar://offset,size::path`; "" if only in `stream`."""
    source: str
    """Its name in the gallery: the path below the folder, or `zip://inner::path below the folder`."""
    stamp: tuple[int, int] = (0, 0)
    """Size in bytes and time of the last change in nanoseconds, to notice changes."""
    kind: str = ""
    """`zip` or `tar` for a file in an archive."""
    data: bytes | None = field(default=None, repr=False, compare=False)
    """The content, if it was read when the archive was listed."""
    stream: tuple[str, int] | None = None
    """Path of a compressed tar file and number of the member: such files are only read in order."""
    is_other: bool = False
    """Whether a file in a tar file is no picture, by its name and its first bytes."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The extension in lower case, with its dot; "" if there is none."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def unpacked(self) -> str:
        """Its path below the folder; for a file in an archive, as if that were unpacked where it lies."""
        if not self.source.startswith(("zip://", "tar://")):
            return self.key
        inner, _, outer = self.source[len("zip://") :].rpartition("::")
        return posixpath.join(posixpath.dirname(outer), inner)

    def read(self, limit: int = -1) -> bytes:
        """The content, at most `limit` bytes of it; raises OSError, and ValueError for a damaged archive."""
        if self.data is not None:
            return self.data
        if self.kind:
            return read_packed(self.path, limit)
        with Path(self.path).open("rb") as file:
            return file.read(limit)


@dataclass
class Found:
    """What a folder or an archive holds; hidden files and folders are ignored."""

    files: list[File] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Paths of the folders with nothing in them."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tree:
    """The files of a folder, of an archive, or of several archives in one folder."""

    name: str
    """The name as requested."""
    root: Path
    """The folder, or the one that the archives are in; resolved."""
    found: Found
    about: Mapping[str, str]
    """See `retrieval.sources.base.Source`."""
    base: str = ""
    """The only folder at the top of an archive, which holds all of it; "" if there is none."""
    beside: tuple[File, ...] = ()
    """Metadata files beside an archive: they count only if they name files in it."""


def looks_like_picture(head: bytes) -> bool:
    """Whether these first bytes of a file are those of a picture; 16 are enough."""
    return _PICTURE.match(head) is not None


def is_hidden(name: str) -> bool:
    """Whether a path is hidden: a part starts with a dot, or it is what a Mac adds to every zip file."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def as_text(path: str) -> str:
    """A path as text that can be written and printed, even if its bytes are not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
