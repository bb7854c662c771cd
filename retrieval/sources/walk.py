"""The files of a folder: links followed, zip files opened, and what is left out and why."""

from __future__ import annotations

import heapq
import json
import os
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from retrieval.errors import SourceError, first_line
from retrieval.sources.base import LeftOut
from retrieval.sources.metadata import NAMES

_PICTURE = re.compile(rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|BM.{4}\0\0\0\0|.{4}ftyp", re.DOTALL)
_TABLES = frozenset((".csv", ".tsv", ".jsonl", ".parquet", ".xlsx", ".xls", ".ods"))
_SIDECARS = frozenset((".txt", ".xml", ".json"))
_SYSTEM = frozenset(("thumbs.db", "desktop.ini"))
_LISTED = 10  # tables named one by one, at most
NOT_METADATA = f"not read as metadata, because it is not named {', '.join(NAMES[:-1])} or {NAMES[-1]}: rename it"
_ARTIFACT = {"format", "manifest_sha256"}  # keys that only the manifest of an artifact has


@dataclass(frozen=True)
class File:
    """One file of a folder, or of a zip file in it."""

    key: str
    """Its path below the folder, with `/`; for a file in a zip file, the zip file's path and then the path inside."""
    path: str
    """Where it is read: a path, or `zip://inner::path`."""
    source: str
    """Its name in the gallery: the path below the folder, or `zip://inner::path below the folder`."""
    stamp: tuple[int, int] = (0, 0)
    """Size in bytes and time of the last change in nanoseconds, to notice changes."""

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
        """Its path below the folder; for a file in a zip file, as if that were unpacked where it lies."""
        if not self.source.startswith("zip://"):
            return self.key
        inner, _, outer = self.source.removeprefix("zip://").rpartition("::")
        return posixpath.join(posixpath.dirname(outer), inner)

    def is_picture(self) -> bool:
        """Whether the first bytes are those of a picture. A file in a zip file counts as none."""
        if self.path.startswith("zip://"):
            return False
        try:
            with Path(self.path).open("rb") as file:
                return _PICTURE.match(file.read(16)) is not None
        except OSError:
            return False


@dataclass
class Found:
    """What a folder holds; hidden files and folders are ignored."""

    files: list[File] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    """Paths of the folders with nothing in them."""


def walk(root: Path) -> Found:
    """All visible files below a folder, sorted by path. `root` must be resolved.

    Links to folders are followed, after the real folders. A link is left out if its folder is read already under
    another name, or contains the link: otherwise the walk would never end. Folders with an artifact are left out.

    Raises SourceError for a damaged zip file.
    """
    found = Found()
    seen = {_inode(parent) for parent in root.parents}
    folders, links = [""], list[str]()
    while folders or links:
        key = folders.pop() if folders else heapq.heappop(links)
        here = root / key
        try:
            why, count = _why_left_out(here, seen) if key else (None, 0)
            entries = [] if why else [(path, path.is_dir(), path.is_file()) for path in here.iterdir()]
        except OSError as error:
            why, count = f"the folder cannot be listed: {error.strerror}", 1
        if why:
            found.left_out.append(LeftOut(f"{as_text(key)}/", why, count))
            continue
        seen.add(_inode(here))
        if key and not entries:
            found.empty.append(key)
        for path, is_folder, is_file in entries:
            below = f"{key}/{path.name}" if key else path.name
            if path.name.startswith("."):
                continue
            if is_folder:
                heapq.heappush(links, below) if path.is_symlink() else folders.append(below)
            elif is_file:
                found.files += _opened(root, below, path.stat())
            else:
                found.left_out.append(LeftOut(as_text(below), _why_no_file(path)))
    found.files.sort(key=lambda file: file.key)
    found.left_out.sort()
    return found


def _why_left_out(folder: Path, seen: set[tuple[int, int]]) -> tuple[str | None, int]:
    """Why a folder is not read, or None; and how many files that leaves out."""
    if _inode(folder) in seen:
        return "a link to a folder that contains it, or that is read already", 1
    if is_artifact(folder):
        files = sum(path.is_file() for path in folder.rglob("*"))
        return f"an artifact, with {files} files of its own", files
    return None, 0


def is_artifact(folder: Path) -> bool:
    """Whether a folder holds an artifact. Other programs call files `manifest.json` too, so its content decides."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):  # none, or none of ours
        return False
    return isinstance(manifest, dict) and manifest.keys() >= _ARTIFACT


def _inode(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _opened(root: Path, key: str, stat: os.stat_result) -> list[File]:
    """The file itself, or the visible files inside if it is a zip file."""
    path, stamp = f"{root}/{key}", (stat.st_size, stat.st_mtime_ns)
    if not key.lower().endswith(".zip"):
        return [File(key, path, key, stamp)]
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise SourceError(
            f"{root} cannot be read: {key} is not a zip file, or a damaged one ({first_line(error)}): replace it, or "
            "move it out of the folder."
        ) from error
    visible = [name for name in names if not _is_hidden(name)]
    return [File(f"{key}/{name}", f"zip://{name}::{path}", f"zip://{name}::{key}", stamp) for name in visible]


def _is_hidden(name: str) -> bool:
    """Whether a path in a zip file is hidden: a part starts with a dot, or it is what a Mac adds to every zip file."""
    return name.startswith("__MACOSX/") or any(part.startswith(".") for part in name.split("/"))


def _why_no_file(path: Path) -> str:
    # Not where it leads: reports are published with the artifact, and a path may tell a name.
    return "a link to a file that does not exist" if path.is_symlink() else "neither a file nor a folder"


# --- Which files could be pictures ---


def metadata_files(files: Iterable[File]) -> list[File]:
    """The files with metadata; those inside a zip file are not read."""
    return [file for file in files if file.name in NAMES and not file.path.startswith("zip://")]


def possible_pictures(files: Iterable[File]) -> tuple[list[File], list[LeftOut]]:
    """The files that could be pictures, and what the others are. Metadata is neither."""
    kept, tables, sidecars = list[File](), list[File](), list[File]()
    for file in files:
        if file.name in NAMES:
            continue
        near = file.suffix in _TABLES or file.name.lower() == "metadata.json"
        beside = file.suffix in _SIDECARS or file.name.lower() in _SYSTEM
        if not (near or beside) or file.is_picture():
            kept.append(file)
        else:
            (tables if near else sidecars).append(file)
    if not kept:  # beside no picture: a folder of texts fails file by file
        kept, sidecars = sidecars, []
    left_out = [LeftOut(as_text(file.key), NOT_METADATA) for file in tables[:_LISTED]]
    left_out += _together(tables[_LISTED:], NOT_METADATA) + _together(sidecars, "no pictures, but notes beside them")
    return kept, left_out


def _together(files: Sequence[File], reason: str) -> list[LeftOut]:
    """Files of a kind, as one line."""
    if len(files) < 2:
        return [LeftOut(as_text(file.key), reason) for file in files]
    counts = Counter(file.suffix for file in files)
    listed = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(counts.items()))
    return [LeftOut(f"{len(files):,} files ({listed})", reason, len(files))]


def as_text(path: str) -> str:
    """A path as text that can be written and printed, even if its bytes are not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
