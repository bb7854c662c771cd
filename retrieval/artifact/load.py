"""Artifact: one folder with everything a search needs, byte-identical on disk and on the Hub.

`manifest.json` is written last and lists the size and SHA-256 of every other file. Loading first compares sizes and
hashes, and only then parses the files. After that, types, dimensions, row counts and fingerprints must match the
manifest, and the golden query must reproduce its answer. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from retrieval.arrays import Vectors
from retrieval.artifact.atomic import recover
from retrieval.artifact.golden import replay
from retrieval.artifact.layout import LAYOUT, PLOT
from retrieval.artifact.manifest import (
    agree,
    check_file,
    check_files,
    check_pin,
    gallery_files,
    read_manifest,
    read_stated,
    reading,
    stated_files,
)
from retrieval.artifact.metrics import Metrics, parse_metrics
from retrieval.artifact.parts.exported import check_exported
from retrieval.artifact.parts.map import read_map
from retrieval.artifact.parts.text import TextPart, read_text
from retrieval.artifact.report import Report
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, EncoderError, IntegrityError
from retrieval.images.gallery import Gallery
from retrieval.stores.faiss import FaissStore
from retrieval.stores.open import open_index
from retrieval.stores.stated import check_lengths
from retrieval.stores.unread import UnreadStore

_T = TypeVar("_T")


@dataclass(frozen=True)
class Artifact:
    """An opened artifact whose files all match the same manifest.

    It can be pickled and sent to other processes. The pickle holds only the folder and the manifest's hash: unpickling
    opens the folder again, and raises ArtifactError if the folder holds a different artifact by then.
    """

    folder: Path
    manifest: dict[str, Any]
    encoder: Encoder
    store: FaissStore
    gallery: Gallery
    metrics: Metrics
    """The contents of `metrics.json`."""
    card: str
    """The text of its README.md."""
    plots: Mapping[str, bytes]
    """File name -> PNG bytes of the evaluation plots."""
    map: Vectors | None = None
    """The gallery projected to two dimensions, (N, 2) float32 in [-1, 1]; None if no map is stored."""
    text: TextPart | None = None
    """The model for text queries with its index; None if the artifact has none."""
    name: str = ""
    """`owner/name` on the Hub, or the name of the folder."""
    commit: str | None = None
    """The commit on the Hub; None for a local folder."""
    report: Report | None = None
    """Counts for the images that were just added; None if none were."""
    offline: bool = False
    """Whether the Hub could not be reached, so this is the cached copy."""

    @property
    def state(self) -> str:
        """`commit 0123abc` or `offline, commit 0123abc`; empty for a local folder."""
        return state_of(self.commit, self.offline)

    def __reduce__(self) -> tuple[Any, ...]:
        indexed = not isinstance(self.store, UnreadStore)
        known = self.folder, self.manifest["manifest_sha256"], self.name, self.commit, self.offline
        return _opened_again, (*known, indexed)


def _opened_again(folder: Path, sha256: str, name: str, commit: str | None, offline: bool, indexed: bool) -> Artifact:
    """Unpickle an artifact; raises ArtifactError if the folder holds a different one by now."""
    artifact = load_artifact(folder, indexed=indexed)
    if artifact.manifest["manifest_sha256"] != sha256:
        raise ArtifactError(
            f"{folder} does not hold the artifact that was sent to this process: the SHA-256 of its manifest was "
            f"{sha256[:12]}, here it is {artifact.manifest['manifest_sha256'][:12]}. Open the folder in this process "
            "instead."
        )
    return replace(artifact, name=name, commit=commit, offline=offline)


def state_of(commit: str | None, offline: bool) -> str:
    """`commit 0123abc` or `offline, commit 0123abc`; empty without a commit."""
    return f"{'offline, ' if offline else ''}commit {commit[:7]}" if commit else ""


def is_artifact(folder: Path) -> bool:
    """Whether the folder holds a manifest, which is the last file written."""
    return (folder / LAYOUT.manifest).is_file()


def check_target(folder: Path) -> None:
    """Raise ArtifactError unless `folder` is missing, empty, or an artifact that may be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; an artifact is a folder.")
    # Other software writes a `manifest.json` too, so look for one more file. A damaged artifact may be overwritten.
    ours = is_artifact(folder) and any((folder / name).is_file() for name in LAYOUT.telling(folder))
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise ArtifactError(f"{folder} contains files that do not belong to an artifact; choose a new or empty folder.")
    for name in [*LAYOUT.extras_in(folder), *LAYOUT.gallery_in(folder)]:
        with suppress(IntegrityError):  # with a damaged manifest, go by the file names alone
            if not LAYOUT.is_file(name) or name not in read_manifest(folder)["files"]:
                raise ArtifactError(
                    f"{folder / name} does not belong to the artifact and would be lost; move it elsewhere."
                )


