"""What a zip or tar file holds, as if it were unpacked, without unpacking it.

Names in an archive are not to be trusted: they may be absolute, lead out with `..`, or belong to links and devices.
"""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from retrieval.errors import SourceError, first_line
from retrieval.sources.archives import tars
from retrieval.sources.archives.files import PICTURES, File, Found, as_text, is_hidden, looks_like_picture
from retrieval.sources.base import LeftOut
from retrieval.sources.metadata import NAMES

SIDECARS = (".cls", ".txt", ".json")
"""Extensions of the files that describe the image of the same key in a WebDataset."""
MOST_METADATA = 2**30  # bytes of one metadata file in an archive
_MOST_SIDECAR = 2**20  # bytes
_LISTED = 10  # files left out for the same reason, one by one, at most
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


@dataclass(frozen=True)
class _Member:
    name: str
    path: str = ""
    problem: str | None = None
    data: bytes | None = None
    stream: tuple[str, int] | None = None
    is_other: bool = False


def is_archive(name: str) -> bool:
    """Whether a file is an archive that can be read, by its name."""
    return name.lower().endswith((".zip", *tars.SUFFIXES))


def list_archive(path: Path, key: str = "") -> Found:
    """The files of an archive that are not hidden, in its own order; `key` is its path below the folder that is read.

    Raises SourceError if it is damaged or cannot be read.
    """
    found, kind = Found(), "zip" if path.name.lower().endswith(".zip") else "tar"
    status = path.stat()
    files: dict[str, File] = {}
    for member in _in_zip(path) if kind == "zip" else _in_tar(path, found.notes):
        name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
        outside = _ABSOLUTE.match(member.name) or ".." in name.split("/")
        if not name or (is_hidden(name) and not outside):
            continue
        whole = f"{key}/{name}" if key else name
        problem = "its path leads out of the archive" if outside else member.problem
        if not problem and name.lower().endswith((".zip", *tars.SUFFIXES, *tars.UNREADABLE)):
            problem = "an archive inside an archive: unpack it first"
        if not problem and whole in files:
            problem = "the archive has a later file with the same name"
        if problem:
            found.left_out.append(LeftOut(as_text(whole), problem))
        if not problem or whole in files:
            source = f"{kind}://{name}::{key}" if key else name
            stamp = (status.st_size, status.st_mtime_ns)
            files[whole] = File(whole, member.path, source, stamp, kind, member.data, member.stream, member.is_other)
    found.files = list(files.values())
    found.left_out = list(_grouped(found.left_out, key))
    return found


def _grouped(left_out: list[LeftOut], key: str) -> Iterator[LeftOut]:
    """Many files with the same reason, as one line."""
    counts = Counter(left.reason for left in left_out)
    yield from (left for left in left_out if counts[left.reason] <= _LISTED)
    for reason, count in counts.items():
        if count > _LISTED:
            yield LeftOut(as_text(f"{key}/{count:,} files" if key else f"{count:,} files"), reason, count)


# --- Zip files ---


def _in_zip(path: Path) -> Iterator[_Member]:
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise SourceError(f"{path.name} cannot be read: no permission.") from error
        raise SourceError(
            f"{path.name} is not a zip file, or a damaged one ({first_line(error)}): copy it again."
        ) from error
    for info in infos:
        problem = None
        if info.flag_bits & 1:
            problem = "it is encrypted: unpack the zip file"
        elif stat.S_ISLNK(info.external_attr >> 16):
            problem = "a link: links in an archive are not followed"
        yield _Member(_name_in_zip(info), f"zip://{info.filename}::{path}", problem)


def _name_in_zip(info: zipfile.ZipInfo) -> str:
    """The name as it was written: Macs write UTF-8 without saying so, and Windows may write backslashes."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with suppress(UnicodeError):  # otherwise it is CP437, as the format says
            name = name.encode("cp437").decode("utf-8")
    return name if "/" in name else name.replace("\\", "/")


# --- Tar files ---


def _in_tar(path: Path, notes: list[str]) -> Iterator[_Member]:
    number = -1
    try:
        compressed = tars.is_compressed(path)
        for number, (archive, member) in enumerate(tars.members(path, notes)):
            if member.isdir():
                continue
            where = "" if compressed else f"tar://{member.offset_data},{member.size}::{path}"
            name, hidden = PurePosixPath(member.name), is_hidden(member.name.removeprefix("./"))
            problem, data, other = _problem(member), None, False
            if not problem and not hidden:
                if limit := _wanted(name, member.size):
                    data = tars.content(archive, member, limit)
                elif name.suffix.lower() not in PICTURES:
                    other = not looks_like_picture(tars.content(archive, member, 32))
            yield _Member(member.name, where, problem, data, (str(path), number) if compressed else None, other)
    except tars.DAMAGED as error:
        raise SourceError(tars.damaged(path.name, error, number + 1)) from error


def _problem(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "a link: links in an archive are not followed"
    if not member.isreg():
        return "neither a file nor a folder"
    return "a sparse file, which cannot be read: pack it without --sparse" if member.issparse() else None


def _wanted(name: PurePosixPath, size: int) -> int:
    """How many bytes to keep of a file that is met while a tar file is listed."""
    if name.name in NAMES:
        return MOST_METADATA
    return _MOST_SIDECAR if name.suffix.lower() in SIDECARS and size <= _MOST_SIDECAR else 0
