"""What an artifact may have beside what each has: stored, refused when spoiled, made anew when rows come and go."""

import importlib.util
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import contents, noise, reseal

from retrieval.__main__ import main
from retrieval.artifact import check_target, load_artifact
from retrieval.build import add_images, build_artifact, remove_images, update_metrics
from retrieval.errors import ArtifactError, IntegrityError, MapError
from retrieval.layout import LAYOUT
from retrieval.projection import pca, project
from retrieval.sources import open_source


def vectors_of(artifact):
    return artifact.store.vectors(np.arange(len(artifact.store)))


def refused(folder, *words):
    with pytest.raises(IntegrityError) as raised:
        load_artifact(folder)
    message = str(raised.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# Without any


def test_an_artifact_without_them_is_what_it_was(artifact):
    opened = load_artifact(artifact)
    assert opened.map is None
    assert set(contents(artifact)) == set(LAYOUT.names())
    assert not {"map", "text"} & set(opened.manifest)


# The map


@pytest.fixture(scope="module")
def mapped(pictures, encoder, tmp_path_factory):
    """The folder of an artifact with a map. Read-only: `copied_map` is there to be changed."""
    folder = tmp_path_factory.mktemp("mapped") / "it"
    build_artifact(open_source(str(pictures)), folder, encoder, map_method="pca")
    return folder


@pytest.fixture
def copied_map(mapped, tmp_path):
    return Path(shutil.copytree(mapped, tmp_path / "it"))


def test_a_map_is_a_file_of_the_artifact(mapped, artifact):
    opened = load_artifact(mapped)
    assert opened.map.dtype == np.float32
    np.testing.assert_allclose(opened.map, pca(vectors_of(opened)), atol=1e-6)
    np.testing.assert_array_equal(np.load(mapped / "map.npy", allow_pickle=False), opened.map)
    assert opened.manifest["map"] == {"method": "pca"}
    same = set(LAYOUT.names()) - {LAYOUT.manifest, LAYOUT.card}
    assert {name: contents(mapped)[name] for name in same} == {name: contents(artifact)[name] for name in same}


def test_the_map_follows_the_rows(copied_map, tmp_path):
    noise(tmp_path / "more" / "a" / "one.png", 1)
    add_images(load_artifact(copied_map), open_source(str(tmp_path / "more")))
    for rows in (61, 58):
        opened = load_artifact(copied_map)
        assert opened.map.shape == (rows, 2)
        np.testing.assert_allclose(opened.map, pca(vectors_of(opened)), atol=1e-6)
        if rows == 61:
            remove_images(opened, opened.gallery.ids[:3])
    before = contents(copied_map)[LAYOUT.map]
    update_metrics(copied_map, {"note": "later"})
    assert contents(copied_map)[LAYOUT.map] == before
    assert load_artifact(copied_map).manifest["map"] == {"method": "pca"}


def test_a_build_without_a_map_leaves_none(copied_map, pictures, encoder):
    build_artifact(open_source(str(pictures)), copied_map, encoder)
    assert not (copied_map / LAYOUT.map).exists()
    assert load_artifact(copied_map).map is None


def test_the_command_line_stores_a_map(tmp_path, pictures):
    command = ["build", str(pictures), "--out", str(tmp_path / "it"), "--backbone", "test_vit", "--no-pretrained"]
    assert main([*command, "--limit", "12", "--map", "tsne"]) == 0
    opened = load_artifact(tmp_path / "it")
    assert opened.manifest["map"] == {"method": "tsne"}
    np.testing.assert_allclose(opened.map, project(vectors_of(opened), "tsne"), atol=1e-3)


def test_a_package_that_is_missing_is_missed_before_anything_is_embedded(
    tmp_path, copied_map, pictures, encoder, monkeypatch
):
    def progress(*_):
        raise AssertionError("an image was embedded")

    stated = json.loads((copied_map / LAYOUT.manifest).read_bytes())
    reseal(copied_map, **{**stated, "map": {"method": "umap"}})
    before, opened = contents(copied_map), load_artifact(copied_map)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    source = open_source(str(pictures))
    noise(tmp_path / "more" / "a" / "one.png", 1)
    with pytest.raises(MapError, match="pip install openTSNE"):
        build_artifact(source, tmp_path / "new", encoder, map_method="tsne", progress=progress)
    with pytest.raises(MapError, match="pip install umap-learn"):
        add_images(opened, open_source(str(tmp_path / "more")), progress=progress)
    with pytest.raises(MapError, match="pip install umap-learn"):
        remove_images(opened, opened.gallery.ids[:1])
    assert not (tmp_path / "new").exists()
    assert contents(copied_map) == before


WRONG_MAPS = {
    "shape": (np.zeros((59, 2), np.float32), "map.npy: shape", "[60, 2]", "[59, 2]"),
    "axes": (np.zeros((60, 3), np.float32), "map.npy: shape", "[60, 3]"),
    "type": (np.zeros((60, 2)), "map.npy: type", "float32", "float64"),
    "nan": (np.full((60, 2), np.nan, np.float32), "map.npy holds numbers that are not finite"),
    "objects": (np.array([[{}, {}]] * 60), "map.npy is not what an artifact has", "allow_pickle=False"),
}


@pytest.mark.parametrize("what", WRONG_MAPS)
def test_a_forged_map_is_refused(copied_map, what):
    array, *words = WRONG_MAPS[what]
    (copied_map / LAYOUT.map).write_bytes(npy(array))
    reseal(copied_map)
    refused(copied_map, *words)


def test_a_spoiled_map_is_refused(copied_map):
    path = copied_map / LAYOUT.map
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(copied_map, "map.npy: SHA-256")
    path.write_bytes(b"rubbish")
    reseal(copied_map)
    refused(copied_map, "map.npy is not what an artifact has")
    path.unlink()
    refused(copied_map, "map.npy is missing")


@pytest.mark.parametrize("section", [{"method": "pca"}, None])
def test_a_map_that_is_not_stated_and_one_that_is_not_there(copied_map, copied_artifact, section):
    if section:  # stated, and no file
        reseal(copied_artifact, map=section)
        refused(copied_artifact, "map.npy: a map", "says True, found False")
    else:
        reseal(copied_map, map=None)
        refused(copied_map, "map.npy: a map", "says False, found True")


def test_a_file_of_that_name_that_is_somebody_elses(copied_artifact):
    (copied_artifact / LAYOUT.map).write_bytes(b"theirs")
    refused(copied_artifact, "map.npy is in", "the manifest does not list it")
    with pytest.raises(ArtifactError, match=r"map\.npy is not the artifact's, and would be lost"):
        check_target(copied_artifact)
