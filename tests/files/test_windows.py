"""Commands do the same where files are treated as Windows treats them: by an emulation on Linux (`support/windows.py`).

On Windows and macOS, the same tests meet the real thing.
"""

import csv
import sys

import pytest
import windows
from conftest import BACKBONE, contents, noise, tiny_recipe

from retrieval.__main__ import main
from retrieval.artifact.atomic import replacing, writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.errors import ArtifactError
from retrieval.hub.cache import RepoCache
from retrieval.search import Searcher
from training.run import train


@pytest.fixture
def on_windows(monkeypatch):
    windows.emulate(monkeypatch)
    yield
    windows.release()


@pytest.fixture
def folders(tmp_path):
    for name, seeds in (("one", range(6)), ("two", range(3, 9))):
        for seed in seeds:
            noise(tmp_path / name / "ab"[seed % 2] / f"{seed}.png", seed)
    return tmp_path


def done(*words):
    assert main([str(word) for word in words]) == 0


def beside(folder):
    return sorted(path.name for path in folder.iterdir())


def test_artifact_is_built_and_changed(folders, on_windows, capsys):
    it, model = folders / "it", ("--no-pretrained", "--backbone", BACKBONE)
    done("build", folders / "one", "--out", it, *model)
    (it / "notes.txt").write_text("mine")
    done("add", it, folders / "two")
    assert len(load_artifact(it).gallery) == 9
    done("remove", it, load_artifact(it).gallery.ids[0])
    assert len(load_artifact(it).gallery) == 8
    done("sync", it, folders / "two")
    assert len(load_artifact(it).gallery) == 6
    done("build", folders / "one", "--out", it, "--force", *model)
    done("verify", it)
    assert (it / "notes.txt").read_text() == "mine"
    assert beside(folders) == [".it.lock", "it", "one", "two"]
    assert capsys.readouterr().err.count("note:") == 0


def test_lists_replace_the_files_before_them(artifact, on_windows, tmp_path):
    for command in (("list", artifact), ("duplicates", artifact)):
        for _ in range(2):
            done(*command, "--csv", tmp_path / "out.csv")
            with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
                assert next(csv.reader(file))
    for _ in range(2):
        done("export", artifact, "--npy", tmp_path / "arrays")
    assert beside(tmp_path) == ["arrays", "out.csv"]


def test_open_artifact_can_be_changed(copied_artifact, on_windows):
    """Windows renames no folder with an open file; a server that shows the artifact must not keep one open."""
    searcher = Searcher.open(copied_artifact)
    first = load_artifact(copied_artifact).gallery.ids[0]
    done("remove", copied_artifact, first)
    assert searcher.gallery.ids[0] == first
    assert searcher.gallery.thumbnail(0)
    assert Searcher.open(copied_artifact).gallery.ids[0] != first


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS renames folders with open files, and there is no emulation")
def test_artifact_that_another_program_reads_is_left_as_it_is(copied_artifact, on_windows, capsys):
    before = contents(copied_artifact)
    first = load_artifact(copied_artifact).gallery.ids[0]
    with (copied_artifact / LAYOUT.card).open():
        assert main(["remove", str(copied_artifact), first]) == 1
    said = f"error: {copied_artifact} cannot be written (another program has it open): end that program, such as a "
    assert capsys.readouterr().err.startswith(said)
    assert contents(copied_artifact) == before
    assert beside(copied_artifact.parent) == [f".{copied_artifact.name}.lock", copied_artifact.name]
    done("remove", copied_artifact, first)


def test_downloads_are_kept_without_links(on_windows, tmp_path):
    cache = RepoCache(tmp_path, "me/it")
    for name in ("README.md", "plots/a.png"):
        with cache.locked("etag"):
            cache.part("etag").write_bytes(b"right")
            cache.part("etag").replace(cache.blob("etag"))
            cache.link("etag", "c1", name)
        assert (cache.snapshot("c1") / name).read_bytes() == b"right"
    cache.remember("main", "c1")
    cache.remember("main", "c2")
    assert cache.remembered("main") == ["c2"]


def test_checkpoint_is_flushed_and_put_in_place(drawings, on_windows, one_thread, tmp_path):
    recipe = tiny_recipe(data=str(drawings), threads=1, save_steps=2, classes_per_batch=4)
    said = []
    train(recipe, tmp_path / "it", say=said.append)
    assert len(load_artifact(tmp_path / "it").gallery) > 0
    assert beside(tmp_path) == [".it.lock", "it"]


@pytest.mark.parametrize("name", ["plots/con.png", "plots/NUL.png", "plots/com1.b.png", "text/aux.json"])
def test_names_of_devices_are_no_files_of_an_artifact(name):
    assert not LAYOUT.is_file(name)
    assert LAYOUT.is_file(name.replace(".", "x.", 1))


@pytest.mark.skipif(sys.platform == "win32", reason="a whole path has at most 260 characters there")
def test_long_names_of_artifacts_can_be_written(tmp_path):
    for name in ("a" * 250, "é" * 125):
        folder = tmp_path / name
        for text in ("old", "new"):
            with writing(folder, ["own"]), replacing(folder, ["own"]) as fresh:
                (fresh / "own").write_text(text)
        assert (folder / "own").read_text() == "new"
    assert beside(tmp_path)[-2:] == ["a" * 250, "é" * 125]
    with pytest.raises(ArtifactError, match=r"cannot be written \(File name too long\): choose a shorter name"):  # noqa: SIM117
        with writing(tmp_path / ("a" * 300), ["own"]), replacing(tmp_path / ("a" * 300), ["own"]):
            pass
