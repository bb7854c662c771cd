"""Manifest: the sizes and hashes of an artifact's files, and their verification; only the manifest is parsed here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval.artifact.layout import LAYOUT
from retrieval.console import command
from retrieval.errors import ArtifactError, IntegrityError, short

FORMAT = 1
_UNSEALED = "0" * 64


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest. Raises ArtifactError if there is none, IntegrityError if it is damaged or of another format."""
    path = folder / LAYOUT.manifest
    if not path.is_file():
        what = f"no {LAYOUT.manifest} in it" if folder.is_dir() else "no such folder"
        make = command("build SOURCE --out DIR")
        raise ArtifactError(f"{folder} is not an artifact: {what}. `{make}` makes one.")
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
        stated = manifest["manifest_sha256"]
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = short(f"{type(error).__name__}: {error}", 120)
        raise IntegrityError(f"{LAYOUT.manifest} is damaged ({why}). Build the artifact again.") from error
    found = hashlib.sha256(content.replace(str(stated).encode(), _UNSEALED.encode())).hexdigest()
    agree(f"{LAYOUT.manifest}: its own SHA-256", stated, found)
    if version != FORMAT:
        raise IntegrityError(
            f"{LAYOUT.manifest} has format {version}, but this version of Lookalike reads format {FORMAT}: upgrade it."
        )
    return dict(manifest)


def stated_files(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """File name -> size and SHA-256, as listed in a manifest; raises IntegrityError for invalid or missing entries."""
    files: dict[str, dict[str, Any]] = manifest.get("files", {})
    with reading(LAYOUT.manifest):
        for name, stated in files.items():
            if not LAYOUT.is_file(name) or name == LAYOUT.manifest:
                raise IntegrityError(f"{LAYOUT.manifest} lists {name!r}, which is not an artifact file.")
            if not (isinstance(stated["size"], int) and isinstance(stated["sha256"], str)):
                raise IntegrityError(f"{LAYOUT.manifest} does not state the size and SHA-256 of {name}: {stated}.")
    for name in LAYOUT.names()[:-1]:
        if name not in files:
            raise IntegrityError(f"{LAYOUT.manifest} does not list {name}.")
    return files


def check_file(folder: Path, name: str, stated: Mapping[str, Any]) -> None:
    """Raise IntegrityError unless the file exists and has the size and SHA-256 listed in the manifest."""
    if not (folder / name).is_file():
        raise _missing(folder, name)
    agree(f"{name}: size in bytes", stated["size"], (folder / name).stat().st_size)
    agree(f"{name}: SHA-256", stated["sha256"], measure(folder / name)["sha256"])


def read_stated(folder: Path, name: str, stated: Mapping[str, Any]) -> bytes:
    """The content of a small file, read once and verified; raises IntegrityError like `check_file`."""
    try:
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
    for name in LAYOUT.extras_in(folder):
        if name not in files:
            raise IntegrityError(f"{name} is in {folder}, but not listed in the manifest: move it elsewhere.")
    for name, stated in files.items():
        check_file(folder, name, stated)


def sealed(manifest: dict[str, Any]) -> bytes:
    """The manifest as JSON bytes that include their own SHA-256, computed with zeros in place of the hash."""
    content = json.dumps({**manifest, "manifest_sha256": _UNSEALED}, indent=2, sort_keys=True) + "\n"
    return content.replace(_UNSEALED, hashlib.sha256(content.encode()).hexdigest()).encode()


def measure(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file, as stored in a manifest."""
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def agree(what: str, stated: object, found: object) -> None:
    """Raise IntegrityError with both values unless the manifest's value equals the one found."""
    if stated != found:
        raise IntegrityError(
            f"{what}: the manifest says {stated}, found {found}. The artifact is damaged, or its files come from "
            "different builds: build it again."
        )


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn parser errors into IntegrityError: the file's hash matches, but its content is not in our format."""
    try:
        yield
    except IntegrityError:
        raise
    except Exception as error:  # each parser raises its own types
        raise IntegrityError(f"{name} does not have the format of an artifact file: {error!r}.") from error
