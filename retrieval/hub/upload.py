"""Upload: create repositories, and send files in one commit on top of the head that was inspected."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from retrieval.errors import AwayError, HubError
from retrieval.hub.client import HUB, ask, tell

Kind = Literal["model", "space"]


@dataclass(frozen=True)
class Pushed:
    """The resulting commit of a push, its URL, and whether it changed anything."""

    commit: str
    url: str
    changed: bool = True

    def __str__(self) -> str:
        done = "is now at" if self.changed else "already has the same files, at"
        return f"{self.url} {done} commit {self.commit}"


@dataclass(frozen=True)
class RepoHead:
    """The state of a repository before a push."""

    repo: str
    kind: Kind
    what: str
    """The name for messages."""
    commit: str | None
    """None for an empty repository."""
    files: tuple[str, ...]


def check_login(what: str) -> None:
    """Raise HubError if nobody is logged in to write `what`, or the token is read-only."""
    answer = ask(what, lambda: HfApi().whoami())
    token = (answer.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise HubError(
            f"the token of {answer['name']} can only read: create one that can write (Settings, Access Tokens), "
            "then run `hf auth login`, or set HF_TOKEN."
        )


def check_not_public(repo: str) -> None:
    """Raise HubError if a repository exists and is public."""
    try:
        info: Any = tell(repo, lambda: HfApi().repo_info(repo))
    except AwayError:
        raise
    except HubError:  # it does not exist, or is not visible
        return
    _refuse_public(repo, info)


def _refuse_public(what: str, info: Any) -> None:
    if info.private is False:
        raise HubError(f"{what} already exists and is public: make it private in its settings, or choose another name.")


def open_repository(repo: str, *, private: bool = False, kind: Kind = "model", **space: Any) -> RepoHead:
    """The head of a repository, which is created if missing; `space` holds the initial settings of a new Space.

    Raises HubError, also if it should be private but already is public.
    """
    api, what = HfApi(), repo if kind == "model" else f"the Space {repo}"
    ask(what, lambda: api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True, **space))
    info: Any = ask(what, lambda: api.repo_info(repo, repo_type=kind))
    if private:
        _refuse_public(what, info)
    return RepoHead(repo, kind, what, info.sha or None, tuple(file.rfilename for file in info.siblings or []))


def push(head: RepoHead, files: Mapping[str, Path], *, message: str, own: Callable[[str], bool]) -> Pushed:
    """Push files in one commit on top of a head; unchanged files are not sent.

    Files in the repository that satisfy `own` and are not in `files` are deleted in the same commit. If somebody else
    has committed since `head` was read, the push is rejected. Raises HubError.
    """
    gone = [name for name in head.files if own(name) and name not in files]
    options: dict[str, Any] = {"repo_type": head.kind, "parent_commit": head.commit, "commit_message": message}

    def send() -> Any:
        added = [CommitOperationAdd(name, path) for name, path in files.items()]  # each object works only once
        removed = [CommitOperationDelete(name) for name in gone]
        return HfApi().create_commit(head.repo, [*added, *removed], **options)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")  # the gallery
        # Without a request by the Hub to retry, it is unknown whether the commit was made.
        commit = ask(head.what, send, tries=2, when_told=True)
    return Pushed(commit.oid, str(commit.repo_url).replace(constants.ENDPOINT, HUB), commit.oid != head.commit)


def set_variable(space: str, key: str, value: str) -> bool:
    """Set a variable of a Space; returns False, without a restart, if it already has this value."""
    what, api = f"the Space {space}", HfApi()
    there = tell(what, lambda: api.get_space_variables(space)).get(key)
    if there and there.value == value:
        return False
    tell(what, lambda: api.add_space_variable(space, key, value))
    return True


def set_hardware(space: str, hardware: str) -> None:
    """Request hardware for a Space, unless it was already requested."""
    what, api = f"the Space {space}", HfApi()
    if tell(what, lambda: api.get_space_runtime(space)).requested_hardware != hardware:
        tell(what, lambda: api.request_space_hardware(space, hardware))  # type: ignore[arg-type]


def wants_login(repo: str) -> bool:
    """Whether a repository's files require a login: it is private or gated."""
    info = tell(repo, lambda: HfApi().model_info(repo))
    return bool(info.private or info.gated)
