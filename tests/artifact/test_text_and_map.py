"""The optional parts of an artifact: stored, refused when damaged, and updated when rows are added or removed."""

import importlib.util
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import contents, noise, refused, reseal, sealed, sha256
from older import without_exported_text
from PIL import Image
from text_models import write_image_tower
from transformers import AutoModel, AutoProcessor

from retrieval.__main__ import main
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import check_target, load_artifact
from retrieval.artifact.parts.map import pca, project
from retrieval.build.build import build_artifact
from retrieval.build.change import add_images, remove_images, update_metrics
from retrieval.encoders.image import Encoder
from retrieval.encoders.text.encoder import TextEncoder
from retrieval.errors import ArtifactError, MapError, MissingExtraError
from retrieval.search import Searcher
from retrieval.sources.open import open_source


def vectors_of(artifact):
    return artifact.store.vectors(np.arange(len(artifact.store)))


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# Without optional parts


def test_artifact_without_text_model_and_map_has_no_such_files(artifact):
    opened = load_artifact(artifact)
    assert opened.map is opened.text is None
    assert set(contents(artifact)) == {*LAYOUT.names(), LAYOUT.exported, *LAYOUT.plots_in(artifact)}
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


def test_map_is_stored_in_the_artifact(mapped, artifact):
    opened = load_artifact(mapped)
    assert opened.map.dtype == np.float32
    np.testing.assert_allclose(opened.map, pca(vectors_of(opened)), atol=1e-6)
    np.testing.assert_array_equal(np.load(mapped / "map.npy", allow_pickle=False), opened.map)
    assert opened.manifest["map"] == {"method": "pca"}
    same = set(LAYOUT.names()) - {LAYOUT.manifest, LAYOUT.card}
    assert {name: contents(mapped)[name] for name in same} == {name: contents(artifact)[name] for name in same}


def test_add_and_remove_recompute_the_map(copied_map, tmp_path):
    noise(tmp_path / "more" / "a" / "one.png", 1)
    add_images(copied_map, open_source(str(tmp_path / "more")))
    for rows in (61, 58):
        opened = load_artifact(copied_map)
        assert opened.map.shape == (rows, 2)
        np.testing.assert_allclose(opened.map, pca(vectors_of(opened)), atol=1e-6)
        if rows == 61:
            remove_images(opened.folder, opened.gallery.ids[:3])
    before = contents(copied_map)[LAYOUT.map]
    update_metrics(copied_map, {"note": "later"})
    assert contents(copied_map)[LAYOUT.map] == before
    assert load_artifact(copied_map).manifest["map"] == {"method": "pca"}


def test_rebuild_without_a_map_removes_it(copied_map, pictures, encoder):
    build_artifact(open_source(str(pictures)), copied_map, encoder)
    assert not (copied_map / LAYOUT.map).exists()
    assert load_artifact(copied_map).map is None


def test_build_command_stores_a_map(tmp_path, pictures):
    command = ["build", str(pictures), "--out", str(tmp_path / "it"), "--backbone", "test_vit", "--no-pretrained"]
    assert main([*command, "--limit", "12", "--map", "tsne"]) == 0
    opened = load_artifact(tmp_path / "it")
    assert opened.manifest["map"] == {"method": "tsne"}
    np.testing.assert_allclose(opened.map, project(vectors_of(opened), "tsne"), atol=1e-3)


