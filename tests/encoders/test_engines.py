"""Engines: ONNX Runtime and OpenVINO give torch's vectors, on the same artifact, in threads and in forked children."""

import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import python
from older import without_exported
from PIL import Image

from retrieval.__main__ import main
from retrieval.artifact.load import load_artifact
from retrieval.build.build import build_artifact
from retrieval.build.change import add_images, remove_images, update_metrics
from retrieval.encoders.engines.choose import ENGINE, ENGINES
from retrieval.encoders.files import EXPORTED_FILE
from retrieval.encoders.image import Encoder
from retrieval.errors import EncoderError, IntegrityError
from retrieval.sources.open import open_source

NETWORKS = [
    ("test_efficientnet", {"embedding_size": 16}),
    ("test_resnet", {"crop_mode": "center"}),
    ("test_vit", {}),
    ("test_resnet", {"head": "32-bn-relu-16"}),
]


def noise(count, side=200):
    rng = np.random.default_rng(count)
    return [Image.fromarray(rng.integers(0, 256, (side - 3 * i, side, 3), dtype=np.uint8)) for i in range(count)]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: f"{network[0]} {network[1]}")
def saved(request, tmp_path_factory):
    """A saved encoder with its exported network, and torch's encoder."""
    backbone, options = request.param
    encoder = Encoder.create(backbone, pretrained=False, seed=0, **options)
    folder = tmp_path_factory.mktemp("encoder")
    encoder.save(folder)
    (folder / EXPORTED_FILE).parent.mkdir()
    (folder / EXPORTED_FILE).write_bytes(encoder.network.exported.read_bytes())
    return folder, encoder


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_vectors_of_torch(saved, engine):
    folder, torch_encoder = saved
    encoder = Encoder.load(folder, engine=engine)
    assert encoder.engine.name == engine
    assert (encoder.name, encoder.dim, encoder.fingerprint) == (
        torch_encoder.name,
        torch_encoder.dim,
        torch_encoder.fingerprint,
    )
    assert (encoder.size, encoder.is_plain_timm) == (torch_encoder.size, torch_encoder.is_plain_timm)
    for count in (1, 2, 5):
        images = noise(count)
        found, expected = encoder.embed_images(images), torch_encoder.embed_images(images)
        assert found.dtype == np.float32
        assert np.allclose(found, expected, atol=1e-5)
    assert encoder.embed_images([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_splits_an_embedding_as_torch_does(saved, engine):
    folder, torch_encoder = saved
    encoder, [image] = Encoder.load(folder, engine=engine), noise(1)
    assert encoder.explains is torch_encoder.explains
    if not encoder.explains:
        with pytest.raises(EncoderError, match="cannot be split into parts"):
            encoder.cells(image)
        return
    found, expected = encoder.cells(image), torch_encoder.cells(image)
    assert found.grid == expected.grid
    scale = np.abs(expected.embedding).max()
    assert np.allclose(found.parts, expected.parts, atol=1e-5 * scale)
    assert np.allclose(found.bias, expected.bias, atol=1e-5 * scale)
    length = np.linalg.norm(found.embedding)
    assert np.allclose(found.embedding / length, encoder.embed_images([image])[0], atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_that_ask_at_once_get_their_own_answers(saved, engine):
    folder, torch_encoder = saved
    encoder, images = Encoder.load(folder, engine=engine), noise(12, 60)
    with ThreadPoolExecutor(6) as pool:
        found = np.concatenate(list(pool.map(lambda image: encoder.embed_images([image]), images)))
    assert np.allclose(found, torch_encoder.embed_images(images), atol=1e-5)


FORKED = """
import os, sys
import numpy as np
from pathlib import Path
from retrieval.encoders.image import Encoder
from PIL import Image

folder, engine = Path(sys.argv[1]), sys.argv[2]
encoder = Encoder.load(folder, engine=engine)
image = Image.effect_noise((50, 50), 80).convert("RGB")
expected = encoder.embed_images([image])
for path in folder.rglob("*.onnx"):
    path.unlink()  # another artifact has taken its place
child = os.fork()
if not child:
    right = np.allclose(encoder.embed_images([image]), expected, atol=1e-6)
    del encoder
    sys.exit(0 if right else 1)  # in the end, whatever is left is freed
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert np.array_equal(encoder.embed_images([image]), expected)
"""


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_forked_child_embeds_although_the_file_is_gone(saved, engine, tmp_path):
    folder, _ = saved
    python("-c", FORKED, shutil.copytree(folder, tmp_path / "copy"), engine, check=True, timeout=60)


def test_exported_network_is_preferred_and_the_choice_can_be_overruled(saved, monkeypatch):
    folder, _ = saved
    assert Encoder.load(folder).engine.name == "onnx"
    monkeypatch.setenv(ENGINE, "torch")
    assert Encoder.load(folder).engine.name == "torch"
    assert Encoder.load(folder, engine="openvino").engine.name == "openvino"
    with pytest.raises(EncoderError, match=r"no engine 'tensorrt': choose onnx, openvino or torch"):
        Encoder.load(folder, engine="tensorrt")


def test_engine_that_needs_the_exported_network_says_that_there_is_none(tmp_path):
    Encoder.create("test_resnet", pretrained=False, seed=0).save(tmp_path)
    assert Encoder.load(tmp_path).engine.name == "torch"
    for engine in ("onnx", "openvino"):
        with pytest.raises(EncoderError, match=rf"{engine} needs the exported network, and .* has no onnx/model.onnx"):
            Encoder.load(tmp_path, engine=engine)


def test_network_of_an_exported_encoder_can_still_be_had(saved):
    folder, torch_encoder = saved
    model = Encoder.load(folder, engine="onnx").model
    found, expected = model.state_dict(), torch_encoder.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Counting(torch.nn.Module):
    """Gives other features for several pictures than for one, as an export with a constant number of them would."""

    def forward(self, features):
        return features + float(len(features))


def test_network_whose_export_differs_is_served_by_torch(pictures, tmp_path, capsys):
    model = Encoder.create("test_resnet", pretrained=False, seed=0).model
    model.fc = torch.nn.Sequential(torch.nn.Identity(), Counting())
    encoder = Encoder.of(model)
    encoder.use_fastest()
    assert encoder.engine.name == "torch"
    assert "The artifact will need torch: the exported network moves a score by" in capsys.readouterr().err


def test_export_leaves_nothing_where_temporary_files_lie(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = Encoder.create("test_resnet", pretrained=False, seed=0).network
    assert network.exported.stat().st_size > 100_000
    assert not list(tmp_path.rglob("*.onnx*")) and not list(tmp_path.glob("lookalike*"))  # so a kill leaves nothing


FAILS = """
from retrieval.encoders.image import Encoder

assert Encoder.create("test_vit4", pretrained=False, seed=0).network.exported is None
"""


def test_failed_export_is_one_sentence():
    done = python("-c", FAILS, timeout=60)  # a process: torch prints from C++
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch("The artifact will need torch: torch cannot export 'test_vit4': .*rms_norm.*\\n", done.stderr)


def test_built_artifact_states_how_close_its_exported_network_is(pictures, encoder, tmp_path):
    build_artifact(open_source(str(pictures)), tmp_path / "a", encoder)
    artifact = load_artifact(tmp_path / "a")
    assert artifact.encoder.engine.name == "onnx"
    assert 0 <= artifact.manifest["exported"]["largest_difference"] <= 1e-5
    assert artifact.manifest["exported"]["images"] == 16
    again = load_artifact(tmp_path / "a", engine="torch")
    assert again.encoder.engine.name == "torch"
    (tmp_path / "a" / EXPORTED_FILE).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"onnx/model.onnx: size in bytes"):
        load_artifact(tmp_path / "a")
    (tmp_path / "a" / EXPORTED_FILE).unlink()
    with pytest.raises(IntegrityError, match=r"onnx/model.onnx is missing"):
        load_artifact(tmp_path / "a")


def test_export_adds_the_network_to_an_older_artifact_and_nothing_else_changes(copied_artifact, capsys):
    before = {path: path.read_bytes() for path in copied_artifact.rglob("*") if path.is_file()}
    stated = load_artifact(without_exported(copied_artifact)).manifest
    assert load_artifact(copied_artifact).encoder.engine.name == "torch"
    assert main(["export-encoder", str(copied_artifact)]) == 0
    assert "a score differs from torch's by at most" in capsys.readouterr().out
    artifact = load_artifact(copied_artifact)
    assert artifact.encoder.engine.name == "onnx"
    after = {path: path.read_bytes() for path in copied_artifact.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert {path.name for path in after if after[path] != before[path]} <= {"manifest.json", "model.onnx"}
    same = stated.keys() - {"files", "manifest_sha256"}
    assert {name: artifact.manifest[name] for name in same} == {name: stated[name] for name in same}
    assert main(["export-encoder", str(copied_artifact)]) == 0  # it has it already
    assert load_artifact(copied_artifact).manifest == artifact.manifest


@pytest.mark.parametrize("change", ["add", "remove", "evaluate"])
def test_changed_artifact_keeps_its_exported_network(copied_artifact, pictures, tmp_path, change):
    before = (copied_artifact / EXPORTED_FILE).read_bytes()
    if change == "add":
        Image.effect_noise((64, 64), 99).convert("RGB").save(tmp_path / "new.png")
        add_images(copied_artifact, open_source(str(tmp_path), label_level=None))
    elif change == "remove":
        remove_images(copied_artifact, load_artifact(copied_artifact).gallery.ids[:1])
    else:
        update_metrics(copied_artifact, {"note": {"figure": 1}})
    artifact = load_artifact(copied_artifact)
    assert artifact.encoder.engine.name == "onnx"
    assert "exported" in artifact.manifest
    assert (copied_artifact / EXPORTED_FILE).read_bytes() == before
