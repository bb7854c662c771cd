"""Download the files of one commit of a repository into the cache shared with the Hub's other clients."""

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
from retrieval.hub_errors import cache_error

Received = Callable[[int], None]
"""Called with the number of additional bytes (negative if a download restarts)."""


def is_cached(folder: Path) -> bool:
    """Whether a folder is inside the Hub's cache, where nothing may be changed."""
    return folder.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())


def cache_of(repo: str) -> RepoCache:
    """The local cache of a repository: in HF_HUB_CACHE, or `hub` in HF_HOME."""
    return RepoCache(Path(constants.HF_HUB_CACHE), repo)


def resolve(reference: Reference, name: str) -> str:
    """The commit that a reference means now, from one HEAD request for a file that the repository must contain.

    Raises HubError if the repository, revision or file does not exist; AwayError if the Hub cannot answer.
    """
    if reference.pinned:
        return reference.revision
    what = f"{name} of {reference}"
    # A local copy is better than waiting a minute for an unreachable network.
    impatient = bool(cache_of(reference.repo).remembered(reference.revision))
    metadata = ask(what, lambda: _metadata(reference.repo, reference.revision, name), impatient=impatient)
    if not COMMIT.fullmatch(metadata.commit_hash or ""):  # it becomes a folder name
        raise HubError(f"{HUB} does not say which commit {what} belongs to: it is not a Hub.")
    return str(metadata.commit_hash)


def fetch(repo: str, commit: str, name: str, progress: Received | None = None, stopped: Event | None = None) -> Path:
    """The cached path of a file of a commit; downloads it if missing, and makes no request otherwise.

    Stops when `stopped` is set. Raises HubError, and AwayError if the Hub cannot be reached or the transfer breaks off
    repeatedly; the part received so far is kept for the next attempt.
    """
    cache = cache_of(repo)
    path = cache.snapshot(commit) / name
    if path.is_file():
        return path
    download = _Download(cache, commit, name, progress or (lambda _: None), stopped or Event())
    try:
        ask(download.what, download.try_once, so_far=download.so_far, stopped=download.stopped)
    except OSError as error:
        cache.discard_parts()  # or a full disk stays full
        raise cache_error(error, download.what, cache.place) from error
    return path


def _metadata(repo: str, revision: str, name: str) -> Any:
    """Commit, etag and size of a file, from one HEAD request."""
    return get_hf_file_metadata(hf_hub_url(repo, name, revision=revision), timeout=constants.HF_HUB_ETAG_TIMEOUT)


@dataclass
class _Download:
    """The download of one file into the cache, over several attempts if needed."""

    cache: RepoCache
    commit: str
    name: str
    progress: Received
    stopped: Event
    part: Path | None = None

    @property
    def what(self) -> str:
        """The file, as named in messages."""
        return f"{self.name} of {Reference(self.cache.repo, self.commit)}"

    def so_far(self) -> int:
        """The number of bytes received so far; 0 once the file is complete."""
        return self.part.stat().st_size if self.part and self.part.is_file() else 0

    def try_once(self) -> None:
        """Make one attempt to complete the file."""
        metadata = _metadata(self.cache.repo, self.commit, self.name)
        if metadata.commit_hash not in (None, self.commit):
            raise HubError(f"the Hub sends {self.what} from another commit, {metadata.commit_hash}: try again.")
        if not metadata.etag:
            raise HubError(f"{HUB} sends no ETag for {self.what}: it is not a Hub.")
        blob = self.cache.blob(metadata.etag)
        with self.cache.locked(metadata.etag):
            if not blob.is_file():
                if self.part is None:
                    self.part = self.cache.part(metadata.etag)
                    self.progress(self.so_far())  # bytes from an earlier process
                self._go_on(self.part, metadata.size)
                self.part.replace(blob)
            self.cache.link(metadata.etag, self.commit, self.name)

    def _go_on(self, part: Path, size: int | None) -> None:
        """Download the rest of the file; raises httpx2.TransportError if it is still incomplete.

        On a redirect to another host, the client does not send the token.
        """
        have = self.so_far()
        if size is not None and have == size:
            return
        url = hf_hub_url(self.cache.repo, self.name, revision=self.commit)
        # A compressed transfer could not be resumed.
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
                        raise HubError(f"the download of {self.what} was stopped.")
                    file.write(chunk)
                    self.progress(len(chunk))
                    if size is not None and file.tell() > size:
                        raise self._not_its_beginning(part)
        if size is not None and self.so_far() != size:
            raise CutOffError(f"{self.so_far():,} of {size:,} bytes received")

    def _not_its_beginning(self, part: Path) -> CutOffError:
        have = self.so_far()
        part.unlink()
        self.progress(-have)
        return CutOffError(f"{have:,} bytes received, more than the file has")