def test_missing_map_package_is_an_error_before_any_image_is_embedded(
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
    with pytest.raises(MissingExtraError, match="needs openTSNE, which is not installed: pip install"):
        build_artifact(source, tmp_path / "new", encoder, map_method="tsne", progress=progress)
    with pytest.raises(MissingExtraError, match="needs umap, which is not installed: pip install"):
        add_images(opened.folder, open_source(str(tmp_path / "more")), progress=progress)
    with pytest.raises(MissingExtraError, match="needs umap, which is not installed: pip install"):
        remove_images(opened.folder, opened.gallery.ids[:1])
    assert not (tmp_path / "new").exists()
    assert contents(copied_map) == before


WRONG_MAPS = {
    "shape": (np.zeros((59, 2), np.float32), "map.npy: shape", "[60, 2]", "[59, 2]"),
    "axes": (np.zeros((60, 3), np.float32), "map.npy: shape", "[60, 3]"),
    "type": (np.zeros((60, 2)), "map.npy: type", "float32", "float64"),
    "nan": (np.full((60, 2), np.nan, np.float32), "map.npy contains values that are not finite"),
    "objects": (
        np.array([[{}, {}]] * 60),
        "map.npy does not have the format of an artifact file",
        "allow_pickle=False",
    ),
}


@pytest.mark.parametrize("what", WRONG_MAPS)
def test_map_with_a_wrong_array_is_refused(copied_map, what):
    array, *words = WRONG_MAPS[what]
    (copied_map / LAYOUT.map).write_bytes(npy(array))
    reseal(copied_map)
    refused(copied_map, *words)


def test_damaged_or_missing_map_is_refused(copied_map):
    path = copied_map / LAYOUT.map
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(copied_map, "map.npy: SHA-256")
    path.write_bytes(b"rubbish")
    reseal(copied_map)
    refused(copied_map, "map.npy does not have the format of an artifact file")
    path.unlink()
    refused(copied_map, "map.npy is missing")


@pytest.mark.parametrize("method", ["isomap", "", None, ["pca"], 7])
def test_stored_map_with_an_unknown_method_is_refused(copied_map, method):
    """The error comes when the artifact is opened, not later when the page or a change needs the map."""
    reseal(copied_map, map={"method": method})
    refused(copied_map, f"manifest.json names the map method {method!r}", "knows only pca, tsne, umap: upgrade")
    reseal(copied_map, map={})
    refused(copied_map, "manifest.json does not have the format of an artifact file", "method")


@pytest.mark.parametrize("method", ["isomap", ""])
def test_unknown_map_method_is_refused_before_any_image_is_embedded(pictures, encoder, tmp_path, method):
    def progress(*_):
        raise AssertionError("an image was embedded")

    with pytest.raises(MapError, match=f"unknown map method '{method}'; choose one of pca, tsne, umap"):
        source = open_source(str(pictures))
        build_artifact(source, tmp_path / "new", encoder, map_method=method, progress=progress)


@pytest.mark.parametrize("section", [{"method": "pca"}, None])
def test_manifest_and_map_file_must_agree(copied_map, copied_artifact, section):
    if section:  # the manifest states a map, but there is no file
        reseal(copied_artifact, map=section)
        refused(copied_artifact, "map.npy: map present", "says True, found False")
    else:
        reseal(copied_map, map=None)
        refused(copied_map, "map.npy: map present", "says False, found True")


def test_foreign_file_named_like_the_map_is_refused(copied_artifact):
    (copied_artifact / LAYOUT.map).write_bytes(b"theirs")
    refused(copied_artifact, "map.npy is in", "not listed in the manifest")
    with pytest.raises(ArtifactError, match=r"map\.npy does not belong to the artifact and would be lost"):
        check_target(copied_artifact)


# The text model

TEXT_FILES = [
    "text/config.json",
    "text/index.faiss",
    "text/model.safetensors",
    "text/onnx/text_model.onnx",
    "text/onnx/vision_model.onnx",
    "text/processor_config.json",
    "text/tokenizer.json",
    "text/tokenizer_config.json",
]


@pytest.fixture(scope="module")
def told(pictures, encoder, clip, tmp_path_factory):
    """The folder of an artifact with a text model and a map. Read-only: `copied_text` is there to be changed."""
    folder = tmp_path_factory.mktemp("told") / "it"
    build_artifact(open_source(str(pictures)), folder, encoder, text=TextEncoder.create(str(clip)), map_method="pca")
    return folder


@pytest.fixture
def copied_text(told, tmp_path):
    return Path(shutil.copytree(told, tmp_path / "it"))


def text_vectors(artifact):
    return artifact.text.store.vectors(np.arange(len(artifact.text.store)))


def seen_by(folder, gallery, rows):
    """Embeddings of the thumbnails of those rows, computed with `transformers` alone."""
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder, backend="pil")
    images = [Image.open(io.BytesIO(gallery.thumbnail(row))).convert("RGB") for row in rows]
    found = model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output.detach().numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_text_model_is_stored_in_the_artifact(told, artifact, clip):
    opened = load_artifact(told)
    assert LAYOUT.text_in(told) == TEXT_FILES
    stated = opened.manifest["text"]
    assert stated["name"] == opened.text.encoder.name == "clip-tiny"
    assert stated["fingerprint"] == TextEncoder.create(str(clip)).fingerprint
    assert (stated["dimension"], stated["index"]["factory"], len(opened.text.store)) == (24, "Flat", 60)
    assert set(contents(told)) == {*LAYOUT.names(), LAYOUT.exported, *LAYOUT.plots_in(told), LAYOUT.map, *TEXT_FILES}
    for name in TEXT_FILES:
        data = (told / name).read_bytes()
        assert opened.manifest["files"][name] == {"size": len(data), "sha256": sha256(data)}
    same = set(LAYOUT.names()) - {LAYOUT.manifest, LAYOUT.card}
    assert {name: contents(told)[name] for name in same} == {name: contents(artifact)[name] for name in same}
    line = "- **Text search:** clip-tiny, 24-dimensional embeddings"
    assert line in (told / LAYOUT.card).read_text().splitlines()
    assert "**Text:**" not in (artifact / LAYOUT.card).read_text()


