"""Hub: files of a repository on the Hugging Face Hub, one commit in, one commit out. Knows nothing of artifacts.

A reference, `owner/name@revision`, is resolved to a commit once; every file is then fetched by that commit, into the
cache that all of the Hub's clients share (`retrieval.cache`). Tokens come from HF_TOKEN or the login, by way of the
client, and stay there.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Event
from typing import Any, Literal, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_url,
)
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, parse_ratelimit_headers

from retrieval.cache import RepoCache
from retrieval.errors import AwayError, HubError
from retrieval.faults import cache_in_words, in_words

_REFERENCE = re.compile(r"(?!.*\.\.)(?P<repo>\w[\w.-]{0,95}/\w[\w.-]{0,95})(@(?P<revision>\w[\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRIES = 3  # in a row that bring next to nothing
_PROGRESS = 1 << 20  # bytes that are more than next to nothing
_PATIENCE = 60.0  # seconds that a Hub may ask us to wait; more, and we say so instead
_OF_THE_HUB = (HfHubHTTPError, OfflineModeIsEnabled)  # which are kinds of OSError, too

_HUB = re.sub(r"//[^/@]*@", "//", constants.ENDPOINT)  # for messages: an address can hold a password
_log = logging.getLogger(__name__)
_T = TypeVar("_T")
Kind = Literal["model", "space"]
Progress = Callable[[int], None]
"""Told how many bytes more there are (fewer, where a download begins anew)."""


@dataclass(frozen=True)
class Reference:
    """A repository, and a branch, tag or commit of it.

    >>> parse_reference("me/shirts@v1")
    Reference(repo='me/shirts', revision='v1')
    """

    repo: str
    revision: str = "main"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a whole commit, which never means anything else."""
        return bool(_COMMIT.fullmatch(self.revision))

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:7] if self.pinned else self.revision}"


@dataclass(frozen=True)
class Pushed:
    """The commit that a push ended in, its address, and whether it changed anything."""

    commit: str
    url: str
    changed: bool = True

    def __str__(self) -> str:
        done = "is now at" if self.changed else "has all of it already, at"
        return f"{self.url} {done} commit {self.commit}"


@dataclass(frozen=True)
class Head:
    """Where a repository is, before a push."""

    repo: str
    kind: Kind
    what: str
    """In words."""
    commit: str | None
    """None for one that is empty."""
    files: tuple[str, ...]


def is_reference(text: str) -> bool:
    """Whether a text could name a repository: `owner/name` or `owner/name@revision`."""
    return bool(_REFERENCE.fullmatch(text))


def parse_reference(text: str) -> Reference:
    """`owner/name[@revision]` as a Reference; raises HubError for anything else."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise HubError(f"{text!r} names no repository on the Hub: that is owner/name, or owner/name@revision.")
    return Reference(found["repo"], found["revision"] or "main")


def check_repository(text: str) -> None:
    """Raise HubError unless that is `owner/name`, of something to write to: a commit is made on top of its head."""
    reference = parse_reference(text)
    if "@" in text:
        raise HubError(f"{text}: a new commit of {reference.repo} is made; leave out what stands after the @.")


# --- in ---


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
    metadata = _asked(what, lambda: _metadata(reference.repo, reference.revision, name), impatient=impatient)
    if not _COMMIT.fullmatch(metadata.commit_hash or ""):  # it becomes the name of a folder
        raise HubError(f"{_HUB} does not say which commit {what} is of: it is no Hub.")
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
        _asked(download.what, download.try_once, so_far=download.so_far, stopped=download.stopped)
    except OSError as error:
        cache.discard_parts()  # a full disk would stay full
        raise cache_in_words(error, download.what, cache.place) from error
    return path


# --- out ---


def check_login(what: str) -> None:
    """Raise HubError where nobody is logged in to write `what`, or with a token that may only read."""
    answer = _asked(what, lambda: HfApi().whoami())
    token = (answer.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise HubError(
            f"the token {answer['name']} is logged in with may only read: take one with the right to write "
            "(Settings, Access Tokens), then `hf auth login` or HF_TOKEN."
        )


def check_not_public(repo: str) -> None:
    """Raise HubError where a repository is there, and everybody may see it."""
    try:
        info: Any = _told(repo, lambda: HfApi().repo_info(repo))
    except AwayError:
        raise
    except HubError:  # it is not there, or not shown
        return
    _refuse_public(repo, info)


def _refuse_public(what: str, info: Any) -> None:
    if info.private is False:
        raise HubError(f"{what} is there already, and public: make it private in its settings, or push elsewhere.")


def open_repository(repo: str, *, private: bool = False, kind: Kind = "model", **space: Any) -> Head:
    """The head of a repository, which is made where it does not exist; `space` are what a new Space begins with.

    Raises HubError, also where it is to be private and is public already.
    """
    api, what = HfApi(), repo if kind == "model" else f"the Space {repo}"
    _asked(what, lambda: api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True, **space))
    info: Any = _asked(what, lambda: api.repo_info(repo, repo_type=kind))
    if private:
        _refuse_public(what, info)
    return Head(repo, kind, what, info.sha or None, tuple(file.rfilename for file in info.siblings or []))


def push(head: Head, files: Mapping[str, Path], *, message: str, own: Callable[[str], bool]) -> Pushed:
    """Files into one commit on top of a head; what has not changed is not sent.

    Files there that are `own`, and not among these, are removed in the same commit. A commit that somebody else made
    meanwhile has this one refused. Raises HubError.
    """
    gone = [name for name in head.files if own(name) and name not in files]
    options: dict[str, Any] = {"repo_type": head.kind, "parent_commit": head.commit, "commit_message": message}

    def send() -> Any:
        added = [CommitOperationAdd(name, path) for name, path in files.items()]  # each serves once
        removed = [CommitOperationDelete(name) for name in gone]
        return HfApi().create_commit(head.repo, [*added, *removed], **options)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")  # the gallery
        # Unless the Hub asks for another try, nobody knows what it has done.
        commit = _asked(head.what, send, tries=2, when_told=True)
    return Pushed(commit.oid, str(commit.repo_url).replace(constants.ENDPOINT, _HUB), commit.oid != head.commit)


def set_variable(space: str, key: str, value: str) -> bool:
    """Have a variable of a Space say this; False where it does already, and nothing is restarted."""
    what, api = f"the Space {space}", HfApi()
    there = _told(what, lambda: api.get_space_variables(space)).get(key)
    if there and there.value == value:
        return False
    _told(what, lambda: api.add_space_variable(space, key, value))
    return True


def set_hardware(space: str, hardware: str) -> None:
    """Ask for the machine that a Space shall run on, unless it has it, or has asked for it."""
    what, api = f"the Space {space}", HfApi()
    if _told(what, lambda: api.get_space_runtime(space)).requested_hardware != hardware:
        _told(what, lambda: api.request_space_hardware(space, hardware))  # type: ignore[arg-type]


def wants_login(repo: str) -> bool:
    """Whether only those get a repository's files who are logged in: it is private or gated."""
    info = _told(repo, lambda: HfApi().model_info(repo))
    return bool(info.private or info.gated)


