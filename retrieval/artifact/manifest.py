"""Manifest: the sizes and hashes of an artifact's files, and their verification; only the manifest is parsed here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval.artifact.layout import LAYOUT
from retrieval.console import command
from retrieval.errors import ArtifactError, IntegrityError, MissingExtraError, short
from retrieval.files.remembered import hashed, reading_anew, sha256_of
from retrieval.untrusted.shape import check_shape
from retrieval.untrusted.strict_json import MOST_BYTES, parse_json

FORMAT = 2
_READ = (1, FORMAT)  # in format 1, thumbnails are bytes, and a gallery is one file
_UNSEALED = "0" * 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_CARD = 2**19  # bytes; a card has some thousands


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest. Raises ArtifactError if there is none, IntegrityError if it is damaged or of another format."""
    path = folder / LAYOUT.manifest
    if not path.is_file():
        what = f"no {LAYOUT.manifest} in it" if folder.is_dir() else "no such folder"
        make = command("build SOURCE --out DIR")
        raise ArtifactError(f"{folder} is not an artifact: {what}. `{make}` makes one.")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise IntegrityError(
            f"{LAYOUT.manifest} has {size:,} bytes, more than {MOST_BYTES:,}: build the artifact again."
        )
    content = path.read_bytes()
    try:
        manifest = parse_json(content)
        stated = manifest["manifest_sha256"]
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        why = short(f"{type(error).__name__}: {error}", 120)
        raise IntegrityError(f"{LAYOUT.manifest} is damaged ({why}). Build the artifact again.") from error
    if not isinstance(stated, str) or not _SHA256.fullmatch(stated):
        raise IntegrityError(f"{LAYOUT.manifest} does not state its own SHA-256. Build the artifact again.")
    found = hashlib.sha256(content.replace(stated.encode(), _UNSEALED.encode())).hexdigest()
    agree(f"{LAYOUT.manifest}: its own SHA-256", stated, found)
    if version not in _READ:
        raise IntegrityError(
            f"{LAYOUT.manifest} has format {version}, but this version of Lookalike reads format 1 to {FORMAT}: "
            "upgrade it."
        )
    try:
        check_shape(manifest)
    except ValueError as error:
        raise IntegrityError(
            f"{LAYOUT.manifest} does not have the format of an artifact file: {error}. Build the artifact again."
        ) from error
    return dict(manifest)


def check_pin(manifest: Mapping[str, Any], sha256: str | None) -> None:
    """Raise IntegrityError, with both values, unless `sha256` is None or the `manifest_sha256` of the manifest.

    Raises ArtifactError for what is not a SHA-256.
    """
    wanted = None if sha256 is None else sha256.strip().lower()
    if wanted is not None and not _SHA256.fullmatch(wanted):
        raise ArtifactError(
            f"{short(repr(sha256), 80)} is not a SHA-256: give the 64 hexadecimal digits of manifest_sha256, which "
            f"`{command('verify DIR')}` prints."
        )
    if wanted is not None and manifest["manifest_sha256"] != wanted:
        raise IntegrityError(
            f"{LAYOUT.manifest}: its SHA-256 must be {wanted}, found {manifest['manifest_sha256']}. This is not the "
            "artifact that was pinned; if the change is wanted, pin the new value."
        )