def test_text_search_finds_the_nearest_thumbnails(told, clip):
    opened = load_artifact(told)
    vectors = seen_by(clip, opened.gallery, range(60))
    np.testing.assert_allclose(text_vectors(opened), vectors, atol=1e-5)
    query = opened.text.encoder.embed_texts(["a red shirt"])
    rows, scores = opened.text.store.search(query, 7)
    expected = vectors @ query[0]
    np.testing.assert_allclose(scores[0], np.sort(expected)[::-1][:7], atol=1e-5)
    np.testing.assert_allclose(expected[rows[0]], scores[0], atol=1e-5)
    golden = opened.manifest["text"]["golden"]
    again = vectors[golden["rows"]] @ opened.text.encoder.embed_texts([golden["query"]])[0]
    np.testing.assert_allclose(again, golden["scores"], atol=1e-4)


def test_build_command_takes_a_text_model(tmp_path, pictures, clip, capsys):
    command = ["build", str(pictures), "--out", str(tmp_path / "it"), "--backbone", "test_vit", "--no-pretrained"]
    assert main([*command, "--limit", "5", "--text-model", str(tmp_path)]) == 1
    assert "error: the text model in the folder" in capsys.readouterr().err
    assert not (tmp_path / "it").exists()
    assert main([*command, "--limit", "5", "--text-model", str(clip)]) == 0
    assert len(load_artifact(tmp_path / "it").text.store) == 5
    assert main(["verify", str(tmp_path / "it")]) == 0


def test_add_embeds_only_new_thumbnails_with_the_text_model(copied_text, tmp_path, clip, monkeypatch):
    seen, embed = [], TextEncoder.embed_images
    monkeypatch.setattr(TextEncoder, "embed_images", lambda self, images: (seen.extend(images), embed(self, images))[1])
    before = load_artifact(copied_text)
    inodes = {name: (copied_text / name).stat().st_ino for name in TEXT_FILES}
    for seed in (1, 2):
        noise(tmp_path / "more" / "a" / f"{seed}.png", seed)
    add_images(before.folder, open_source(str(tmp_path / "more")))
    grown = load_artifact(copied_text)
    assert len(seen) == 2
    np.testing.assert_array_equal(text_vectors(grown)[:60], text_vectors(before))
    np.testing.assert_allclose(text_vectors(grown)[60:], seen_by(clip, grown.gallery, (60, 61)), atol=1e-5)
    remove_images(grown.folder, [grown.gallery.ids[row] for row in (0, 60)])
    after = load_artifact(copied_text)
    kept = [*range(1, 60), 61]
    assert len(seen) == 2
    np.testing.assert_array_equal(text_vectors(after), text_vectors(grown)[kept])
    same = set(TEXT_FILES) - {LAYOUT.text_index}
    assert {name: (copied_text / name).stat().st_ino for name in same} == {name: inodes[name] for name in same}
    assert "**Text search:**" in (copied_text / LAYOUT.card).read_text()


@pytest.mark.parametrize("weights", [7, [], {"license": "mit"}, {"name": "clip", "license": 7}])
def test_weights_of_a_text_model_of_another_shape_are_refused(copied_text, weights):
    stated = json.loads((copied_text / LAYOUT.manifest).read_bytes())["text"]
    reseal(copied_text, text={**stated, "weights": weights})
    refused(copied_text, "text.weights")


def test_text_model_of_a_version_that_did_not_state_its_weights_is_read_and_changed(copied_text):
    config = json.loads((copied_text / "text" / "config.json").read_text())
    del config["lookalike"]["licence"]
    (copied_text / "text" / "config.json").write_text(json.dumps(config))
    stated = json.loads((copied_text / LAYOUT.manifest).read_bytes())["text"]
    reseal(copied_text, text={name: value for name, value in stated.items() if name != "weights"})
    opened = load_artifact(copied_text)
    assert opened.text.encoder.licence is None
    remove_images(copied_text, opened.gallery.ids[:1])
    assert "weights" not in load_artifact(copied_text).manifest["text"]
    assert "Weights for text search" not in (copied_text / LAYOUT.card).read_text()


