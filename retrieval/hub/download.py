"""Downloads: the files of one commit of a repository, into the cache that all of the Hub's clients share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from retrieval.errors import HubError
from retrieval.hub.cache import RepoCache
from retrieval.hub.client import HUB, CutOffError, ask
from retrieval.hub.references import COMMIT, Reference
from retrieval.hub_errors import cache_in_words

Progress = Callable[[int], None]
"""Told how many bytes more there are (fewer, where a download begins anew)."""


def is_cached(folder: Path) -> bool:
    """Whether a folder lies in the Hub's cache, where nothing is to be changed."""
    return folder.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())


def cache_of(repo: str) -> RepoCache:
    """What of a repository is on this disk: in HF_HUB_CACHE, or `hub` in HF_HOME."""
    return RepoCache(Path(constants.HF_HUB_CACHE), repo)


def resolve(reference: Reference, name: str) -> str:
    """The commit that a reference means now, by one HEAD request for a file that the repository has to have.

    Raises HubError where there is no such repository, revision or file; AwayError where the Hub cannot answer.
    """
    if reference.pinned:
        return reference.revision
    what = f"{name} of {reference}"
    # A copy at hand is better than a minute's wait for a network that is not there.
    impatient = bool(cache_of(reference.repo).remembered(reference.revision))
    metadata = ask(what, lambda: _metadata(reference.repo, reference.revision, name), impatient=impatient)
    if not COMMIT.fullmatch(metadata.commit_hash or ""):  # it becomes the name of a folder
        raise HubError(f"{HUB} does not say which commit {what} is of: it is no Hub.")
    return str(metadata.commit_hash)


def fetch(repo: str, commit: str, name: str, progress: Progress | None = None, stopped: Event | None = None) -> Path:
    """The path of a file of a commit in the cache, downloaded if it is not there yet; nothing is asked if it is.

    Gives up when `stopped` is set. Raises HubError, and AwayError where the Hub cannot be reached or the file is cut
    off time and again; what there is of it then waits for the next try.
    """
    cache = cache_of(repo)
    path = cache.snapshot(commit) / name
    if path.is_file():
        return path
    download = _Download(cache, commit, name, progress or (lambda _: None), stopped or Event())
    try:
        ask(download.what, download.try_once, so_far=download.so_far, stopped=download.stopped)
    except OSError as error:
        cache.discard_parts()  # a full disk would stay full
        raise cache_in_words(error, download.what, cache.place) from error
    return path


def _metadata(repo: str, revision: str, name: str) -> Any:
    """Commit, etag and size of a file, by one HEAD request."""
    return get_hf_file_metadata(hf_hub_url(repo, name, revision=revision), timeout=constants.HF_HUB_ETAG_TIMEOUT)


@dataclass
class _Download:
    """A file on its way into the cache, in as many tries as it takes."""

    cache: RepoCache
    commit: str
    name: str
    progress: Progress
    stopped: Event
    part: Path | None = None

    @property
    def what(self) -> str:
        """The file, in words."""
        return f"{self.name} of {Reference(self.cache.repo, self.commit)}"

    def so_far(self) -> int:
        """The bytes that are here, while not all are."""
        return self.part.stat().st_size if self.part and self.part.is_file() else 0

    def try_once(self) -> None:
        """Go on with the file, to its end if the Hub lets us."""
        metadata = _metadata(self.cache.repo, self.commit, self.name)
        if metadata.commit_hash not in (None, self.commit):
            raise HubError(f"the Hub gives {self.what} from another commit, {metadata.commit_hash}: try again.")
        if not metadata.etag:
            raise HubError(f"{HUB} gives {self.what} no ETag: it is no Hub.")
        blob = self.cache.blob(metadata.etag)
        with self.cache.locked(metadata.etag):
            if not blob.is_file():
                if self.part is None:
                    self.part = self.cache.part(metadata.etag)
                    self.progress(self.so_far())  # of an earlier process
                self._go_on(self.part, metadata.size)
                self.part.rename(blob)
            self.cache.link(metadata.etag, self.commit, self.name)

    def _go_on(self, part: Path, size: int | None) -> None:
        """Write what the part lacks; raises a httpx2.TransportError where it is still not whole.

        Redirected to another host, the client sends it no token.
        """
        have = self.so_far()
        if size is not None and have == size:
            return
        url = hf_hub_url(self.cache.repo, self.name, revision=self.commit)
        # Compressed on the way, a file could not be resumed.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
            if response.status_code == 416 or (size is not None and have > size):
                raise self._not_its_beginning(part)
            hf_raise_for_status(response)
            resumed = response.status_code == 206
            if not resumed:
                self.progress(-have)
            with part.open("ab" if resumed else "wb") as file:
                for chunk in response.iter_bytes():
                    if self.stopped.is_set():
                        raise HubError(f"{self.what} was given up.")
                    file.write(chunk)
                    self.progress(len(chunk))
                    if size is not None and file.tell() > size:
                        raise self._not_its_beginning(part)
        if size is not None and self.so_far() != size:
            raise CutOffError(f"{self.so_far():,} of {size:,} bytes came")

    def _not_its_beginning(self, part: Path) -> CutOffError:
        have = self.so_far()
        part.unlink()
        self.progress(-have)
        return CutOffError(f"{have:,} bytes at hand are more than there are")