def stated_files(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """File name -> size and SHA-256, as listed in a manifest; raises IntegrityError for invalid or missing entries."""
    files: dict[str, dict[str, Any]] = manifest.get("files", {})
    with reading(LAYOUT.manifest):
        for name, stated in files.items():
            if not LAYOUT.is_file(name) or name == LAYOUT.manifest:
                raise IntegrityError(
                    f"{LAYOUT.manifest} lists {short(repr(name), 100)}, which is not an artifact file."
                )
            if not (type(stated["size"]) is int and isinstance(stated["sha256"], str)):
                found = short(str(stated), 100)
                raise IntegrityError(f"{LAYOUT.manifest} does not state the size and SHA-256 of {name}: {found}.")
    for name in LAYOUT.names()[:-1]:
        if name not in files and name != LAYOUT.gallery:
            raise IntegrityError(f"{LAYOUT.manifest} does not list {name}.")
    gallery_files(files)
    return files


def gallery_files(files: Iterable[str]) -> list[str]:
    """The files of the gallery among those of a manifest, in row order; raises IntegrityError if they are not all."""
    try:
        return LAYOUT.gallery_of(files)
    except ValueError as error:
        raise IntegrityError(f"{LAYOUT.manifest} does not list {LAYOUT.gallery}, or all shards of it.") from error


def check_file(folder: Path, name: str, stated: Mapping[str, Any]) -> None:
    """Raise IntegrityError unless the file exists and has the size and SHA-256 listed in the manifest.

    A large file that was hashed before and has not changed since is not hashed again, except within `reading_anew`.
    """
    if not (folder / name).is_file():
        raise _missing(folder, name)
    agree(f"{name}: size in bytes", stated["size"], (folder / name).stat().st_size)
    if sha256_of(folder / name) != stated["sha256"]:  # what is remembered can pass a file, but refuse none
        agree(f"{name}: SHA-256", stated["sha256"], hashed(folder / name))


def read_stated(folder: Path, name: str, stated: Mapping[str, Any]) -> bytes:
    """The content of a small file, read once and verified; raises IntegrityError like `check_file`, or if it is too
    large to be what it should be."""
    most = MOST_CARD if name == LAYOUT.card else MOST_BYTES
    if stated["size"] > most:
        raise IntegrityError(f"{name} has {stated['size']:,} bytes, more than {most:,}: build the artifact again.")
    try:
        agree(f"{name}: size in bytes", stated["size"], (folder / name).stat().st_size)
        content = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise _missing(folder, name) from error
    agree(f"{name}: size in bytes", stated["size"], len(content))
    agree(f"{name}: SHA-256", stated["sha256"], hashlib.sha256(content).hexdigest())
    return content


def _missing(folder: Path, name: str) -> IntegrityError:
    return IntegrityError(f"{name} is missing from {folder}, although the manifest lists it: build the artifact again.")


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise IntegrityError unless the folder holds every file in its manifest, and no unlisted optional file."""
    files = stated_files(manifest)
    for name in [*LAYOUT.extras_in(folder), *LAYOUT.gallery_in(folder)]:
        if name not in files:
            raise IntegrityError(f"{name} is in {folder}, but not listed in the manifest: move it elsewhere.")
    for name, stated in files.items():
        check_file(folder, name, stated)


def check_files_anew(folder: Path, manifest: dict[str, Any]) -> None:
    """`check_files` from the bytes, before a new manifest is written for files of an artifact that is changed.

    Otherwise, that would state the hash of a file that was damaged since its own was remembered.
    """
    with reading_anew():
        check_files(folder, manifest)


def sealed(manifest: dict[str, Any]) -> bytes:
    """The manifest as JSON bytes that include their own SHA-256, computed with zeros in place of the hash."""
    content = json.dumps({**manifest, "manifest_sha256": _UNSEALED}, indent=2, sort_keys=True) + "\n"
    return content.replace(_UNSEALED, hashlib.sha256(content.encode()).hexdigest()).encode()


def measure(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file, as stored in a manifest, from its bytes."""
    return {"size": path.stat().st_size, "sha256": hashed(path)}


def agree(what: str, stated: object, found: object) -> None:
    """Raise IntegrityError with both values unless the manifest's value equals the one found."""
    if stated != found:
        says, is_now = short(str(stated), 300), short(str(found), 300)
        raise IntegrityError(
            f"{what}: the manifest says {says}, found {is_now}. The artifact is damaged, or its files come from "
            "different builds: build it again."
        )


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn parser errors into IntegrityError: the file's hash matches, but its content is not in our format."""
    try:
        yield
    except (IntegrityError, MissingExtraError):
        raise
    except Exception as error:  # each parser raises its own types
        why = short(" ".join(repr(error).split()), 300)
        raise IntegrityError(f"{name} does not have the format of an artifact file: {why}.") from error