def test_update_metrics_leaves_the_text_model_unchanged(copied_text):
    before = {name: (copied_text / name).stat().st_ino for name in [*TEXT_FILES, LAYOUT.map]}
    section = load_artifact(copied_text).manifest["text"]
    update_metrics(copied_text, {"note": "later"})
    assert {name: (copied_text / name).stat().st_ino for name in before} == before
    assert load_artifact(copied_text).manifest["text"] == section


def test_rebuild_without_a_text_model_removes_it(copied_text, pictures, encoder):
    build_artifact(open_source(str(pictures)), copied_text, encoder)
    assert load_artifact(copied_text).text is None
    assert not (copied_text / LAYOUT.text).exists()


@pytest.mark.parametrize("name", TEXT_FILES)
def test_damaged_text_model_file_is_not_read(copied_text, name, monkeypatch):
    def load(*_):
        raise AssertionError("a file that failed its hash was read")

    monkeypatch.setattr(TextEncoder, "load", load)
    path = copied_text / name
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    refused(copied_text, f"{name}: SHA-256")
    path.write_bytes(data[:-1])
    refused(copied_text, f"{name}: size in bytes")
    path.unlink()
    refused(copied_text, f"{name} is missing")


@pytest.mark.parametrize(
    "name", ["text/notes.txt", "text/more.json", "text/adapter_config.json", "text/x.py", "text/a/b"]
)
def test_foreign_file_beside_the_text_model_is_refused(copied_text, copied_artifact, name):
    for folder in (copied_text, copied_artifact):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
        first = "/".join(name.split("/")[:2])
        refused(folder, f"{first} is in", "not listed in the manifest")
        with pytest.raises(ArtifactError, match=f"{first} does not belong to the artifact and would be lost"):
            check_target(folder)


@pytest.mark.parametrize(
    "name",
    ["text/../secret.json", "text/x.py", "text/adapter_config.json", "text/a/b.json", "text/.x.json", "text/x.bin"],
)
def test_manifest_that_lists_other_text_model_files_is_refused(copied_text, name):
    files = json.loads((copied_text / LAYOUT.manifest).read_bytes())["files"]
    secret = b"{}"
    (copied_text / name).parent.mkdir(exist_ok=True)
    (copied_text / name).write_bytes(secret)
    reseal(copied_text, files={**files, name: {"size": len(secret), "sha256": sha256(secret)}})
    refused(copied_text, "manifest.json lists", repr(name))


def test_text_model_that_disagrees_with_manifest_or_index_is_refused(copied_text, artifact, clip):
    stated = json.loads((copied_text / LAYOUT.manifest).read_bytes())["text"]
    before = contents(copied_text)

    def forge(words, text=stated, **files):
        for name, data in {**before, **files}.items():
            (copied_text / name).write_bytes(data)
        reseal(copied_text, text=text)
        refused(copied_text, *words)

    forge(["text: fingerprint", "0123", stated["fingerprint"]], {**stated, "fingerprint": "0123"})
    forge(["text/index.faiss: dimension", "says 25, found 24"], {**stated, "dimension": 25})
    forge(["text/index.faiss: dimension", "says 24, found 16"], **{"text/index.faiss": before["index.faiss"]})
    forge(["text: text model present", "says False, found True"], None)
    forge(["golden query of the text model"], {**stated, "golden": {**stated["golden"], "query": "something else"}})
    forge(["text: index.faiss is not a readable FAISS index"], **{"text/index.faiss": b"rubbish"})
    forge(["text: the text model in the folder text"], **{"text/config.json": b"{}"})
    forge(["text: the text model in the folder text"], **{"text/tokenizer.json": b"{}"})
    for name, data in before.items():
        (copied_text / name).write_bytes(data)
    load_artifact(copied_text)


def test_text_index_with_another_number_of_rows_is_refused(copied_text):
    opened = load_artifact(copied_text)
    few = opened.text.store.emptied()
    few.add(text_vectors(opened)[:59])
    few.save(copied_text / LAYOUT.text_index)
    reseal(copied_text)
    refused(copied_text, "text/index.faiss: number of vectors", "says 60, found 59")


def test_stated_text_model_that_is_missing_is_refused(copied_artifact, copied_text):
    reseal(copied_artifact, text=json.loads((copied_text / LAYOUT.manifest).read_bytes())["text"])
    refused(copied_artifact, "text: text model present", "says True, found False")


