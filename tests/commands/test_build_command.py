"""`build` on a folder that already holds an artifact."""

import pytest
from conftest import BACKBONE, contents, noise

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.build import embed
from retrieval.build.build import build_artifact
from retrieval.console import command
from retrieval.encoders.image import Encoder
from retrieval.sources.open import open_source

TINY = ["--backbone", BACKBONE, "--no-pretrained"]


@pytest.fixture
def photos(tmp_path):
    """A folder of two images, which a build could put in the place of the 60 of `copied_artifact`."""
    for seed in range(2):
        noise(tmp_path / "photos" / f"{seed}.png", seed)
    return tmp_path / "photos"


def test_build_refuses_a_finished_artifact(copied_artifact, pictures, photos, here):
    before = contents(copied_artifact)
    status, printed, error = here("build", photos, "--out", copied_artifact, *TINY)
    assert (status, printed) == (1, "")
    sync, add = (command(f"{name} {copied_artifact} SOURCE") for name in ("sync", "add"))
    assert error == (
        f"error: {copied_artifact} already holds an artifact of 60 images, built from {pictures.name!r}. To bring it "
        f"up to date with its source, use `{sync}`; to add other images, `{add}`. To build a new artifact, choose "
        "another --out, or replace this one with --force.\n"
    )
    assert contents(copied_artifact) == before


def test_build_replaces_a_finished_artifact_with_force(copied_artifact, photos, here):
    (copied_artifact / "notes.txt").write_text("a person's")
    status, printed, error = here("build", photos, "--out", copied_artifact, "--force", *TINY)
    assert status == 0, error
    assert "found 2 = indexed 2 + skipped 0 + duplicate 0" in printed
    assert load_artifact(copied_artifact).gallery.table["source"].to_pylist() == ["0.png", "1.png"]
    assert (copied_artifact / "notes.txt").read_text() == "a person's"


def test_build_refuses_an_artifact_whose_manifest_is_damaged(copied_artifact, photos, here):
    (copied_artifact / LAYOUT.manifest).write_text("{")
    status, _, error = here("build", photos, "--out", copied_artifact, *TINY)
    assert status == 1
    assert "already holds an artifact with a manifest that cannot be read" in error
    assert here("build", photos, "--out", copied_artifact, "--force", *TINY)[0] == 0
    assert len(load_artifact(copied_artifact).gallery) == 2


def test_force_does_not_replace_a_folder_of_other_files(photos, tmp_path, here):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    for options in ([], ["--force"]):
        status, _, error = here("build", photos, "--out", tmp_path / "mine", *options, *TINY)
        assert status == 1
        assert "contains files that do not belong to an artifact; choose a new or empty folder" in error
    assert (tmp_path / "mine" / "manifest.json").read_text() == "{}"


def test_build_artifact_replaces_a_finished_artifact(copied_artifact, photos, encoder):
    """A program decides for itself: only the command asks for `--force`."""
    build_artifact(open_source(str(photos)), copied_artifact, encoder)
    assert len(load_artifact(copied_artifact).gallery) == 2


def test_interrupted_build_over_an_artifact_continues_with_force(copied_artifact, pictures, here, monkeypatch):
    monkeypatch.setattr(embed, "SHARD", 8)  # smaller than in earnest, so that one is finished
    work = copied_artifact.parent / f".{copied_artifact.name}.building"

    def interrupt(done, total):
        if list(work.glob("*.parquet")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder = Encoder.create(BACKBONE, pretrained=False, seed=0)  # the one of the command
        build_artifact(open_source(str(pictures)), copied_artifact, encoder, progress=interrupt)
    finished = contents(work)
    before = contents(copied_artifact)
    assert here("build", pictures, "--out", copied_artifact, *TINY)[0] == 1
    assert (contents(work), contents(copied_artifact)) == (finished, before)
    status, printed, error = here("build", pictures, "--out", copied_artifact, "--force", *TINY)
    assert status == 0, error
    assert "found 60 = indexed 60 + skipped 0 + duplicate 0" in printed
    assert "discarding" not in error
    assert "reading from the start" not in error
    assert not work.exists()
    assert load_artifact(copied_artifact).encoder.fingerprint == encoder.fingerprint
