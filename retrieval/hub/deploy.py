"""Deploy a Space on the Hub that serves one revision of an artifact with this code, in one commit.

Needs only the Hub's client, not torch: CI deploys from a machine without the other dependencies.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import check_pin, read_manifest
from retrieval.console import say
from retrieval.errors import HubError
from retrieval.files.held import temporary_folder
from retrieval.hub import upload
from retrieval.hub.download import fetch, resolve
from retrieval.hub.references import Reference, check_repository, parse_reference

VARIABLE = "LOOKALIKE_ARTIFACT"  # read by app.py
_ROOT = Path(__file__).parents[2]
_REQUIREMENTS, _PROJECT = "requirements.txt", "pyproject.toml"
_TOP = ("README.md", "LICENSE", "app.py", _REQUIREMENTS)
_PACKAGE, _DOCS = "retrieval/", "docs/"  # the README shows a picture of docs/, and links to its pages
_STARTER = f"{_PACKAGE}starter/"
_KINDS = {".py", ".css", ".js", ".png", ".svg", ".html", ".jinja", ".typed"}  # file types of a package


@dataclass(frozen=True)
class Deployed:
    """A Space: its URL, the commit of its code, and the artifact that it serves, with its commit."""

    url: str
    commit: str
    artifact: str

    def __str__(self) -> str:
        return f"{self.url} at commit {self.commit[:7]} serves {self.artifact}"


def deploy(
    space: str, artifact: str, *, private: bool = False, hardware: str | None = None, sha256: str | None = None
) -> Deployed:
    """Create or update the Space `owner/space` to serve an artifact on the Hub; sends nothing if nothing changed.

    The reference is resolved to a commit, which the Space reads from its variable LOOKALIKE_ARTIFACT: later pushes to
    the artifact have no effect until this is called again. With `sha256`, only the artifact with this
    `manifest_sha256`, or else IntegrityError. Raises HubError; before anything is sent, if this is an installed package
    rather than a checkout of the project, because it lacks README.md and similar files.
    """
    files = {name: _ROOT / name for name in _code()}
    reference = parse_reference(artifact)
    check_repository(space)
    upload.check_login(f"the Space {space}")
    commit = resolve(reference, LAYOUT.manifest)
    folder = fetch(reference.repo, commit, LAYOUT.manifest).parent  # also checks that a given commit exists
    manifest = read_manifest(folder)
    check_pin(manifest, sha256)
    if upload.wants_login(reference.repo):
        say(f"{reference.repo} is private or gated: add a token that can read it to the Space, as its secret HF_TOKEN.")
    pinned = f"{reference.repo}@{commit}"
    # For a new Space only; an existing one keeps its variable until the code has been pushed.
    begin = {"space_sdk": "gradio", "space_variables": [{"key": VARIABLE, "value": pinned}]}
    head = upload.open_repository(space, private=private, kind="space", **begin, space_hardware=hardware)
    if "app.py" in head.files and "retrieval/__init__.py" not in head.files:
        raise HubError(f"the Space {space} contains another app: deploy to another Space.")
    with temporary_folder() as place:
        files[_REQUIREMENTS] = _needed(manifest, place / _REQUIREMENTS)
        pushed = upload.push(head, files, message=f"Serve {Reference(reference.repo, commit)}", own=_is_code)
    changed = upload.set_variable(space, VARIABLE, pinned)
    if hardware:
        upload.set_hardware(space, hardware)
    if not (pushed.changed or changed):
        say("The Space was up to date.")
    return Deployed(pushed.url, pushed.commit, pinned)


def _needed(manifest: Mapping[str, Any], place: Path) -> Path:
    """The requirements of a Space, written to `place`: without torch and its like, if its artifact is served without.

    Their part of the file follows an empty line.
    """
    whole = (_ROOT / _REQUIREMENTS).read_text(encoding="utf-8")
    light = LAYOUT.exported in manifest["files"] and ("text" not in manifest or manifest["text"].get("exported"))
    lines = whole.partition("\n\n")[0] + "\n" if light else whole
    if manifest["encoder"].get("engine") == "openvino":  # its int8 vectors are those of this engine alone
        extras = tomllib.loads((_ROOT / _PROJECT).read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        lines += "\n".join(extras["openvino"]) + "\n"
    place.write_text(lines, encoding="utf-8")
    return place


def _code() -> list[str]:
    """The files of a Space, relative to this checkout."""
    if missing := [name for name in _TOP if not (_ROOT / name).is_file()]:
        raise HubError(f"{missing[0]} is not in {_ROOT}: deploy from a checkout of the project.")
    paths = [path for folder in (_PACKAGE, _DOCS) for path in sorted((_ROOT / folder).rglob("*"))]
    found = (path.relative_to(_ROOT).as_posix() for path in paths)
    return [*_TOP, *(name for name in found if _is_code(name) and (_ROOT / name).is_file())]


def _is_code(name: str) -> bool:
    """Whether a file belongs to a Space's code: others in the Space are left alone, others here are never sent."""
    if name.startswith(_STARTER):
        return LAYOUT.is_file(name.removeprefix(_STARTER))
    if name.startswith(_DOCS):
        return Path(name).suffix in {".md", ".png"}
    hidden = any(part.startswith((".", "__pycache__")) for part in name.split("/"))
    return name in _TOP or (name.startswith(_PACKAGE) and Path(name).suffix in _KINDS and not hidden)
