"""The exported towers of a text model: the vectors of torch without torch, and files from strangers."""

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from text_models import sentence_pieces, write_clip, write_siglip
from transformers.convert_slow_tokenizer import import_protobuf

from retrieval.encoders.text.encoder import TextEncoder
from retrieval.encoders.text.exported import ExportedTowers
from retrieval.errors import EncoderError

TEXTS = [
    "a red shirt",
    "Striped  GREEN trousers!",
    "é日本 🙂",
    "x",
    "a hat " * 500,
    "!?",
    "the </s> end",
    "ＡＢ ½\u3000c",
]

ModelProto = import_protobuf().ModelProto


@pytest.fixture(scope="module", params=[write_clip, write_siglip], ids=["clip", "siglip"])
def encoder(request, tmp_path_factory):
    """A text model, run by torch."""
    folder = tmp_path_factory.mktemp("models") / request.param.__name__.removeprefix("write_")
    return TextEncoder.create(str(request.param(folder)))


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40, 30 + 7 * wide, 3), np.uint8)) for wide in range(11)]


@pytest.fixture(scope="module")
def saved(encoder, images, tmp_path_factory):
    """Its folder, with the exported towers. Read-only: `copied` is there to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "text"
    encoder.save(folder)
    found = encoder.export(folder, images)
    assert found["images"] == 11
    assert 0 < found["largest_difference"] <= 1e-5
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "text"))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_exported_towers_give_the_vectors_of_torch(encoder, saved, images, engine):
    exported = TextEncoder.load(saved, engine=engine)
    assert isinstance(exported.towers, ExportedTowers)
    assert (exported.name, exported.dim, exported.fingerprint) == (encoder.name, encoder.dim, encoder.fingerprint)
    np.testing.assert_allclose(exported.embed_texts(TEXTS), encoder.embed_texts(TEXTS), atol=1e-5)
    np.testing.assert_allclose(exported.embed_images(images), encoder.embed_images(images), atol=1e-5)
    for text in TEXTS:  # alone, each has the length that it needs
        np.testing.assert_allclose(exported.embed_texts([text]), encoder.embed_texts([text]), atol=1e-5)
    by_torch = TextEncoder.load(saved, engine="torch")
    assert by_torch.towers is by_torch.network
    assert by_torch.fingerprint == encoder.fingerprint


def test_loaded_model_can_be_saved_and_exported_again(saved, images, tmp_path):
    loaded = TextEncoder.load(saved)
    loaded.save(tmp_path / "again")
    loaded.export(tmp_path / "again", images[:1])
    assert TextEncoder.load(tmp_path / "again").fingerprint == loaded.fingerprint


def test_model_whose_export_gives_other_vectors_is_not_exported(encoder, images, copied):
    shutil.rmtree(copied / "onnx")
    other = images[0].resize((90, 33))

    class Other(type(encoder.network)):
        def images(self, images):  # a model that also looks at the picture elsewhere
            return super().images([image if image is not other else images[0].rotate(90) for image in images])

    network = Other(encoder.network.model, encoder.network.processor)
    with pytest.raises(EncoderError, match="the exported towers move a score by"):
        TextEncoder(network, "other", lambda: network).export(copied, [*images, other])
    assert not (copied / "onnx").exists()


def test_model_whose_pictures_are_prepared_otherwise_is_served_by_torch(encoder, images, copied):
    shutil.rmtree(copied / "onnx")
    path = copied / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"]["do_normalize"] = False
    path.write_text(json.dumps(settings))
    other = TextEncoder.load(copied)
    with pytest.raises(EncoderError, match="only transformers can prepare its pictures"):
        other.export(copied, images)
    assert np.abs(other.embed_images(images) - encoder.embed_images(images)).max() > 0.01


# Files from strangers


def changed(copied, **reads):
    config = json.loads((copied / "config.json").read_text())
    config["lookalike"]["reads"] |= reads
    (copied / "config.json").write_text(json.dumps(config))


def refused(copied, *words):
    with pytest.raises(EncoderError) as raised:
        TextEncoder.load(copied)
    assert [word for word in ("the text model in the folder text", *words) if word not in str(raised.value)] == []


@pytest.mark.parametrize(
    "reads",
    [
        *({"words": words} for words in (0, -1, 10**9, 1.5, True, "16", None)),
        *({"pad": pad} for pad in (-1, 2**40, "x", None, 1.0)),
        *({"fixed": 1}, {"masked": "no"}, {"pictures": {}}, {"pictures": None}, {"more": 1}),
    ],
    ids=str,
)
def test_reading_that_makes_no_sense_is_refused(copied, reads):
    changed(copied, **reads)
    refused(copied)


def test_pictures_of_another_size_than_the_tower_takes_are_refused(copied):
    reads = json.loads((copied / "config.json").read_text())["lookalike"]["reads"]
    changed(copied, pictures={**reads["pictures"], "input_size": [3, 64, 64]})
    refused(copied, "its inputs must be pixels of shape (N, 3, 64, 64)")


@pytest.mark.parametrize("name", ["text_model.onnx", "vision_model.onnx"])
def test_tower_in_the_place_of_the_other_is_refused(copied, name):
    other = {"text_model.onnx": "vision_model.onnx", "vision_model.onnx": "text_model.onnx"}[name]
    shutil.copyfile(copied / "onnx" / other, copied / "onnx" / name)
    refused(copied, f"{name} is not a network that is exported here")


def test_model_that_is_replaced_before_its_first_picture_gives_its_own_vectors(copied, images):
    expected = TextEncoder.load(copied).embed_images(images[:2])
    loaded = TextEncoder.load(copied)
    (copied / "onnx/vision_model.onnx").rename(copied / "onnx/elsewhere")
    shutil.copyfile(copied / "onnx/text_model.onnx", copied / "onnx/vision_model.onnx")
    np.testing.assert_array_equal(loaded.embed_images(images[:2]), expected)


def tokenizer_of(copied):
    own = copied / "onnx" / "tokenizer.json"
    return own if own.exists() else copied / "tokenizer.json"


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", "\0", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}']
)
def test_tokenizer_that_makes_no_sense_is_refused(copied, content):
    tokenizer_of(copied).write_text(content)
    refused(copied)


def test_tokenizer_that_makes_texts_far_longer_is_refused(copied):
    path = tokenizer_of(copied)
    whole = json.loads(path.read_text())
    grow = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 2_000}
    whole["normalizer"] = {"type": "Sequence", "normalizers": [whole["normalizer"], grow]}
    path.write_text(json.dumps(whole))
    refused(copied, "its tokenizer makes texts ", "000 times as long")


def test_character_that_becomes_very_many_is_refused(copied, tmp_path):
    (tmp_path / "rules.tsv").write_text("7A\t" + " ".join(["61"] * 4_000) + "\n")  # z becomes 4,000 times a
    pieces = sentence_pieces(normalization_rule_tsv=str(tmp_path / "rules.tsv"))
    path = tokenizer_of(copied)
    whole = json.loads(path.read_text())
    table = ModelProto()
    table.ParseFromString(pieces)
    content = base64.b64encode(table.normalizer_spec.precompiled_charsmap).decode()
    precompiled = {"type": "Precompiled", "precompiled_charsmap": content}
    whole["normalizer"] = {"type": "Sequence", "normalizers": [whole["normalizer"], precompiled]}
    path.write_text(json.dumps(whole))
    refused(copied, "its tokenizer makes texts ", "000 times as long")
    if (copied / "spiece.model").exists():  # torch reads that one
        (copied / "spiece.model").write_bytes(pieces)
        with pytest.raises(EncoderError, match="makes texts 4,000 times as long"):
            TextEncoder.load(copied, engine="torch")


def test_text_that_a_tokenizer_cannot_read_is_an_error(copied):
    path = tokenizer_of(copied)
    whole = json.loads(path.read_text())
    whole["pre_tokenizer"] = {"type": "Whitespace"}
    whole["model"] = {"type": "WordLevel", "vocab": {"size": 0, "red": 1}, "unk_token": "[UNK]"}
    whole["post_processor"] = whole["added_tokens"] = None
    path.write_text(json.dumps({name: part for name, part in whole.items() if part is not None}))
    loaded = TextEncoder.load(copied)
    assert loaded.embed_texts(["red size"]).shape == (1, loaded.dim)
    with pytest.raises(EncoderError, match="its tokenizer cannot be used"):
        loaded.embed_texts(["xylophone"])


def test_token_that_the_model_does_not_know_is_an_error(copied):
    path = tokenizer_of(copied)
    whole = json.loads(path.read_text())
    if whole["model"]["type"] == "BPE":
        whole["model"]["vocab"]["x</w>"] = 10**6
    else:  # a token's number is its place
        whole["model"]["vocab"] += [[f"x{number}", -99.0] for number in range(50)] + [["▁x", 0.0]]
    path.write_text(json.dumps(whole))
    loaded = TextEncoder.load(copied)
    with pytest.raises(EncoderError, match="cannot embed"):
        loaded.embed_texts(["x"])
    assert loaded.embed_texts(["a hat"]).shape == (1, loaded.dim)