def test_push_and_pull_include_text_model_and_map(hub, client, copied_text, tmp_path):
    answer = client.run("push", copied_text, "me/told", token="hf_write")
    assert answer.code == 0, answer.err
    on_hub = hub.files("model", "me/told")
    assert on_hub.pop(".gitattributes")
    assert on_hub == contents(copied_text)
    answer = client.run("pull", "me/told", "--out", tmp_path / "pulled")
    assert answer.code == 0, answer.err
    assert contents(tmp_path / "pulled") == contents(copied_text)
    opened, pulled = load_artifact(copied_text), load_artifact(tmp_path / "pulled")
    np.testing.assert_array_equal(pulled.map, opened.map)
    np.testing.assert_array_equal(text_vectors(pulled), text_vectors(opened))
    spoiled = bytearray(on_hub["text/model.safetensors"])
    spoiled[-1] ^= 1
    hub.commit("model", "me/told", {"text/model.safetensors": bytes(spoiled)})
    answer = client.run("pull", "me/told", "--out", tmp_path / "again")
    assert answer.code == 1
    assert "text/model.safetensors: SHA-256" in answer.err
    assert not (tmp_path / "again").exists()


def test_text_model_of_the_hub_is_named_by_its_repository(hub, client, pictures, clip, tmp_path):
    hub.commit("model", "me/clip", {**contents(clip), "pytorch_model.bin": b"a pickle, for all we know"})
    command = ["build", pictures, "--out", tmp_path / "it", "--backbone", "test_vit", "--no-pretrained", "--limit", "4"]
    answer = client.run(*command, "--text-model", "me/clip")
    assert answer.code == 0, answer.err
    part = load_artifact(tmp_path / "it").text
    assert part.encoder.name == "me/clip"
    assert part.encoder.fingerprint == TextEncoder.create(str(clip)).fingerprint
    assert not any("pytorch_model.bin" in request.path for request in hub.requests)
    answer = client.run(*command, "--force", "--text-model", "me/none-of-that-name")
    assert answer.code == 1
    assert "error: the text model me/none-of-that-name could not be loaded" in answer.err


def test_artifact_of_an_earlier_version_has_its_text_model_exported(copied_text, capsys):
    words = load_artifact(copied_text).text.encoder.embed_texts(["a red shirt"])
    before = load_artifact(without_exported_text(copied_text))
    assert before.text.encoder.towers is before.text.encoder.network
    np.testing.assert_allclose(before.text.encoder.embed_texts(["a red shirt"]), words, atol=1e-5)
    older = Path(shutil.copytree(copied_text, copied_text.parent / "older"))
    os.link(copied_text / "text/model.safetensors", older / "another link")
    kept = (older / "another link").read_bytes()
    assert main(["export-encoder", str(copied_text)]) == 0
    assert "has the exported text model: a score differs from torch's by at most" in capsys.readouterr().out
    assert (older / "another link").read_bytes() == kept  # the files of the old artifact were not written to
    after = load_artifact(copied_text)
    assert after.manifest["text"]["exported"]["texts"] > 20
    assert set(LAYOUT.text_in(copied_text)) == set(TEXT_FILES)
    np.testing.assert_allclose(after.text.encoder.embed_texts(["a red shirt"]), words, atol=1e-5)
    np.testing.assert_array_equal(text_vectors(after), text_vectors(before))
    assert main(["export-encoder", str(copied_text)]) == 0  # it has it already


@pytest.mark.parametrize("name", ["text/onnx/text_model.onnx", "text/onnx/vision_model.onnx"])
def test_exported_tower_that_is_not_stated_is_refused(copied_text, name):
    (copied_text / name).unlink()
    manifest = json.loads((copied_text / LAYOUT.manifest).read_bytes())
    del manifest["files"][name]
    (copied_text / LAYOUT.manifest).write_bytes(sealed(manifest))
    refused(copied_text, f"{name}: exported tower", "says True, found False")


# One tower


@pytest.fixture(scope="module")
def one_tower(pictures, clip, tmp_path_factory):
    """The folder of an artifact whose encoder is the image tower of its text model. Read-only."""
    folder = tmp_path_factory.mktemp("one")
    tower = write_image_tower(folder / "tower", clip)
    command = ["build", str(pictures), "--out", str(folder / "it"), "--backbone", f"local-dir:{tower}"]
    assert main([*command, "--text-model", str(clip)]) == 0
    return folder / "it"


