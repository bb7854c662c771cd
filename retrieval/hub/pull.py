"""Remote: artifacts by name: a folder, or `owner/name@revision` on the Hub, to a folder whose files were checked."""

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
from retrieval.artifact.load import Artifact, check_target, is_artifact, load_artifact
from retrieval.artifact.manifest import check_file, check_files, read_manifest, stated_files
from retrieval.console import progress_bar, say
from retrieval.errors import ArtifactError, AwayError, HubError, IntegrityError
from retrieval.hub.download import Progress, cache_of, fetch, resolve
from retrieval.hub.references import Reference, is_reference, parse_reference

_T = TypeVar("_T")
_AT_ONCE = 4  # files on their way


@dataclass(frozen=True)
class Resolved:
    """Where an artifact is, and what it is called."""

    folder: Path
    name: str
    commit: str | None = None
    """On the Hub; None for a folder."""
    offline: bool = False
    """Whether the Hub could not be asked, and this is the copy at hand."""

    @property
    def state(self) -> str:
        """`commit 0123abc`, or `offline, commit 0123abc`; nothing for a folder."""
        return f"{'offline, ' if self.offline else ''}commit {self.commit[:7]}" if self.commit else ""


def open_reference(name: str | Path) -> Resolved:
    """The folder of an artifact, which is named by its path or by `owner/name[@revision]`.

    What is on the Hub is brought into the Hub's cache, all by one commit, and checked against its manifest. Where the
    Hub is away, a whole copy in the cache serves, and standard error says so. Raises HubError, and IntegrityError
    for a file that is twice not what the manifest states. A folder is not looked into: loading does that.
    """
    folder = Path(name).expanduser()
    if is_artifact(folder) or not is_reference(str(name)):
        return Resolved(folder, folder.resolve().name)
    return _from_hub(parse_reference(str(name)))


def open_artifact(name: str | Path) -> Artifact:
    """Check an artifact and open it: a folder, or `owner/name[@revision]` on the Hub.

    What is on the Hub is fetched first (see `open_reference`). Raises ArtifactError where there is none, HubError where
    the Hub does not have it or cannot be asked, and IntegrityError, naming the part and both values, where a part does
    not agree with the manifest. FAISS, torch and parquet see no byte of a file that failed its hash.
    """
    found = open_reference(name)
    return replace(load_artifact(found.folder), name=found.name, commit=found.commit, offline=found.offline)


def pull(name: str, out: Path | str) -> Resolved:
    """Bring an artifact from the Hub into a folder of its own, in the place of one that may be there.

    Raises what `open_reference` raises, and ArtifactError where `out` cannot be written.
    """
    reference, out = parse_reference(name), Path(out)
    check_target(out)
    resolved = _from_hub(reference)
    with writing(out, LAYOUT.own()), replacing(out, LAYOUT.own()) as fresh:
        try:
            for file in [*stated_files(read_manifest(resolved.folder)), LAYOUT.manifest]:
                (fresh / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(resolved.folder / file, fresh / file)
        except OSError as error:
            raise ArtifactError(f"{out} cannot be written: {error.strerror}; choose another place.") from error
        load_artifact(fresh)
    return resolved


def _from_hub(reference: Reference) -> Resolved:
    try:
        return _fetched(reference)
    except AwayError as error:
        cache = cache_of(reference.repo)
        commits = [reference.revision] if reference.pinned else cache.remembered(reference.revision)
        commit = next((commit for commit in commits if _is_whole(cache.snapshot(commit))), None)
        if commit is None:
            here = f"No whole copy of {reference} is here to serve meanwhile, nor such an artifact."
            raise AwayError(f"{error} {here}") from error
        copy = Resolved(cache.snapshot(commit), reference.repo, commit, offline=True)
        say(f"{error} Serving the copy at hand: {copy.state}.")
        return copy


def _fetched(reference: Reference) -> Resolved:
    commit, cache = resolve(reference, LAYOUT.manifest), cache_of(reference.repo)
    pinned, folder = Reference(reference.repo, commit), cache.snapshot(commit)
    bring = partial(_right, pinned, Event())
    files = stated_files(bring(LAYOUT.manifest, lambda: read_manifest(folder)))
    try:
        _fetch_all(pinned, folder, files)
    except AwayError:
        raise  # what is there of a file waits for the next try
    except HubError:
        cache.discard_parts()  # of the files, too, that were given up with the one that could not be kept
        raise
    if not reference.pinned:
        cache.remember(reference.revision, commit)
    return Resolved(folder, reference.repo, commit)


def _fetch_all(pinned: Reference, folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Fetch and check the files of a commit, some at a time, as each waits for the Hub more than once."""
    size = sum(stated["size"] for name, stated in files.items() if not (folder / name).is_file())
    stopped, pool = Event(), ThreadPoolExecutor(_AT_ONCE)
    with progress_bar(total=size, unit="B", unit_scale=True, desc=str(pinned), disable=not size) as bar:
        bring = partial(_right, pinned, stopped, progress=bar.update)
        checks = {name: partial(check_file, folder, name, stated) for name, stated in files.items()}
        try:
            for one in as_completed([pool.submit(bring, name, check) for name, check in checks.items()]):
                one.result()
        finally:  # after an error, or Ctrl-C, the others are given up
            stopped.set()
            pool.shutdown(cancel_futures=True)


def _right(
    pinned: Reference, stopped: Event, name: str, check: Callable[[], _T], progress: Progress | None = None
) -> _T:
    """Fetch a file and check it; a wrong one is thrown out of the cache and fetched once more."""
    for again in (True, False):
        fetch(pinned.repo, pinned.revision, name, progress, stopped)
        try:
            return check()
        except IntegrityError as error:
            cache_of(pinned.repo).discard(pinned.revision, name)
            if not again:
                edited = "If it was edited on the Hub, a push of the whole artifact puts it right."
                raise IntegrityError(
                    f"{name} of {pinned}, fetched once more, is still wrong: {error} {edited}"
                ) from error
    raise AssertionError


def _is_whole(folder: Path) -> bool:
    try:
        check_files(folder, read_manifest(folder))
    except ArtifactError:
        return False
    return True
