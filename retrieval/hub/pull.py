"""Open artifacts by name: a folder, or `owner/name@revision` on the Hub; pull one into a folder with checked files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from retrieval.artifact.atomic import replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import Artifact, check_target, is_artifact, load_artifact, state_of
from retrieval.artifact.manifest import check_file, check_files, check_pin, read_manifest, stated_files
from retrieval.console import progress_bar, say
from retrieval.errors import ArtifactError, AwayError, HubError, IntegrityError
from retrieval.files.storing import storing
from retrieval.hub.download import Received, cache_of, fetch, resolve
from retrieval.hub.references import Reference, is_reference, parse_reference

_T = TypeVar("_T")
_AT_ONCE = 4  # parallel downloads


@dataclass(frozen=True)
class Resolved:
    """Location and name of an artifact."""

    folder: Path
    name: str
    commit: str | None = None
    """The commit on the Hub; None for a folder."""
    offline: bool = False
    """True if the Hub could not be reached, and this is the cached copy."""

    @property
    def state(self) -> str:
        """`commit 0123abc`, or `offline, commit 0123abc`; empty for a folder."""
        return state_of(self.commit, self.offline)


def open_reference(name: str | Path, *, sha256: str | None = None) -> Resolved:
    """Resolve an artifact's name, a path or `owner/name[@revision]`, to its folder.

    Files from the Hub are downloaded to its cache, all from one commit, and checked against the manifest. If the Hub
    cannot be reached, a complete cached copy is used, with a note on standard error. With `sha256`, the manifest must
    have this `manifest_sha256`, or nothing else is downloaded. Raises HubError, and IntegrityError for another manifest
    or a file that differs from the manifest even after a second download. Other files of a local folder are checked
    only when it is loaded.
    """
    folder = Path(name).expanduser()
    if is_artifact(folder) or not is_reference(str(name)):
        if sha256 is not None:
            check_pin(read_manifest(folder), sha256)
        return Resolved(folder, folder.resolve().name)
    return _from_hub(parse_reference(str(name)), sha256)


def open_artifact(
    name: str | Path, *, sha256: str | None = None, engine: str | None = None, indexed: bool = True
) -> Artifact:
    """Check an artifact and open it: a folder, or `owner/name[@revision]` on the Hub.

    Files on the Hub are fetched first (see `open_reference`). With `sha256`, only the artifact whose `manifest_sha256`
    this is: 64 hexadecimal digits, as `python -m retrieval verify` prints them. `engine` (`onnx`, `openvino` or
    `torch`) runs the encoder; None chooses, as in `Encoder.load`. `indexed` is as in `load_artifact`. Raises
    ArtifactError if the artifact does not exist, HubError if the Hub does not have it or cannot be reached, and
    IntegrityError, with the file and both values, if the manifest is not the pinned one or a file does not match it.
    FAISS, the engines and parquet never read a file that failed its hash check.
    """
    found = open_reference(name, sha256=sha256)
    opened = load_artifact(found.folder, sha256=sha256, engine=engine, indexed=indexed)
    return replace(opened, name=found.name, commit=found.commit, offline=found.offline)


def pull(name: str, out: Path | str, *, sha256: str | None = None) -> Resolved:
    """Download an artifact from the Hub into its own folder, replacing an artifact that is already there.

    With `sha256`, only the artifact whose `manifest_sha256` this is; otherwise `out` stays as it is. Raises the errors
    of `open_reference`, and ArtifactError if `out` cannot be written.
    """
    reference, out = parse_reference(name), Path(out)
    check_target(out)
    resolved = _from_hub(reference, sha256)
    with writing(out, LAYOUT.own()), replacing(out, LAYOUT.own()) as fresh:
        files = stated_files(read_manifest(resolved.folder))
        with storing(out, ArtifactError, needed=sum(stated["size"] for stated in files.values())):
            for file in [*files, LAYOUT.manifest]:
                (fresh / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(resolved.folder / file, fresh / file)
        load_artifact(fresh, sha256=sha256)
    return resolved


def _from_hub(reference: Reference, sha256: str | None) -> Resolved:
    try:
        return _fetched(reference, sha256)
    except AwayError as error:
        cache = cache_of(reference.repo)
        commits = [reference.revision] if reference.pinned else cache.remembered(reference.revision)
        commit = next((commit for commit in commits if _is_whole(cache.snapshot(commit))), None)
        if commit is None:
            here = f"There is no complete copy of {reference} in the cache, and no such folder here."
            raise AwayError(f"{error} {here}") from error
        check_pin(read_manifest(cache.snapshot(commit)), sha256)
        copy = Resolved(cache.snapshot(commit), reference.repo, commit, offline=True)
        say(f"{error} Using the copy in the cache: {copy.state}.")
        return copy


def _fetched(reference: Reference, sha256: str | None) -> Resolved:
    commit, cache = resolve(reference, LAYOUT.manifest), cache_of(reference.repo)
    pinned, folder = Reference(reference.repo, commit), cache.snapshot(commit)
    bring = partial(_right, pinned, Event())
    manifest = bring(LAYOUT.manifest, lambda: read_manifest(folder))
    check_pin(manifest, sha256)
    files = stated_files(manifest)
    try:
        _fetch_all(pinned, folder, files)
    except AwayError:
        raise  # unfinished files are kept for the next attempt
    except HubError:
        cache.discard_parts()  # including files abandoned because another one failed
        raise
    if not reference.pinned:
        cache.remember(reference.revision, commit)
    return Resolved(folder, reference.repo, commit)


def _fetch_all(pinned: Reference, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Fetch and check the files of a commit, several in parallel, because each takes several round trips."""
    size = sum(stated["size"] for name, stated in files.items() if not (folder / name).is_file())
    stopped, pool = Event(), ThreadPoolExecutor(_AT_ONCE)
    with progress_bar(total=size, unit="B", unit_scale=True, desc=str(pinned), disable=not size) as bar:
        bring = partial(_right, pinned, stopped, progress=bar.update)
        checks = {name: partial(check_file, folder, name, stated) for name, stated in files.items()}
        try:
            for one in as_completed([pool.submit(bring, name, check) for name, check in checks.items()]):
                one.result()
        finally:  # after an error or Ctrl-C, abandon the others
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _right(
    pinned: Reference, stopped: Event, name: str, check: Callable[[], _T], progress: Received | None = None
) -> _T:
    """Fetch a file and check it; a wrong one is deleted from the cache and fetched once more."""
    for again in (True, False):
        fetch(pinned.repo, pinned.revision, name, progress, stopped)
        try:
            return check()
        except IntegrityError as error:
            cache_of(pinned.repo).discard(pinned.revision, name)
            if not again:
                edited = "If it was edited on the Hub, push the whole artifact again to fix it."
                raise IntegrityError(
                    f"{name} of {pinned} is still wrong after a second download: {error} {edited}"
                ) from error
    raise AssertionError


def _is_whole(folder: Path) -> bool:
    try:
        check_files(folder, read_manifest(folder))
    except ArtifactError:
        return False
    return True
