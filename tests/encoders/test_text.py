"""The text encoder: its embeddings match those of plain `transformers`, and unsuitable models are refused."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import contents
from PIL import Image
from safetensors.torch import load_file, save_file
from text_models import WORDS, sentence_pieces, write_clip, write_siglip
from together import answered_together
from transformers import AutoModel, AutoProcessor, BertConfig

from retrieval.encoders.text.encoder import TextEncoder
from retrieval.encoders.text.network.model import Network
from retrieval.errors import EmbeddingError, EncoderError, QueryError

TEXTS = ["a red shirt", "Striped  GREEN trousers!", "é日本 🙂", "x"]


@pytest.fixture(scope="module", params=[write_clip, write_siglip], ids=["clip", "siglip"])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("models") / request.param.__name__.removeprefix("write_"))


@pytest.fixture(scope="module")
def encoder(folder):
    return TextEncoder.create(str(folder))


@pytest.fixture
def copied(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def drawn(count):
    # Of sizes that leave an even number of pixels to cut off: transformers rounds half a pixel otherwise than CLIP did.
    pixels = (np.random.default_rng(seed).integers(0, 256, (64, 64 + 8 * seed, 3), np.uint8) for seed in range(count))
    return [Image.fromarray(each) for each in pixels]


def plainly(folder, **inputs):
    """Embeddings of texts or images, computed with the processor and the model of `transformers`."""
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder, backend="pil")
    if "text" in inputs:
        inputs |= {"padding": "max_length", "max_length": WORDS, "truncation": True}
    with torch.no_grad():
        answer = model(**_both(processor, **inputs))
    return (answer.text_embeds if "text" in inputs else answer.image_embeds).numpy()


def _both(processor, text=("a",), images=None, **options):
    options = options or {"padding": "max_length", "max_length": WORDS}
    return processor(text=list(text), images=images or drawn(1), return_tensors="pt", **options)


def test_text_embeddings_match_transformers(folder, encoder):
    vectors = encoder.embed_texts(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (4, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, plainly(folder, text=TEXTS), atol=1e-5)
    assert len(np.unique(vectors.round(4), axis=0)) == 4


def test_image_embeddings_match_transformers(folder, encoder):
    images = drawn(11)  # more than one batch
    vectors = encoder.embed_images(images)
    assert vectors.dtype == np.float32
    assert vectors.shape == (11, encoder.dim)
    np.testing.assert_allclose(vectors, plainly(folder, images=images), atol=1e-5)
    np.testing.assert_allclose(encoder.embed_images(images[3:4])[0], vectors[3], atol=1e-5)


def test_empty_list_gives_an_empty_array(encoder):
    assert encoder.embed_texts([]).shape == encoder.embed_images([]).shape == (0, encoder.dim)


def test_long_text_is_truncated_to_the_model_limit(encoder):
    long = "a red shirt " * 2_000
    np.testing.assert_allclose(encoder.embed_texts([long, "x"])[0], encoder.embed_texts([long[:600]])[0], atol=1e-5)
    np.testing.assert_allclose(
        encoder.embed_texts(["  a red shirt\n"]), encoder.embed_texts(["a red shirt"]), atol=1e-6
    )


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_refused(encoder, text):
    with pytest.raises(QueryError, match="the text to search for is empty"):
        encoder.embed_texts(["a shirt", text])


@pytest.mark.parametrize("text", ["\ud800", "shirt \udfff\ud800", "\0", "\u202e"])
def test_odd_characters_can_be_embedded(encoder, text):
    assert np.isfinite(encoder.embed_texts([text])).all()


def test_several_threads_give_the_same_embeddings(encoder):
    texts = [f"a {colour} hat {number}" for number in range(10) for colour in ("red", "blue " * 9)]
    alone = [encoder.embed_texts([text]) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: encoder.embed_texts([text]), texts))
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_queries_that_come_together_get_the_vectors_of_queries_alone(encoder):
    texts = ["hat", "a red hat " * 20, "\udfff", "two shoes and a bag"]
    found = answered_together(encoder._thread, encoder._text_queries, lambda one: encoder.embed_texts([one]), texts)
    np.testing.assert_allclose(found, [encoder.embed_texts([text]) for text in texts], atol=1e-6)
    pictures = drawn(5)
    found = answered_together(
        encoder._thread, encoder._image_queries, lambda one: encoder.embed_images([one]), pictures
    )
    np.testing.assert_allclose(found, [encoder.embed_images([one]) for one in pictures], atol=1e-6)


# Saving and loading


def test_saved_text_encoder_loads_unchanged(folder, encoder, tmp_path):
    encoder.embed_texts(["what is left behind in a tokenizer is not part of it"])
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text")
    assert (loaded.name, loaded.dim) == (encoder.name, encoder.dim) == (folder.name, encoder.dim)
    assert loaded.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(loaded.embed_texts(TEXTS), encoder.embed_texts(TEXTS))
    np.testing.assert_array_equal(loaded.embed_images(drawn(2)), encoder.embed_images(drawn(2)))
    loaded.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "text")
    assert str(folder) not in (tmp_path / "text" / "config.json").read_text()
    np.testing.assert_allclose(plainly(tmp_path / "text", text=TEXTS), encoder.embed_texts(TEXTS), atol=1e-5)


def changed_weights(folder):
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("layer_norm1.weight"))
    save_file({**state, name: state[name] * 1.01}, folder / "model.safetensors", metadata={"format": "pt"})


def changed_preprocessing(folder):
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"]["image_mean"] = [0.4, 0.4, 0.4]
    path.write_text(json.dumps(settings))


def changed_tokenizer(folder):
    if (folder / "tokenizer.json").exists():
        whole = json.loads((folder / "tokenizer.json").read_text())
        vocab = whole["model"]["vocab"]
        first, second = sorted(vocab, key=vocab.get)[-2:]
        vocab[first], vocab[second] = vocab[second], vocab[first]
        (folder / "tokenizer.json").write_text(json.dumps(whole))
    else:
        (folder / "spiece.model").write_bytes(sentence_pieces("a quick zebra jumps"))


@pytest.mark.parametrize("change", [changed_weights, changed_preprocessing, changed_tokenizer])
def test_fingerprint_depends_on_weights_preprocessing_and_tokenizer(copied, encoder, change):
    assert TextEncoder.create(str(copied)).fingerprint == encoder.fingerprint
    change(copied)
    assert TextEncoder.create(str(copied)).fingerprint != encoder.fingerprint


# Models that are refused


def refused(where, *words):
    with pytest.raises(EncoderError) as raised:
        TextEncoder.create(str(where))
    message = str(raised.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


def test_model_that_is_not_clip_or_siglip_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path / "bert")
    refused(tmp_path / "bert", "the folder bert", "its type is 'bert', not plain CLIP or SigLIP")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "the folder empty")


def test_unavailable_model_is_an_error():
    refused("nobody/nothing", "nobody/nothing could not be loaded", "give the folder of a local model")


def test_missing_or_mismatched_weights_are_refused(copied):
    path = copied / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.endswith("layer_norm1.weight"))
    for wrong in ({}, {name: torch.ones(7)}):
        save_file({**{key: value for key, value in state.items() if key != name}, **wrong}, path, {"format": "pt"})
        refused(copied, "could not be loaded", name if not wrong else "")
    path.write_bytes(b"rubbish")
    refused(copied, "could not be loaded")
    path.unlink()
    torch.save(state, copied / "pytorch_model.bin")
    refused(copied, "could not be loaded")


def test_nan_weights_are_an_error(copied):
    state = load_file(copied / "model.safetensors")
    nan = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    save_file(nan, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="not finite"):
        TextEncoder.create(str(copied)).embed_texts(["a hat"])


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_custom_model_code_is_never_run(copied, tmp_path, name):
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')\nclass Evil: pass\n")
    settings = json.loads((copied / name).read_text())
    classes = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor")
    settings["auto_map"] = dict.fromkeys(classes, "evil.Evil")
    (copied / name).write_text(json.dumps(settings))
    TextEncoder.create(str(copied))
    (copied / name).write_text(json.dumps({**settings, "model_type": "evil", "tokenizer_class": "Evil"}))
    with suppress(EncoderError):
        TextEncoder.create(str(copied))
    assert not (tmp_path / "was here").exists()


def test_processor_of_another_type_is_refused(copied):
    settings = json.loads((copied / "processor_config.json").read_text())
    (copied / "processor_config.json").write_text(json.dumps({**settings, "processor_class": "BertTokenizer"}))
    refused(copied, "the folder copied could not be loaded")


def test_text_and_image_embeddings_of_different_widths_are_refused(tmp_path):
    write_siglip(tmp_path / "it", hidden_size=48)
    with pytest.raises(EncoderError, match=r"'it' returns an array of shape \(1, 48\), but \(1, 32\) was expected"):
        TextEncoder.create(str(tmp_path / "it"))


def test_zero_text_embedding_is_an_error_that_names_the_rows(tmp_path):
    model, processor = (kind.from_pretrained(write_clip(tmp_path / "it")) for kind in (AutoModel, AutoProcessor))
    torch.nn.init.zeros_(model.text_projection.weight)
    network = Network(model, processor)
    encoder = TextEncoder(network, "blind", lambda: network)
    with pytest.raises(EmbeddingError, match="'blind' cannot embed this picture or text") as refused:
        encoder.embed_texts(["a hat"] * 9)
    assert refused.value.rows == tuple(range(9))
    assert encoder.embed_images([Image.new("RGB", (32, 32))]).shape == (1, 24)
