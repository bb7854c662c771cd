"""Encoder: real timm networks, tiny ones with random weights and MobileNetV2 with pretrained weights."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from conftest import DATA, needs_data, python
from PIL import Image
from safetensors.torch import load_file, save_file
from together import answered_together

from retrieval.encoders.engines.base import most_at_once
from retrieval.encoders.files import CONFIG_FILE, WEIGHTS_FILE
from retrieval.encoders.image import Encoder
from retrieval.errors import EmbeddingError, EncoderError
from retrieval.images.open import open_image

MOBILENET = DATA / "weights" / "mobilenetv2_100.imagenet.safetensors"


@pytest.fixture(scope="module")
def images(pictures):
    return [open_image(path) for path in sorted(pictures.rglob("*.[jp][pn]g"))[:6]]


def tiny(backbone="test_resnet", **options):
    return Encoder.create(backbone, pretrained=False, **{"seed": 0, **options})


def test_embeddings_have_unit_length(encoder, images):
    vectors = encoder.embed_images(images)
    assert vectors.shape == (6, encoder.dim) == (6, 16)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert len(np.unique(vectors.round(6), axis=0)) == 6  # different images have different embeddings
    assert encoder.embed_images([]).shape == (0, 16)


def test_batch_gives_the_same_embeddings_as_single_images(encoder, images):
    one_by_one = np.concatenate([encoder.embed_images([image]) for image in images])
    assert np.allclose(encoder.embed_images(images), one_by_one, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "size", "dim"),
    [
        ("test_resnet", 0, 96),
        ("test_resnet", 16, 16),
        ("test_efficientnet", 0, 256),
        ("test_vit", 0, 64),
        ("mobilenetv3_small_050", 0, 1024),  # widened after pooling: num_features is 288
    ],
)
def test_dim_matches_the_width_of_the_embeddings(images, backbone, size, dim):
    encoder = tiny(backbone, embedding_size=size)
    assert encoder.dim == dim
    assert encoder.embed_images(images[:2]).shape == (2, dim)


def test_embedding_head_is_linear_on_the_pooled_features(images):
    """The same seed gives the same backbone, so the output of the head can be computed from the headless encoder."""
    with_head = tiny(embedding_size=16)
    head = with_head.model.get_classifier()
    with torch.inference_mode():
        features = with_head.model.forward_features(
            torch.stack([torch.from_numpy(with_head.preprocess(image)) for image in images])
        )
        expected = (features.mean(dim=(2, 3)) @ head.weight.T + head.bias).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(with_head.embed_images(images), expected, atol=1e-5)


def test_preprocessing_follows_the_model_except_for_the_crop():
    own = timm.get_pretrained_cfg("test_resnet").to_dict()
    center, squash = tiny(crop_mode="center"), tiny()
    for encoder in (center, squash):
        assert encoder.data_config["input_size"] == tuple(own["input_size"])
        assert encoder.data_config["mean"] == tuple(own["mean"])
        assert encoder.data_config["std"] == tuple(own["std"])
        assert encoder.data_config["interpolation"] == own["interpolation"]
    assert center.data_config["crop_pct"] == own["crop_pct"] < 1
    assert (squash.data_config["crop_mode"], squash.data_config["crop_pct"]) == ("squash", 1.0)


@pytest.mark.parametrize("loaded", [False, True])
def test_squash_keeps_the_edges_and_center_crops_them(tmp_path, loaded):
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("lime", (100, 0, 200, 100))
    for mode, sees_red in (("squash", True), ("center", False)):
        encoder = tiny(crop_mode=mode)
        if loaded:
            encoder.save(tmp_path)
            encoder = Encoder.load(tmp_path)
        red, green, _ = torch.from_numpy(encoder.preprocess(wide)).unbind()
        assert bool((red > green).any()) is sees_red
        assert bool((green > red).any())


def test_saved_encoder_loads_unchanged(tmp_path, encoder, images):
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.fingerprint == encoder.fingerprint
    assert (loaded.name, loaded.dim) == (encoder.name, encoder.dim)
    assert json.dumps(loaded.data_config) == json.dumps(encoder.data_config)
    assert np.allclose(loaded.embed_images(images), encoder.embed_images(images), atol=1e-5)  # perhaps by two engines
    second = tmp_path / "again"
    second.mkdir()
    loaded.save(second)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (second / name).read_bytes() == (tmp_path / name).read_bytes()


def test_transformers_loads_a_saved_encoder(tmp_path, encoder, images):
    transformers = pytest.importorskip("transformers")
    encoder.save(tmp_path)
    assert "num_classes" not in json.loads((tmp_path / CONFIG_FILE).read_text())["model_args"]
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        answer = model(torch.stack([torch.from_numpy(encoder.preprocess(image)) for image in images]))
    found = answer.logits.numpy()  # transformers calls the output of the last layer logits
    assert np.allclose(found / np.linalg.norm(found, axis=1, keepdims=True), encoder.embed_images(images), atol=1e-5)


def test_fingerprint_depends_on_weights_and_preprocessing(tmp_path):
    first, same = tiny(), tiny()
    assert first.fingerprint == same.fingerprint
    others = [tiny(seed=1), tiny(crop_mode="center"), tiny(embedding_size=16), tiny("test_byobnet")]
    first.save(tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    config["pretrained_cfg"]["mean"] = [0.5, 0.5, 0.51]
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    others.append(Encoder.load(tmp_path))
    with torch.no_grad():  # change one weight by the smallest possible step
        weight = next(each for each in same.model.parameters() if each.ndim == 1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    others.append(Encoder.of(same.model))
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_seed_gives_the_same_weights_in_every_process():
    code = "from retrieval import Encoder; print(Encoder.create('test_resnet', pretrained=False, seed=0).fingerprint)"
    done = python("-c", code, check=True)
    assert done.stdout.strip() == tiny().fingerprint
    torch.manual_seed(7)
    before = torch.get_rng_state()
    tiny()
    assert torch.equal(torch.get_rng_state(), before)  # torch's global generator is unchanged
    drawn = {tiny(seed=None).fingerprint for _ in range(2)}
    assert len(drawn) == 2


def test_unknown_backbone_is_an_error_that_suggests_similar_names():
    with pytest.raises(EncoderError, match=r"no model 'resnet5O'; did you mean .*resnet50"):
        Encoder.create("resnet5O")
    with pytest.raises(EncoderError, match=r"no model '0'; `timm\.list_models\(\)` lists all of them"):
        Encoder.create("0")


def test_unavailable_hub_weights_are_an_error_that_suggests_a_file():
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(EncoderError, match="the Hub weights of 'resnet18' could not be downloaded") as raised:
        Encoder.create("resnet18")
    assert "--weights FILE" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_are_read_from_a_file_without_its_head(tmp_path, images):
    first = tiny(embedding_size=16)
    first.save(tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    body = Encoder.create("test_resnet", weights=weights, seed=1)  # the head in the file is not used
    assert body.dim == 96
    assert torch.equal(body.model.conv1[0].weight, first.model.conv1[0].weight)
    assert Encoder.create("test_resnet", weights=weights, seed=1).fingerprint == body.fingerprint
    other_head = Encoder.create("test_resnet", weights=weights, embedding_size=16, seed=1)
    assert torch.equal(other_head.model.conv1[0].weight, first.model.conv1[0].weight)
    assert other_head.fingerprint != first.fingerprint


def test_weights_of_another_model_are_refused_with_both_shapes(tmp_path):
    tiny().save(tmp_path)
    state = load_file(tmp_path / WEIGHTS_FILE)
    name, tensor = sorted(state.items())[0]
    save_file({**state, name: tensor.reshape(-1, 1)}, tmp_path / "shape.safetensors")
    save_file({**state, "aaa": tensor.clone()}, tmp_path / "more.safetensors")
    save_file({other: value for other, value in state.items() if other != name}, tmp_path / "fewer.safetensors")
    shape = str(tuple(tensor.shape))
    for file, tensor_name, wants, has in [
        ("shape", name, shape, str((tensor.numel(), 1))),
        ("more", "aaa", "none", shape),
        ("fewer", name, shape, "none"),
    ]:
        with pytest.raises(EncoderError) as raised:
            Encoder.create("test_resnet", weights=tmp_path / f"{file}.safetensors")
        words = f"1 tensors do not fit, the first is {tensor_name!r}: the model needs {wants}, the file has {has}."
        assert str(raised.value).endswith(words)
        assert f"{file}.safetensors are not for 'test_resnet'" in str(raised.value)
    with pytest.raises(EncoderError, match="not for 'test_vit'"):
        Encoder.create("test_vit", weights=tmp_path / WEIGHTS_FILE)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors", b"\x80\x04pickle", b"\xff" * 64])
def test_file_that_is_not_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"weights\.safetensors is not a readable safetensors file: \S"):
        Encoder.create("test_resnet", weights=path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: "[]",
        lambda config: "{",
        lambda config: json.dumps({**config, "architecture": "no_such_model"}),
        lambda config: json.dumps({**config, "architecture": "hf-hub:somebody/something"}),
        lambda config: json.dumps({**config, "model_args": {"no_such_argument": 1}}),
        lambda config: json.dumps({name: value for name, value in config.items() if name != "pretrained_cfg"}),
    ],
)
def test_invalid_config_is_refused(tmp_path, spoil):
    tiny().save(tmp_path)
    path = tmp_path / CONFIG_FILE
    path.write_text(spoil(json.loads(path.read_text())))
    with pytest.raises(EncoderError, match=r"config\.json does not describe a timm model"):
        Encoder.load(tmp_path)


@needs_data
def test_pretrained_mobilenet_has_a_higher_hit_at_1_than_random_weights():
    table = pq.read_table(DATA / "caltech101" / "validation.parquet", columns=["image", "label"])
    label = table["label"].to_numpy()
    rows = np.concatenate([np.flatnonzero(label == kind)[:3] for kind in range(5, 102, 8)])
    pictures = [open_image(row["bytes"]) for row in table["image"].take(rows).to_pylist()]

    def hit_at_1(encoder):
        vectors = encoder.embed_images(pictures)
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -1)
        return float((label[rows][scores.argmax(axis=1)] == label[rows]).mean())

    encoder = Encoder.create("mobilenetv2_100", weights=MOBILENET)
    assert (encoder.dim, encoder.data_config["input_size"]) == (1280, (3, 224, 224))
    assert encoder.data_config["mean"] == (0.485, 0.456, 0.406)
    assert hit_at_1(encoder) > hit_at_1(tiny("mobilenetv2_100")) + 0.3


def test_config_cannot_make_timm_read_other_files(encoder, tmp_path):
    encoder.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"] = {**config.get("model_args", {}), "checkpoint_path": "/etc/passwd"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="checkpoint_path"):
        Encoder.load(tmp_path)


# Networks and outputs that are refused


@pytest.fixture
def tokens():
    """The name of a timm network that returns its tokens without pooling them."""

    def test_vit_tokens(**options):
        return timm.create_model("test_vit", global_pool="", **options)

    timm.models.register_model(test_vit_tokens)
    return "test_vit_tokens"


def test_network_without_pooling_is_refused(tokens):
    with pytest.raises(EncoderError, match=r"'test_vit' returns an array of shape \(1, 101, 64\), but \(1, 64\) was"):
        Encoder.create(tokens, pretrained=False)
    with pytest.raises(EncoderError, match=r"not pooled\. Choose another model"):
        Encoder.create(tokens, pretrained=False, embedding_size=8)


def test_network_that_fails_on_an_image_is_refused():
    timm.models.register_model(test_vit_broken)
    with pytest.raises(EncoderError, match="'test_vit' cannot embed a picture: "):
        Encoder.create("test_vit_broken", pretrained=False)


def test_vit_broken(**options):
    model = timm.create_model("test_vit", **options)
    model.blocks[0].mlp.fc2 = torch.nn.Linear(5, 64)
    return model


test_vit_broken.__test__ = False  # a network, not a test


@pytest.fixture(scope="module")
def blind_to_black():
    """An encoder without biases that normalises black to zero, so a black image gives a zero embedding."""
    model = tiny().model
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0, 0, 0), "std": (1, 1, 1)}
    return Encoder.of(model)


def test_zero_embedding_is_an_error_that_names_the_rows(images, blind_to_black):
    black = Image.new("RGB", (64, 64))
    assert blind_to_black.embed_images(images).shape == (6, 96)
    with pytest.raises(
        EmbeddingError, match="'test_resnet' cannot embed this picture or text: the embedding has length 0, too"
    ) as no:
        blind_to_black.embed_images([images[0], black, images[1], black])
    assert no.value.rows == (1, 3)


def test_embedding_of_almost_zero_length_is_an_error(images):
    encoder = tiny(embedding_size=4)
    with torch.no_grad():
        encoder.model.get_classifier().weight.mul_(1e-12)
        encoder.model.get_classifier().bias.zero_()
    with pytest.raises(EmbeddingError, match="too short to have a direction"):
        encoder.embed_images(images[:1])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e30])
def test_embedding_that_is_not_finite_is_an_error(images, number):
    encoder = tiny(embedding_size=4)
    with torch.no_grad():
        encoder.model.get_classifier().weight.fill_(number)
        encoder.model.get_classifier().bias.fill_(number)
    with pytest.raises(EncoderError, match="not finite"):
        encoder.embed_images(images[:1])


# Queries that come together


@pytest.fixture
def batches():
    """The encoder's batches as they reach its network, as (encoder, sizes)."""
    encoder = tiny(embedding_size=16)
    sizes = []
    encoder.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return encoder, sizes


