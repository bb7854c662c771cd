"""Commands do the same where files are treated as Windows treats them (see `support/windows.py`)."""

import pytest
import windows
from conftest import BACKBONE, noise

from retrieval.__main__ import main
from retrieval.artifact.load import load_artifact


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