def test_encoder_that_is_the_image_tower_embeds_each_picture_once(one_tower, clip):
    opened = load_artifact(one_tower)
    assert opened.encoder.dim == 24  # the projection is kept
    assert opened.manifest["text"]["one_tower"]
    assert LAYOUT.text_in(one_tower) == [name for name in TEXT_FILES if "index" not in name and "vision" not in name]
    assert opened.text.store is opened.store
    model, processor = AutoModel.from_pretrained(clip).eval(), AutoProcessor.from_pretrained(clip, backend="pil")
    words = ["a red shirt", "a hat"]
    with torch.no_grad():
        said = model.get_text_features(**processor(text=words, padding=True, return_tensors="pt")).pooler_output.numpy()
    said /= np.linalg.norm(said, axis=1, keepdims=True)
    searcher = Searcher.of(opened)
    for text, vector in zip(words, said, strict=True):
        hits = searcher.search_text(text, k=5)
        expected = vectors_of(opened) @ vector
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(expected)[::-1][:5], atol=1e-5)
    image = Image.open(io.BytesIO(opened.gallery.thumbnail(3))).convert("RGB")
    np.testing.assert_array_equal(opened.text.encoder.embed_images([image]), opened.encoder.embed_images([image]))


def test_artifact_with_one_tower_is_changed(one_tower, tmp_path):
    folder = Path(shutil.copytree(one_tower, tmp_path / "it"))
    noise(tmp_path / "more" / "a" / "1.png", 1)
    add_images(folder, open_source(str(tmp_path / "more")))
    grown = load_artifact(folder)
    assert len(grown.text.store) == 61
    remove_images(folder, [grown.gallery.ids[0]])
    assert len(load_artifact(folder).text.store) == 60
    assert load_artifact(folder).manifest["text"]["one_tower"]


def test_other_encoder_has_a_tower_of_its_own(told):
    assert load_artifact(told).manifest["text"]["one_tower"] is False


def test_int8_encoder_shares_no_tower_with_a_text_model_in_float32(pictures, clip, tmp_path):
    tower = write_image_tower(tmp_path / "tower", clip)
    encoder, text = Encoder.create(f"local-dir:{tower}"), TextEncoder.create(str(clip))
    build_artifact(open_source(str(pictures)), tmp_path / "it", encoder, text=text, precision="int8", accept_loss=True)
    opened = load_artifact(tmp_path / "it")
    assert (opened.manifest["encoder"]["precision"], opened.manifest["encoder"]["engine"]) == ("int8", "onnx")
    assert opened.manifest["text"]["one_tower"] is False
    np.testing.assert_allclose(text_vectors(opened)[:3], seen_by(clip, opened.gallery, range(3)), atol=1e-4)


@pytest.mark.parametrize("changes", [{"one_tower": "yes"}, {"exported": 1}, {"name": 10**30}], ids=str)
def test_text_section_of_another_shape_is_refused(copied_text, changes):
    stated = json.loads((copied_text / LAYOUT.manifest).read_bytes())["text"]
    reseal(copied_text, text={**stated, **changes})
    refused(copied_text, "manifest.json does not have the format", f"text.{next(iter(changes))}")


def test_settings_of_a_text_model_that_are_no_object_are_refused_by_name(copied_text):
    (copied_text / "text/tokenizer_config.json").write_text("[1]")
    reseal(copied_text)
    refused(copied_text, "text: tokenizer_config.json is not an object of settings")


def test_text_model_computes_on_the_processor_whatever_the_encoder_does(copied_text, monkeypatch):
    monkeypatch.setattr("retrieval.encoders.engines.choose._sees_gpu", lambda: True)
    part = load_artifact(copied_text).text
    assert part.encoder.towers is not part.encoder.__dict__.get("network")
    assert "network" not in part.encoder.__dict__


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_export_without_room_is_an_error_of_the_build(pictures, encoder, clip, tmp_path, monkeypatch):
    def full(source, target):
        with Path("/dev/full").open("wb") as file:
            file.write(Path(source).read_bytes())

    monkeypatch.setattr("retrieval.encoders.text.network.export.shutil.copyfile", full)
    text = TextEncoder.create(str(clip))
    with pytest.raises(ArtifactError, match=r"text/onnx/\w+\.onnx cannot be written \(No space left"):
        build_artifact(open_source(str(pictures)), tmp_path / "it", encoder, text=text)
    assert not (tmp_path / "it").exists()
