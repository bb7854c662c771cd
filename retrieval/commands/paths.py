"""Check that the paths and names given to a command exist, before torch is imported, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from retrieval.artifact.atomic import recover
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import read_manifest
from retrieval.console import command
from retrieval.errors import ArtifactError, IntegrityError, SourceError
from retrieval.hub.references import is_reference
from retrieval.sources.archives.patterns import is_pattern
from retrieval.words import counted, did_you_mean


def check_folder(folder: Path) -> None:
    """Raise ArtifactError unless the folder contains an artifact's manifest; first repairs an interrupted write."""
    recover(folder)
    read_manifest(folder)


def check_artifact(name: str) -> None:
    """Raise ArtifactError for a name that is neither an artifact's folder nor `owner/name[@revision]` on the Hub."""
    if not is_reference(name):
        check_folder(Path(name).expanduser())


def check_source(name: str) -> None:
    """Raise SourceError for a name that is neither a local path nor an `owner/name` on the Hub."""
    path = Path(name).expanduser()
    if path.exists() or is_reference(name) or is_pattern(name):
        return
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside, otherwise="a dataset on the Hub is named owner/name.")
    raise SourceError(f"no such file or folder: {name}; {hint}")


def check_out(folder: Path, force: bool) -> None:
    """Raise ArtifactError unless a build may write to the folder, without loading torch if it holds an artifact.

    A build replaces an artifact only with `force`, but never other files (see `check_target`).
    """
    recover(folder)
    # Other software writes a `manifest.json` too: `check_target` refuses its folder in other words.
    is_ours = any((folder / name).is_file() for name in LAYOUT.telling(folder))
    if is_ours and (folder / LAYOUT.manifest).is_file() and not force:
        raise ArtifactError(
            f"{folder} already holds {_described(folder)}. To bring it up to date with its source, use "
            f"`{command(f'sync {folder} SOURCE')}`; to add other images, `{command(f'add {folder} SOURCE')}`. To build "
            "a new artifact, choose another --out, or replace this one with --force."
        )
    from retrieval.artifact.load import check_target

    check_target(folder)


def _described(folder: Path) -> str:
    """What an artifact is, as far as its manifest can be read: `an artifact of 385 images, built from 'photos'`."""
    try:
        manifest = read_manifest(folder)
    except IntegrityError:
        return "an artifact with a manifest that cannot be read"
    source = manifest.get("build", {}).get("source", {}).get("name")
    images = f"an artifact of {counted(manifest['rows'], 'image')}"
    return f"{images}, built from {source!r}" if source else images
