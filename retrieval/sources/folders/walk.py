"""The files of a folder: links followed, archives opened, and what is left out and why."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from retrieval.errors import SourceError
from retrieval.sources.archives.files import File, Found, as_text, looks_like_picture
from retrieval.sources.archives.listing import is_archive, list_archive
from retrieval.sources.base import LeftOut
from retrieval.sources.metadata import NAMES

_TABLES = frozenset((".csv", ".tsv", ".jsonl", ".parquet", ".xlsx", ".xls", ".ods"))
_SIDECARS = frozenset((".txt", ".xml", ".json", ".cls"))
_SYSTEM = frozenset(("thumbs.db", "desktop.ini"))
_LISTED = 10  # tables named one by one, at most
NOT_METADATA = f"not read as metadata, because it is not named {', '.join(NAMES[:-1])} or {NAMES[-1]}: rename it"
_ARTIFACT = {"format", "manifest_sha256"}  # keys that only the manifest of an artifact has


def walk(root: Path) -> Found:
    """All visible files below a folder, sorted by path. `root` must be resolved.

    Links to folders are followed, after the real folders. A link is left out if its folder is read already under
    another name, or contains the link: otherwise the walk would never end. Folders with an artifact are left out.
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
                status = path.stat()
                found.files.append(File(below, f"{root}/{below}", below, (status.st_size, status.st_mtime_ns)))
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


def opened(root: Path, found: Found) -> Found:
    """What a folder holds, with the files in its archives instead of these. Raises SourceError for a damaged one."""
    plain = [file for file in found.files if not is_archive(file.name)]
    whole = Found(plain, list(found.left_out), found.empty, list(found.notes))
    for archive in (file for file in found.files if is_archive(file.name)):
        try:
            inside = list_archive(Path(archive.path), archive.key)
        except SourceError as error:
            raise SourceError(f"{root} cannot be read: {error} Or move it out of the folder.") from error
        whole.files += inside.files
        whole.left_out += inside.left_out
        whole.notes += inside.notes
    whole.files.sort(key=lambda file: file.key)
    whole.left_out.sort()
    return whole


def _why_no_file(path: Path) -> str:
    # Not where it leads: reports are published with the artifact, and a path may tell a name.
    return "a link to a file that does not exist" if path.is_symlink() else "neither a file nor a folder"


# --- Which files could be pictures ---


def metadata_files(files: Iterable[File]) -> list[File]:
    """The files with metadata, those inside archives first: of two rows for one file, the first is used."""
    return sorted((file for file in files if file.name in NAMES), key=lambda file: not file.kind)


def possible_pictures(files: Iterable[File]) -> tuple[list[File], list[LeftOut]]:
    """The files that could be pictures, and what the others are. Metadata is neither."""
    kept, tables, sidecars, others = list[File](), list[File](), list[File](), list[File]()
    for file in files:
        if file.name in NAMES:
            continue
        if file.is_other and file.suffix not in _SIDECARS | _TABLES:
            others.append(file)
            continue
        near = file.suffix in _TABLES or file.name.lower() == "metadata.json"
        beside = file.suffix in _SIDECARS or file.name.lower() in _SYSTEM
        if not (near or beside) or _is_picture(file):
            kept.append(file)
        else:
            (tables if near else sidecars).append(file)
    if not kept:  # beside no picture: a folder of texts fails file by file
        kept, sidecars = sidecars, []
    left_out = [LeftOut(as_text(file.key), NOT_METADATA) for file in tables[:_LISTED]]
    left_out += _together(tables[_LISTED:], NOT_METADATA) + _together(sidecars, "no pictures, but notes beside them")
    left_out += _together(others, "no pictures, but other files in a tar file")
    return kept, left_out


def _is_picture(file: File) -> bool:
    """Whether the first bytes are those of a picture. A file in an archive counts as none."""
    try:
        return not file.kind and looks_like_picture(file.read(16))
    except OSError:
        return False


def _together(files: Sequence[File], reason: str) -> list[LeftOut]:
    """Files of a kind, as one line."""
    if len(files) < 2:
        return [LeftOut(as_text(file.key), reason) for file in files]
    counts = Counter(file.suffix for file in files)
    listed = ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(counts.items()))
    return [LeftOut(f"{len(files):,} files ({listed})", reason, len(files))]
