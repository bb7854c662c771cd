"""Devices: where a network computes, what is refused, and how a build feeds a GPU. Most of it needs no GPU."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.__main__ import main
from retrieval.artifact.load import load_artifact
from retrieval.build import embed
from retrieval.build.build import build_artifact
from retrieval.commands.serve import STARTER
from retrieval.encoders.engines.choose import ENGINE
from retrieval.encoders.engines.device import DEVICE, build_batch
from retrieval.encoders.engines.torch import TorchEngine
from retrieval.encoders.image import Encoder
from retrieval.errors import EncoderError
from retrieval.sources.open import open_source

SEEN = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
MISSING = [
    pytest.param(name, marks=pytest.mark.skipif(there, reason=f"{name} is here")) for name, there in SEEN.items()
]
SIDE = 160  # of the input of test_resnet


@pytest.fixture(scope="module")
def model():
    return Encoder.create("test_resnet", pretrained=False, seed=0).model


def pixels(count):
    return np.random.default_rng(count).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize("name", MISSING)
def test_device_that_is_not_there_is_refused_with_those_that_are(name, monkeypatch):
    monkeypatch.setenv(DEVICE, name)
    words = rf"torch [\d.]+\S* sees no device {name} here, only cpu\b.*: leave out the device, or install the driver"
    with pytest.raises(EncoderError, match=words):
        Encoder.create("test_resnet", pretrained=False, seed=0)
    with pytest.raises(EncoderError, match=words):
        Encoder.load(STARTER)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_engine_for_the_processor_cannot_be_asked_for_a_gpu(engine, monkeypatch):
    monkeypatch.setenv(DEVICE, "cuda")
    with pytest.raises(EncoderError, match=f"{engine} runs on the processor, not on cuda: leave out the engine or the"):
        Encoder.load(STARTER, engine=engine)


def test_unknown_device_is_refused(monkeypatch):
    monkeypatch.setenv(DEVICE, "tpu")
    with pytest.raises(EncoderError, match="there is no device 'tpu': choose auto, cpu, cuda or mps"):
        Encoder.load(STARTER)


def test_gpu_without_torch_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    assert Encoder.load(STARTER).engine.name == "onnx"
    monkeypatch.setenv(DEVICE, "cuda")
    with pytest.raises(EncoderError, match=r"device cuda needs torch, which is not installed: pip install .*build"):
        Encoder.load(STARTER)


def test_processor_is_used_although_there_may_be_a_gpu(monkeypatch):
    monkeypatch.setenv(DEVICE, "cpu")
    assert Encoder.load(STARTER).engine.name == "onnx"
    engine = Encoder.load(STARTER, engine="torch").engine
    assert (engine.name, engine.device) == ("torch", "cpu")


def test_command_line_names_the_device_that_is_missing(capsys, monkeypatch):
    monkeypatch.setenv(DEVICE, "auto")  # the option sets it: restored after the test
    assert main(["verify", str(STARTER), "--device", "cpu"]) == 0
    monkeypatch.setenv(ENGINE, "onnx")
    assert main(["verify", str(STARTER), "--device", "cuda"]) == 1
    assert "onnx runs on the processor, not on cuda" in capsys.readouterr().err


def test_copy_of_the_network_computes_and_the_network_stays(model):
    engine = TorchEngine(model, torch.device("meta"))  # has shapes and no values, and refuses tensors of another device
    found = engine.forward(pixels(3))
    assert (found.device.type, found.shape, found.dtype) == ("meta", (3, engine.dim), torch.float32)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}
    assert engine.model is model


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
def test_forked_child_computes_on_the_processor(model):
    engine = TorchEngine(model, torch.device("meta"))
    if not (child := os.fork()):
        os._exit(0 if engine.device == "cpu" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert engine.device == "meta"


class Small(torch.nn.Module):
    """Runs out of memory for more than so many pictures, as a GPU does."""

    def __init__(self, most):
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, features):
        if len(features) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.sizes.append(len(features))
        return features


def test_batch_that_is_too_large_for_the_memory_is_halved():
    model = Encoder.create("test_resnet", pretrained=False, seed=0).model
    some, expected = pixels(7), TorchEngine(model).embed(pixels(7))
    model.fc = Small(2)
    engine = TorchEngine(model)
    engine.dim = expected.shape[1]
    assert np.allclose(engine.embed(some), expected, atol=1e-5)
    assert model.fc.sizes == [1, 2, 2, 2]
    model.fc.most = 0
    with pytest.raises(EncoderError, match=r"too little memory for this network: CUDA out of memory.*; choose the"):
        engine.embed(some)


def test_gpu_would_compute_in_full_float32(model):
    """Convolutions, and with this setting of the program's also products of matrices, would round to 10 bits."""
    settings = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    torch.set_float32_matmul_precision("high")
    try:
        seen, before = [], [setting.fp32_precision for setting in settings]
        hook = model.register_forward_pre_hook(lambda *_: seen.extend(setting.fp32_precision for setting in settings))
        TorchEngine(model, torch.device("meta")).forward(pixels(1))
        hook.remove()
        assert seen == ["ieee", "ieee"]
        assert [setting.fp32_precision for setting in settings] == before
        assert "ieee" not in before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_batches_of_a_build_fit_the_device_and_divide_a_shard():
    assert [build_batch("cpu", side) for side in (32, 224, 518)] == [4, 4, 4]
    assert [build_batch("cuda", side) for side in (32, 224, 384, 518, 4000)] == [256, 128, 32, 16, 16]
    assert {embed.SHARD % build_batch("cuda", side) for side in range(32, 600)} == {0}


class Card(TorchEngine):
    """Computes on the processor, and is fed like a GPU."""

    device = "cuda"

    def __init__(self, model):
        super().__init__(model, torch.device("cpu"))
        self.sizes = []

    @torch.inference_mode()
    def embed(self, some):
        self.sizes.append(len(some))
        return self.model(torch.from_numpy(some)).numpy()


def test_build_gives_a_gpu_large_batches(model, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(37):
        noise = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        noise.save(tmp_path / "pictures" / f"{number:02}.png")
    monkeypatch.setattr(embed, "build_batch", lambda *_: 16)
    network = Encoder.of(model).network
    encoder = Encoder(network.about, Card(model), lambda: network)
    encoder.use_fastest = lambda: None
    build_artifact(open_source(str(tmp_path / "pictures")), tmp_path / "a", encoder)
    assert encoder.engine.sizes[:3] == [16, 16, 16]  # the last one is filled up, so that all are computed alike
    opened = load_artifact(tmp_path / "a")
    stored = opened.store.vectors(np.arange(37))
    images = [Image.open(tmp_path / "pictures" / name) for name in opened.gallery.table["source"].to_pylist()]
    assert np.allclose(stored, Encoder.of(model).embed_images(images), atol=1e-5)
    assert len(opened.gallery) == 37


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "mobilenetv2_035"])
def test_gpu_gives_the_vectors_of_the_processor(backbone):
    model = Encoder.create(backbone, pretrained=False, seed=0).model
    side = Encoder.of(model).data_config["input_size"][1]
    some = np.random.default_rng(0).standard_normal((5, 3, side, side)).astype(np.float32)
    one, other = (TorchEngine(model, torch.device(name)).embed(some) for name in ("cpu", "cuda"))
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, other)]
    assert np.allclose(one / lengths[0], other / lengths[1], atol=1e-5)