def load_artifact(
    folder: Path, *, sha256: str | None = None, engine: str | None = None, indexed: bool = True
) -> Artifact:
    """Verify and open an artifact; with `sha256`, only the one whose `manifest_sha256` this is.

    `engine` runs the encoder and the text model, as in `Encoder.load`. If it is not `indexed`, the index is checked by
    its hash as all files are, and not read: `pair` gives the vectors.

    Raises ArtifactError if the folder holds none, and IntegrityError if a part does not match the manifest; the message
    gives the part and both values. FAISS, torch and Parquet never read a file whose hash does not match.
    """
    return _whole(folder, partial(_open, engine=engine, indexed=indexed), sha256)


def read_metrics(folder: Path) -> Metrics:
    """The metrics of an artifact, without reading its other parts; raises the same errors as `load_artifact`."""
    return _whole(folder, _metrics)


def read_gallery(folder: Path) -> tuple[dict[str, Any], Gallery]:
    """The manifest and the gallery of an artifact, without reading its other parts.

    Raises the same errors as `load_artifact`.
    """
    return _whole(folder, _manifest_and_gallery)


def _whole(folder: Path, read: Callable[[Path, dict[str, Any]], _T], sha256: str | None = None) -> _T:
    """Call `read` with a folder and its manifest; retry if another process replaces the artifact meanwhile."""
    recover(folder)
    manifest = read_manifest(folder)
    check_pin(manifest, sha256)
    try:
        with reading(LAYOUT.manifest):
            return read(folder, manifest)
    except IntegrityError:
        if read_manifest(folder) == manifest:
            raise
    return _whole(folder, read, sha256)  # the manifest has changed: another process replaced the artifact


def _open(folder: Path, manifest: dict[str, Any], engine: str | None, indexed: bool) -> Artifact:
    check_files(folder, manifest)
    check_exported(manifest)
    try:
        encoder = Encoder.load(folder, engine=engine)
    except EncoderError as error:
        raise IntegrityError(f"{folder}: {error}") from error
    agree(f"{LAYOUT.weights}: encoder fingerprint", manifest["encoder"]["fingerprint"], encoder.fingerprint)
    gallery = _gallery(folder, manifest)
    store = _store(folder, manifest) if indexed else UnreadStore(manifest["dimension"], manifest["rows"])
    agree(f"{LAYOUT.index}: dimension", manifest["dimension"], store.dim)
    agree(f"{LAYOUT.weights}: dimension", manifest["dimension"], encoder.dim)
    agree(f"{LAYOUT.index}: number of vectors", manifest["rows"], len(store))
    if indexed:
        check_lengths(LAYOUT.index, store, store.settings.factory)
        replay(manifest["golden"], encoder, store, gallery)
    files = manifest["files"]
    return Artifact(
        folder,
        manifest,
        encoder,
        store,
        gallery,
        metrics=_metrics(folder, manifest),
        card=read_stated(folder, LAYOUT.card, files[LAYOUT.card]).decode("utf-8"),
        plots={name: read_stated(folder, name, files[name]) for name in files if PLOT.fullmatch(name)},
        map=read_map(folder, manifest),
        text=read_text(folder, manifest, encoder, store, engine),
        name=folder.resolve().name,
    )


def _store(folder: Path, manifest: dict[str, Any]) -> FaissStore:
    return open_index(folder / LAYOUT.index, manifest["index"])


def _gallery(folder: Path, manifest: dict[str, Any]) -> Gallery:
    with reading(LAYOUT.gallery):
        files = gallery_files(manifest["files"])
        key = hashlib.sha256("".join(manifest["files"][name]["sha256"] for name in files).encode()).hexdigest()
        gallery = Gallery([folder / name for name in files], key)
        gallery.check(LAYOUT.gallery)
        ids_hash = gallery.ids_sha256
    agree(f"{LAYOUT.gallery}: number of rows", manifest["rows"], len(gallery))
    agree(f"{LAYOUT.gallery}: hash of the ids", manifest["ids_sha256"], ids_hash)
    return gallery


def _manifest_and_gallery(folder: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], Gallery]:
    files = stated_files(manifest)
    for name in gallery_files(files):
        check_file(folder, name, files[name])
    return manifest, _gallery(folder, manifest)


def _metrics(folder: Path, manifest: dict[str, Any]) -> Metrics:
    content = read_stated(folder, LAYOUT.metrics, manifest["files"][LAYOUT.metrics])
    with reading(LAYOUT.metrics):
        return parse_metrics(content)
