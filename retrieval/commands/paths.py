"""Check that the paths and names given to a command exist, before torch is imported, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from retrieval.artifact.atomic import recover
from retrieval.artifact.manifest import read_manifest
from retrieval.errors import SourceError
from retrieval.hub.references import is_reference
from retrieval.words import did_you_mean


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
    if path.exists() or is_reference(name):
        return
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, beside, otherwise="a dataset on the Hub is named owner/name.")
    raise SourceError(f"no such file or folder: {name}; {hint}")
