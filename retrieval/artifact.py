"""Artifact: one folder with everything that a search needs, the same bytes on disk and on the Hub.

`manifest.json` is written last and names the size and the SHA-256 of every other file. Loading checks before it
trusts: sizes and hashes first; only then are the files parsed; then types, dimensions, row counts and fingerprints must
agree; then the golden query is replayed. No pickle, ever.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from retrieval.encoder import Encoder
from retrieval.errors import ArtifactError, EncoderError, IntegrityError, short
from retrieval.gallery import Gallery
from retrieval.golden import ask, replay
from retrieval.layout import LAYOUT, PLOT
from retrieval.stores.faiss import FaissStore
from retrieval.swap import recover

FORMAT = 1
_UNSEALED = "0" * 64
_T = TypeVar("_T")


@dataclass(frozen=True)
class Artifact:
    """An artifact that has been checked and opened."""

    folder: Path
    manifest: dict[str, Any]
    encoder: Encoder
    store: FaissStore
    gallery: Gallery


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
    for name in LAYOUT.plots_in(folder):
        with suppress(IntegrityError):  # where the manifest is damaged, what is called like a plot is taken for one
            if not PLOT.fullmatch(name) or name not in read_manifest(folder)["files"]:
                raise ArtifactError(f"{folder / name} is not the artifact's, and would be lost; move it elsewhere.")


def seal(folder: Path, encoder: Encoder, store: FaissStore, gallery: Gallery, facts: dict[str, Any]) -> None:
    """Write the manifest over the other files of the folder: from then on it is an artifact.

    `facts` are further entries for the manifest (how it was built, the index's recall). Raises ArtifactError for
    anything but PNG files in the folder of pictures.
    """
    plots = LAYOUT.plots_in(folder)
    if strangers := [name for name in plots if not PLOT.fullmatch(name)]:
        raise ArtifactError(f"{strangers[0]}: a picture of an artifact is a PNG file called by letters and digits.")
    manifest = {
        "format": FORMAT,
        "files": {name: _measure(folder / name) for name in [*LAYOUT.names()[:-1], *plots]},
        "encoder": {"architecture": encoder.name, "fingerprint": encoder.fingerprint},
        "dimension": store.dim,
        "metric": "cosine",
        "rows": len(gallery),
        "ids_sha256": _ids_hash(gallery.ids),
        "index": asdict(store.settings),
        "golden": ask(encoder, store, gallery),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "timm", "faiss-cpu", "numpy")},
        **facts,
    }
    (folder / LAYOUT.manifest).write_bytes(_sealed(manifest))


def load_artifact(folder: Path) -> Artifact:
    """Check an artifact and open it.

    Raises ArtifactError where the folder holds none, and IntegrityError, naming the part and both values, where
    a part does not agree with the manifest. FAISS, torch and parquet see no byte of a file that failed its hash.
    """
    return _whole(folder, _open)


def read_metrics(folder: Path) -> dict[str, Any]:
    """The figures of an artifact, whose other parts are not looked at; raises as `load_artifact` does."""
    return _whole(folder, _metrics)


def _whole(folder: Path, read: Callable[[Path, dict[str, Any]], _T]) -> _T:
    """What `read` makes of a folder and its manifest."""
    recover(folder)
    manifest = read_manifest(folder)
    try:
        with _reading(LAYOUT.manifest):
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
    _agree(f"{LAYOUT.weights}: encoder fingerprint", manifest["encoder"]["fingerprint"], encoder.fingerprint)
    with _reading(LAYOUT.gallery):
        gallery = Gallery(folder / LAYOUT.gallery)
        ids_hash = _ids_hash(gallery.ids)
    _agree(f"{LAYOUT.gallery}: rows", manifest["rows"], len(gallery))
    _agree(f"{LAYOUT.gallery}: hash of the ids", manifest["ids_sha256"], ids_hash)
    store = FaissStore.load(folder / LAYOUT.index, manifest["index"])
    _agree(f"{LAYOUT.index}: dimension", manifest["dimension"], store.dim)
    _agree(f"{LAYOUT.weights}: dimension", manifest["dimension"], encoder.dim)
    _agree(f"{LAYOUT.index}: vectors", manifest["rows"], len(store))
    replay(manifest["golden"], encoder, store, gallery)
    return Artifact(folder, manifest, encoder, store, gallery)


def _metrics(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    check_file(folder, LAYOUT.metrics, manifest["files"][LAYOUT.metrics])
    with _reading(LAYOUT.metrics):
        return dict(json.loads((folder / LAYOUT.metrics).read_bytes()))


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Word what goes wrong where a file is whole and yet not what this project writes."""
    try:
        yield
    except IntegrityError:
        raise
    except Exception as error:  # each parser has its own kinds
        raise IntegrityError(f"{name} is not what an artifact has: {error!r}.") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, checked against its own hash; raises ArtifactError where there is none, IntegrityError else."""
    path = folder / LAYOUT.manifest
    if not path.is_file():
        what = f"no {LAYOUT.manifest} in it" if folder.is_dir() else "no such folder"
        raise ArtifactError(
            f"{folder} is not an artifact: {what}. `python -m retrieval build SOURCE --out DIR` makes one."
        )
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
        stated = manifest["manifest_sha256"]
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = short(f"{type(error).__name__}: {error}", 120)
        raise IntegrityError(f"{LAYOUT.manifest} is damaged ({why}). Build the artifact again.") from error
    found = hashlib.sha256(content.replace(str(stated).encode(), _UNSEALED.encode())).hexdigest()
    _agree(f"{LAYOUT.manifest}: its own SHA-256", stated, found)
    if version != FORMAT:
        raise IntegrityError(f"{LAYOUT.manifest}: format {version}, this version reads format {FORMAT}; upgrade it.")
    return dict(manifest)


def stated_files(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The files that a manifest lists, with size and SHA-256; raises IntegrityError for what cannot be."""
    files: dict[str, dict[str, Any]] = manifest.get("files", {})
    with _reading(LAYOUT.manifest):
        for name, stated in files.items():
            if not LAYOUT.is_file(name) or name == LAYOUT.manifest:
                raise IntegrityError(f"{LAYOUT.manifest} lists {name!r}, which is no file of an artifact.")
            if not (isinstance(stated["size"], int) and isinstance(stated["sha256"], str)):
                raise IntegrityError(f"{LAYOUT.manifest} does not state size and SHA-256 of {name}: {stated}.")
    for name in LAYOUT.names()[:-1]:
        if name not in files:
            raise IntegrityError(f"{LAYOUT.manifest} does not list {name}.")
    return files


def check_file(folder: Path, name: str, stated: Mapping[str, Any]) -> None:
    """Raise IntegrityError unless the file is there, with the size and the SHA-256 that the manifest states."""
    if not (folder / name).is_file():
        raise IntegrityError(f"{name} is missing from {folder}, and the manifest lists it: build it again.")
    _agree(f"{name}: size in bytes", stated["size"], (folder / name).stat().st_size)
    _agree(f"{name}: SHA-256", stated["sha256"], _measure(folder / name)["sha256"])


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise IntegrityError unless the folder holds the files of its manifest, and no pictures beside them."""
    files = stated_files(manifest)
    for name in LAYOUT.plots_in(folder):
        if name not in files:
            raise IntegrityError(f"{name} is in {folder}, and the manifest does not list it: move it elsewhere.")
    for name, stated in files.items():
        check_file(folder, name, stated)


def _agree(what: str, stated: object, found: object) -> None:
    if stated != found:
        raise IntegrityError(
            f"{what}: the manifest says {stated}, found {found}. The artifact is damaged or mixed: build it again."
        )


def _measure(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _ids_hash(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _sealed(manifest: dict[str, Any]) -> bytes:
    """The manifest as bytes, with a hash over these very bytes (with zeros where the hash stands)."""
    content = json.dumps({**manifest, "manifest_sha256": _UNSEALED}, indent=2, sort_keys=True) + "\n"
    return content.replace(_UNSEALED, hashlib.sha256(content.encode()).hexdigest()).encode()