# --- how ---


def _told(what: str, call: Callable[[], _T]) -> _T:
    """What the client gives, its errors in our words; the client itself tries again where that is safe."""
    try:
        return call()
    except LocalTokenNotFoundError as error:
        raise HubError(f"nobody is logged in to write {what}: `hf auth login`, or set HF_TOKEN.") from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise HubError(f"HF_ENDPOINT is no address of a Hub: {_HUB!r}.") from error
    except (httpx2.LocalProtocolError, UnicodeEncodeError):  # whose own sentence holds the token
        raise HubError(f"the token for {what} has letters that none has: mend HF_TOKEN, or `hf auth login`.") from None
    except (httpx2.HTTPError, *_OF_THE_HUB) as error:
        if isinstance(error, _CutOffError):
            raise AwayError(f"{what} was cut off ({error}): try again.") from error
        raise in_words(error, what, _HUB, _wait(error)) from error
    except ValueError as error:  # of our card, or of a name
        raise HubError(f"{what} is not as the Hub wants it: {' '.join(str(error).split())}") from error


def _asked(
    what: str,
    call: Callable[[], _T],
    *,
    impatient: bool = False,
    tries: int = _TRIES,
    when_told: bool = False,
    so_far: Callable[[], int] = lambda: 0,
    stopped: Event | None = None,
) -> _T:
    """`call` until it gives something, or so many times in a row next to nothing; between, waits as the Hub asks.

    `impatient`: not again where nobody answers; `when_told`: not again unless the Hub says after how long.
    """
    left, most, stopped = tries, 0, stopped or Event()
    while True:
        try:
            return _told(what, call)
        except AwayError as error:
            left, most = (tries - 1, so_far()) if so_far() >= most + _PROGRESS else (left - 1, most)
            unreachable = isinstance(error.__cause__, (httpx2.TransportError, OfflineModeIsEnabled))
            given_up = left <= 0 or error.wait > _PATIENCE or isinstance(error.__cause__, OfflineModeIsEnabled)
            if given_up or (impatient and unreachable) or (when_told and not error.wait):
                raise
            pause = error.wait or float(tries - left)
            _log.warning("%s Trying again in %.0f s.", error, pause)
            if stopped.wait(pause):
                raise


def _wait(error: Exception) -> float:
    """The seconds that the Hub asks to wait (Retry-After, or the RateLimit of its draft standard); 0: none."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    after = headers.get("Retry-After", "")
    if after.isdigit():
        return float(after)
    with suppress(ValueError):  # it may be a date
        return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and limit.remaining == 0 else 0.0


def _metadata(repo: str, revision: str, name: str) -> Any:
    """Commit, etag and size of a file, by one HEAD request."""
    return get_hf_file_metadata(hf_hub_url(repo, name, revision=revision), timeout=constants.HF_HUB_ETAG_TIMEOUT)


class _CutOffError(httpx2.ReadError):
    """A file that is not whole; its sentence says how much of it came."""


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
            raise HubError(f"{_HUB} gives {self.what} no ETag: it is no Hub.")
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
            raise _CutOffError(f"{self.so_far():,} of {size:,} bytes came")

    def _not_its_beginning(self, part: Path) -> _CutOffError:
        have = self.so_far()
        part.unlink()
        self.progress(-have)
        return _CutOffError(f"{have:,} bytes at hand are more than there are")
