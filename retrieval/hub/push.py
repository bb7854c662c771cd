"""Push a verified artifact to the Hub in one commit."""

from __future__ import annotations

from pathlib import Path

from retrieval.artifact.atomic import writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.artifact.manifest import read_manifest, stated_files
from retrieval.build.change import name_card
from retrieval.errors import HubError, IntegrityError
from retrieval.files.remembered import reading_anew
from retrieval.hub import upload
from retrieval.hub.download import fetch, is_cached
from retrieval.hub.references import check_repository
from retrieval.hub.upload import Pushed, RepoHead


def check_push(name: str, *, private: bool = False) -> None:
    """Raise HubError if a push would fail, as far as that can be known before hours of work.

    The name must be a repository, the login must be allowed to write, and a private push must not go to a public one.
    """
    check_repository(name)
    upload.check_login(name)
    if private:
        upload.check_not_public(name)


def push(folder: Path | str, name: str, *, private: bool = False, message: str | None = None) -> Pushed:
    """Verify an artifact and push its files, and nothing else, to `owner/name` in one commit.

    The repository's name is first written into the card, which makes its example code runnable; folder and repository
    contain the same bytes. Files of an earlier artifact that this one lacks are deleted. Raises HubError,
    ArtifactError if the folder contains no artifact, IntegrityError if it is damaged.
    """
    folder = Path(folder)
    if is_cached(folder):
        raise HubError(
            f"{folder} is in the Hub's cache: download it to a folder of its own with `pull`, and push that."
        )
    check_push(name)
    with writing(folder, LAYOUT.own()):  # lock out changes during the upload
        with reading_anew():
            artifact = load_artifact(folder)
        head = upload.open_repository(name, private=private)
        before = _files_before(head)
        manifest = name_card(artifact, name).manifest
        files = {each: folder / each for each in [*stated_files(manifest), LAYOUT.manifest]}
        said = message or f"{manifest['rows']:,} images, {manifest['encoder']['architecture']}"
        return upload.push(head, files, message=said, own=before.__contains__)


def _files_before(head: RepoHead) -> frozenset[str]:
    """The artifact files now in the repository; raises HubError if the repository contains something else."""
    if head.commit and LAYOUT.manifest in head.files:
        path = fetch(head.repo, head.commit, LAYOUT.manifest)
        try:
            return frozenset(stated_files(read_manifest(path.parent)))
        except IntegrityError:  # treat it as empty, apart from shards, which would mix with those of this artifact
            return frozenset(filter(LAYOUT.is_shard, head.files))
    required = {*LAYOUT.names()} - {LAYOUT.card}
    if theirs := sorted(name for name in head.files if name in required or LAYOUT.is_shard(name)):
        raise HubError(f"{head.repo} contains {theirs[0]} but no artifact: push to another repository.")
    return frozenset()