def together(encoder, pictures):
    return answered_together(encoder._thread, encoder._queries, lambda one: encoder.embed_images([one]), pictures)


def test_queries_of_16_threads_share_forward_passes_and_get_the_vectors_of_queries_alone(batches, images):
    encoder, sizes = batches
    queries = [image.rotate(90 * turn) for turn in range(3) for image in images][:16]
    alone = [encoder.embed_images([query]) for query in queries]
    assert sizes == [1] * 16
    np.testing.assert_allclose(together(encoder, queries), alone, atol=1e-6)
    assert sizes[16:] == [7, 7, 2]


def test_query_without_a_direction_does_not_affect_those_that_came_with_it(images, blind_to_black):
    first, black, last = together(blind_to_black, [images[0], Image.new("RGB", (64, 64)), images[1]])
    assert isinstance(black, EmbeddingError)
    assert black.rows == (0,)
    np.testing.assert_allclose([first, last], [blind_to_black.embed_images([one]) for one in images[:2]], atol=1e-6)


def test_batch_that_the_network_cannot_take_is_computed_one_by_one(batches, images):
    encoder, sizes = batches

    def refuse(_, inputs):
        if len(inputs[0]) > 1:
            raise RuntimeError("not enough memory: you tried to allocate 123 bytes.")

    encoder.model.register_forward_pre_hook(refuse)
    alone = [encoder.embed_images([image]) for image in images]
    np.testing.assert_array_equal(together(encoder, images), alone)
    assert sizes == [1] * 6 + [6] + [1] * 6


def test_networks_of_large_pictures_take_fewer_queries_at_once():
    assert [most_at_once((3, side, side), 4 * 224 * 224) for side in (64, 112, 224, 448, 2048)] == [16, 16, 4, 1, 1]
