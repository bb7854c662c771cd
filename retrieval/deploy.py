"""Deploy: a Space on the Hub that serves one revision of an artifact, from this code, in one commit.

Needs the Hub's client and no more, no torch: CI deploys from a machine that has not installed the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from retrieval import hub
from retrieval.command import say
from retrieval.errors import HubError
from retrieval.hub import Reference, parse_reference
from retrieval.layout import LAYOUT

VARIABLE = "LOOKALIKE_ARTIFACT"  # that app.py reads
_ROOT = Path(__file__).parents[1]
_TOP = ("README.md", "LICENSE", "app.py", "requirements.txt")
_PARTS = re.compile(r"retrieval/(stores/|ui/)?[\w-]+\.(py|css|js|png|svg)")
_STARTER = "retrieval/starter/"


@dataclass(frozen=True)
class Deployed:
    """A Space: its address, the commit of its code, and the artifact that it serves, pinned."""

    url: str
    commit: str
    artifact: str

    def __str__(self) -> str:
        return f"{self.url} at commit {self.commit[:7]} serves {self.artifact}"


def deploy(space: str, artifact: str, *, private: bool = False, hardware: str | None = None) -> Deployed:
    """Make or update the Space `owner/space` to serve an artifact on the Hub; nothing is sent where nothing changed.

    The reference is resolved to a commit, which the Space reads in its variable LOOKALIKE_ARTIFACT: later pushes to
    the artifact change nothing there until this is called again. Raises HubError.
    """
    reference = parse_reference(artifact)
    hub.check_repository(space)
    hub.check_login(f"the Space {space}")
    commit = hub.resolve(reference, LAYOUT.manifest)
    hub.fetch(reference.repo, commit, LAYOUT.manifest)  # a commit that was given is there, too
    if hub.wants_login(reference.repo):
        say(f"{reference.repo} is private or gated: give the Space a token that may read it, as its secret HF_TOKEN.")
    pinned = f"{reference.repo}@{commit}"
    # What a new Space begins with; one that is there already keeps what it has until the code is there.
    begin = {"space_sdk": "gradio", "space_variables": [{"key": VARIABLE, "value": pinned}]}
    head = hub.open_repository(space, private=private, kind="space", **begin, space_hardware=hardware)
    if "app.py" in head.files and "retrieval/__init__.py" not in head.files:
        raise HubError(f"the Space {space} is another app: deploy to a Space of its own.")
    files = {name: _ROOT / name for name in _code()}
    pushed = hub.push(head, files, message=f"Serve {Reference(reference.repo, commit)}", own=_is_code)
    changed = hub.set_variable(space, VARIABLE, pinned)
    if hardware:
        hub.set_hardware(space, hardware)
    if not (pushed.changed or changed):
        say("The Space was up to date.")
    return Deployed(pushed.url, pushed.commit, pinned)


def _code() -> list[str]:
    """The files of a Space, relative to this checkout."""
    if missing := [name for name in _TOP if not (_ROOT / name).is_file()]:
        raise HubError(f"{missing[0]} is not in {_ROOT}: deploy from a checkout of the project.")
    found = (path.relative_to(_ROOT).as_posix() for path in sorted((_ROOT / "retrieval").rglob("*")))
    return [*_TOP, *(name for name in found if _is_code(name) and (_ROOT / name).is_file())]


def _is_code(name: str) -> bool:
    """Whether a file belongs to the code of a Space: whatever else lies there is left alone, and never sent."""
    of_starter = name.startswith(_STARTER) and LAYOUT.is_file(name.removeprefix(_STARTER))
    return name in _TOP or bool(_PARTS.fullmatch(name)) or of_starter
