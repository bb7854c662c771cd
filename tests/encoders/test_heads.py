"""Nonlinear heads: the layers that a spec such as 512-relu-256 builds, and saving and loading encoders with them."""

import json

import numpy as np
import pytest
import torch
from conftest import tiny_recipe
from torch.nn import BatchNorm1d, Dropout, Linear, ReLU

from retrieval.encoders.files import CONFIG_FILE, WEIGHTS_FILE
from retrieval.encoders.image import Encoder
from retrieval.encoders.network.heads import Head
from retrieval.errors import EncoderError, LookalikeError
from retrieval.images.open import open_image
from training.model.learner import starting_encoder

FAMILIES = ["test_efficientnet", "resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"]
WORD = "24-bn-relu-dropout0.5-8"


@pytest.fixture(scope="module")
def images(pictures):
    return [open_image(path) for path in sorted(pictures.rglob("*.png"))[::8]]


def layers(head):
    shapes = {Linear: lambda each: (each.in_features, each.out_features), Dropout: lambda each: each.p}
    shapes[BatchNorm1d] = lambda each: each.num_features
    return [(type(each), shapes.get(type(each), lambda _: None)(each)) for each in head]


@pytest.mark.parametrize(
    ("word", "made"),
    [
        ("128", [(Linear, (40, 128))]),
        ("512-relu-256", [(Linear, (40, 512)), (ReLU, None), (Linear, (512, 256))]),
        (
            "512-bn-relu-dropout0.5-128",
            [(Linear, (40, 512)), (BatchNorm1d, 512), (ReLU, None), (Dropout, 0.5), (Linear, (512, 128))],
        ),
        ("bn-dropout.25-8", [(BatchNorm1d, 40), (Dropout, 0.25), (Linear, (40, 8))]),
    ],
)
def test_head_spec_builds_the_expected_layers(word, made):
    head = Head(word, 40)
    assert layers(head) == made
    assert (head.spec, head.dim) == (word, made[-1][1][1])
    assert head.eval()(torch.zeros(3, 40)).shape == (3, head.dim)


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ("512-gelu-256", "'gelu' is not a width, bn, relu or a dropout such as dropout0.5"),
        ("linear-256", "'linear' is not a width"),
        ("512--256", "'' is not a width"),
        ("-512", "'' is not a width"),
        ("", "'' is not a width"),
        ("0-relu-5", "'0' is not a width"),
        ("512-RELU-256", "'RELU' is not a width"),
        ("512-dropout-256", "'dropout' is not a width"),
        ("512-dropout1.5-256", "'dropout1.5' is not a width"),
        ("512-bn1-256", "'bn1' is not a width"),
        ("1000000", "'1000000' is not a width"),
        (" 512", "' 512' is not a width"),
        ("512-relu", "the last layer must be a width, as in 512-relu-256"),
        ("bn", "the last layer must be a width"),
        ("512-dropout0.5", "the last layer must be a width"),
    ],
)
def test_invalid_head_spec_is_refused(word, wrong):
    with pytest.raises(EncoderError, match="is not a valid head") as raised:
        Head(word, 40)
    assert wrong in str(raised.value)
    assert repr(word) in str(raised.value)


@pytest.mark.parametrize("word", ["512-gelu-256", "linear", "linear-x", "pca-0", "linear-0"])
def test_recipe_with_an_invalid_head_is_refused(word):
    with pytest.raises(LookalikeError, match=word):
        starting_encoder(tiny_recipe(head=word))


@pytest.mark.parametrize("backbone", FAMILIES)
def test_encoder_with_a_nonlinear_head_loads_unchanged(backbone, images, tmp_path):
    encoder = Encoder.create(backbone, pretrained=False, head=WORD, seed=0)
    network = encoder.model
    with torch.no_grad():  # change the batch norm statistics from their initial values
        network.train()(torch.stack([torch.from_numpy(encoder.preprocess(image)) for image in images]))
    encoder = Encoder.of(network)
    assert encoder.dim == 8
    encoder.save(tmp_path)
    assert json.loads((tmp_path / CONFIG_FILE).read_text())["lookalike"] == {"head": WORD}
    loaded = Encoder.load(tmp_path)
    assert loaded.fingerprint == encoder.fingerprint
    vectors = encoder.embed_images(images)
    assert np.array_equal(loaded.embed_images(images), vectors)
    again = tmp_path / "again"
    again.mkdir()
    loaded.save(again)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()

    with torch.inference_mode():  # the head computes what the spec says, from the pooled features
        inputs = torch.stack([torch.from_numpy(encoder.preprocess(image)) for image in images])
        pooled = network.forward_head(network.forward_features(inputs), pre_logits=True).numpy()
    weights = {name: value.detach().numpy() for name, value in network.get_classifier().state_dict().items()}
    hidden = pooled @ weights["0.weight"].T + weights["0.bias"]
    hidden = (hidden - weights["1.running_mean"]) / np.sqrt(weights["1.running_var"] + 1e-5)
    hidden = np.maximum(hidden * weights["1.weight"] + weights["1.bias"], 0)
    expected = hidden @ weights["4.weight"].T + weights["4.bias"]
    assert np.allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-4)


def test_linear_head_is_not_recorded_in_the_config(encoder, tmp_path):
    encoder.save(tmp_path)
    assert "lookalike" not in json.loads((tmp_path / CONFIG_FILE).read_text())


def test_fingerprint_depends_on_the_head():
    words = ["8", "8-relu-8", "8-bn-8", "8-dropout0.5-8", "8-dropout0.25-8"]
    encoders = [Encoder.create("test_efficientnet", pretrained=False, head=word, seed=0) for word in words]
    assert len({each.fingerprint for each in encoders}) == len(words)
    same = Encoder.create("test_efficientnet", pretrained=False, head=words[1], seed=0)
    assert same.fingerprint == encoders[1].fingerprint


@pytest.mark.parametrize("spoil", ["512-gelu-8", "8-relu-8", 5, ["8"]])
def test_config_with_another_head_is_refused(spoil, tmp_path):
    Encoder.create("test_efficientnet", pretrained=False, head="8-bn-8", seed=0).save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    config["lookalike"]["head"] = spoil
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(EncoderError, match=r"config\.json does not describe|are not for 'test_efficientnet'"):
        Encoder.load(tmp_path)


def test_network_without_a_single_classifier_is_refused():
    with pytest.raises(
        EncoderError, match="'deit_tiny_distilled_patch16_224' cannot be replaced: it needs exactly one classifier"
    ):
        Encoder.create("deit_tiny_distilled_patch16_224", pretrained=False, head="8-relu-8")
