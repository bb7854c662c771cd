"""References: `owner/name[@revision]`, a repository on the Hub and a revision of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from retrieval.errors import HubError

_REFERENCE = re.compile(r"(?!.*\.\.)(?P<repo>\w[\w.-]{0,95}/\w[\w.-]{0,95})(@(?P<revision>\w[\w./-]*))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Reference:
    """A repository and one of its branches, tags or commits.

    >>> parse_reference("me/shirts@v1")
    Reference(repo='me/shirts', revision='v1')
    """

    repo: str
    revision: str = "main"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit hash, which never changes its meaning."""
        return bool(COMMIT.fullmatch(self.revision))

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision[:7] if self.pinned else self.revision}"


def is_reference(text: str) -> bool:
    """Whether a text has the form of a reference: `owner/name` or `owner/name@revision`."""
    return bool(_REFERENCE.fullmatch(text))


def parse_reference(text: str) -> Reference:
    """Parse `owner/name[@revision]`; raises HubError for anything else."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise HubError(f"{text!r} is not a repository on the Hub: use owner/name, or owner/name@revision.")
    return Reference(found["repo"], found["revision"] or "main")


def check_repository(text: str) -> None:
    """Raise HubError unless the text is `owner/name`, without a revision: a push adds a commit to the branch head."""
    reference = parse_reference(text)
    if "@" in text:
        raise HubError(f"{text}: this makes a new commit in {reference.repo}; leave out the part after the @.")
