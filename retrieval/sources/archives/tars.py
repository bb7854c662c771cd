"""Tar files, plain or compressed: their members in order, read once from start to end, and never unpacked."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from retrieval.errors import SourceError, first_line
from retrieval.images.door.files import MAX_BYTES
from retrieval.words import counted

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
UNREADABLE = (".tar.zst", ".tzst", ".tar.lz4", ".tar.z", ".7z", ".rar")
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)
_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LONGEST_HEADER = 2**20  # bytes; tarfile would hold any size in memory


class _Header(tarfile.TarInfo):
    """A header that must be right: tarfile itself takes a wrong one for the end of the archive."""

    @classmethod
    def frombuf(cls, *args: Any) -> Any:
        header = super().frombuf(*args)
        if header.type in _LONG_HEADERS and header.size > _LONGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        return header

    @classmethod
    def fromtarfile(cls, archive: Any) -> Any:
        try:
            return super().fromtarfile(archive)
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            archive.has_end = False
            raise
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


def is_compressed(path: Path) -> bool:
    """Whether a tar file is compressed, by its first bytes; then it is only read in order."""
    with path.open("rb") as file:
        return file.read(6).startswith(tuple(_OPENERS))


def members(path: Path, notes: list[str]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each member in order, with the open archive; adds to `notes` if the file may have been cut short, or has more.

    Raises one of DAMAGED if the file is damaged.
    """
    with path.open("rb") as raw:
        opener = next((opener for magic, opener in _OPENERS.items() if raw.peek(6).startswith(magic)), None)
        file: IO[bytes] = opener(raw) if opener else raw
        with tarfile.open(fileobj=file, mode="r|" if opener else "r:", tarinfo=_Header, encoding="utf-8") as archive:
            while member := archive.next():
                yield archive, member
                archive.members.clear()  # type: ignore[attr-defined]  # they would fill the memory
            if not getattr(archive, "has_end", True):
                notes.append(f"{path.name} has no end mark after its last file: it may have been cut short")
            rest = iter(lambda: archive.fileobj.read(2**20), b"")
            if any(block.strip(b"\0") for block in rest):
                notes.append(f"{path.name} has more data after its end mark, which is not read: were two files joined?")


def content(archive: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes:
    """The first `limit` bytes of the member that `members` has just given."""
    file = archive.extractfile(member)
    return file.read(limit) if file else b""


def in_order(path: Path, wanted: Sequence[int]) -> Iterator[bytes]:
    """The contents of the members with these numbers, in ascending order; each at most one byte over MAX_BYTES.

    Raises SourceError if the file is damaged.
    """
    left = iter(wanted)
    following = next(left, None)
    try:
        for number, (archive, member) in enumerate(members(path, [])):
            if number == following:
                yield content(archive, member, MAX_BYTES + 1)
                following = next(left, None)
            if following is None:
                return
    except DAMAGED as error:
        raise SourceError(damaged(path.name, error)) from error
    raise SourceError(f"{path.name} has changed while it was read: build again.")


def damaged(name: str, error: BaseException, read: int = 0) -> str:
    """The message for a tar file that cannot be read to its end; `read` members were."""
    if isinstance(error, PermissionError):
        return f"{name} cannot be read: no permission. Allow it with `chmod +r {name}`."
    after = f" after {counted(read, 'file')}" if read else ""
    return f"{name} is no tar file, or it is damaged or cut short{after} ({first_line(error)}): copy it again."
