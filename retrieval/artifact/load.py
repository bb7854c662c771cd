"""Artifact: one folder with everything that a search needs, the same bytes on disk and on the Hub.

`manifest.json` is written last and names the size and the SHA-256 of every other file. Loading checks before it
trusts: sizes and hashes first; only then are the files parsed; then types, dimensions, row counts and fingerprints must
agree; then the golden query is replayed. No pickle, ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from retrieval.artifact.atomic import recover
from retrieval.artifact.golden import replay
from retrieval.artifact.layout import LAYOUT, PLOT
from retrieval.artifact.manifest import agree, check_files, read_manifest, read_stated, reading
from retrieval.artifact.map import read_map
from retrieval.artifact.metrics import Metrics, parse_metrics
from retrieval.artifact.report import Report
from retrieval.artifact.text import TextPart, read_text
from retrieval.encoders.image import Encoder
from retrieval.errors import ArtifactError, EncoderError, IntegrityError
from retrieval.images.gallery import Gallery
from retrieval.stores.base import Vectors
from retrieval.stores.faiss import FaissStore

_T = TypeVar("_T")


@dataclass(frozen=True)
class Artifact:
    """An artifact that has been checked and opened, each of its files under the same manifest.

    It goes through `pickle`, and so to other processes, as the folder and the hash of its manifest: it is opened anew
    there, and refused where the folder holds another one by then.
    """

    folder: Path
    manifest: dict[str, Any]
    encoder: Encoder
    store: FaissStore
    gallery: Gallery
    metrics: Metrics
    """The evaluation, as `metrics.json` has it."""
    card: str
    """The text of its README.md."""
    plots: Mapping[str, bytes]
    """Name -> PNG file of the pictures of its evaluation."""
    map: Vectors | None = None
    """The gallery in two dimensions, (N, 2) float32, where one is stored."""
    text: TextPart | None = None
    """A model that finds the gallery's images by texts, where there is one."""
    name: str = ""
    """What it is called: `owner/name` on the Hub, or the name of its folder."""
    commit: str | None = None
    """On the Hub; None for a folder."""
    report: Report | None = None
    """What became of the images that were just added, where some were."""
    offline: bool = False
    """Whether the Hub could not be asked, and this is the copy at hand."""

    @property
    def state(self) -> str:
        """`commit 0123abc`, or `offline, commit 0123abc`; nothing for a folder."""
        return f"{'offline, ' if self.offline else ''}commit {self.commit[:7]}" if self.commit else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (self.folder, self.manifest["manifest_sha256"], self.name, self.commit, self.offline)


def _opened_again(folder: Path, sha256: str, name: str, commit: str | None, offline: bool) -> Artifact:
    """The artifact that another process had opened; raises ArtifactError where the folder holds another one now."""
    artifact = load_artifact(folder)
    if artifact.manifest["manifest_sha256"] != sha256:
        raise ArtifactError(
            f"{folder} holds another artifact than the one that was sent here: its manifest's SHA-256 was "
            f"{sha256[:12]}, it is {artifact.manifest['manifest_sha256'][:12]}. Open the folder here instead."
        )
    return replace(artifact, name=name, commit=commit, offline=offline)


def is_artifact(folder: Path) -> bool:
    """Whether the folder holds a manifest, which is written last."""
    return (folder / LAYOUT.manifest).is_file()


def check_target(folder: Path) -> None:
    """Raise ArtifactError unless an artifact may be written there: a new or empty folder, or an artifact."""
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; an artifact is a folder.")
    # Other things have a `manifest.json` too; a damaged artifact may be written over.
    ours = is_artifact(folder) and any((folder / name).is_file() for name in (LAYOUT.index, LAYOUT.gallery))
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise ArtifactError(f"{folder} holds files that are not an artifact's; choose a new or an empty folder.")
    for name in LAYOUT.extras_in(folder):
        with suppress(IntegrityError):  # where the manifest is damaged, what is called like a plot is taken for one
            if not LAYOUT.is_extra(name) or name not in read_manifest(folder)["files"]:
                raise ArtifactError(f"{folder / name} is not the artifact's, and would be lost; move it elsewhere.")


def load_artifact(folder: Path) -> Artifact:
    """Check an artifact and open it.

    Raises ArtifactError where the folder holds none, and IntegrityError, naming the part and both values, where
    a part does not agree with the manifest. FAISS, torch and parquet see no byte of a file that failed its hash.
    """
    return _whole(folder, _open)


def read_metrics(folder: Path) -> Metrics:
    """The figures of an artifact, whose other parts are not looked at; raises as `load_artifact` does."""
    return _whole(folder, _metrics)


def _whole(folder: Path, read: Callable[[Path, dict[str, Any]], _T]) -> _T:
    """What `read` makes of a folder and its manifest."""
    recover(folder)
    manifest = read_manifest(folder)
    try:
        with reading(LAYOUT.manifest):
            return read(folder, manifest)
    except IntegrityError:
        if read_manifest(folder) == manifest:
            raise
    return _whole(folder, read)  # another process has put a new one in its place meanwhile


def _open(folder: Path, manifest: dict[str, Any]) -> Artifact:
    check_files(folder, manifest)
    try:
        encoder = Encoder.load(folder)
    except EncoderError as error:
        raise IntegrityError(f"{folder}: {error}") from error
    agree(f"{LAYOUT.weights}: encoder fingerprint", manifest["encoder"]["fingerprint"], encoder.fingerprint)
    with reading(LAYOUT.gallery):
        gallery = Gallery(folder / LAYOUT.gallery)
        ids_hash = hash_of_ids(gallery.ids)
    agree(f"{LAYOUT.gallery}: rows", manifest["rows"], len(gallery))
    agree(f"{LAYOUT.gallery}: hash of the ids", manifest["ids_sha256"], ids_hash)
    store = FaissStore.load(folder / LAYOUT.index, manifest["index"])
    agree(f"{LAYOUT.index}: dimension", manifest["dimension"], store.dim)
    agree(f"{LAYOUT.weights}: dimension", manifest["dimension"], encoder.dim)
    agree(f"{LAYOUT.index}: vectors", manifest["rows"], len(store))
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
        text=read_text(folder, manifest),
        name=folder.resolve().name,
    )


def _metrics(folder: Path, manifest: dict[str, Any]) -> Metrics:
    content = read_stated(folder, LAYOUT.metrics, manifest["files"][LAYOUT.metrics])
    with reading(LAYOUT.metrics):
        return parse_metrics(content)


def hash_of_ids(ids: Sequence[str]) -> str:
    """SHA-256 over the ids of a gallery in their order, as the manifest states it."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
