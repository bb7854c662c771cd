"""Exported networks from strangers: whatever is not a plain network is refused before an engine reads it."""

import dataclasses

import numpy as np
import pytest
import timm
from conftest import reseal
from hostile_networks import FLOAT, HOSTILE, INT64, SIZE, elsewhere, in_parts, node, number, plain, value
from onnx import TensorProto, helper

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.encoders.engines.choose import open_exported
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.encoders.engines.trusted import Signature, check_exported, of_pictures
from retrieval.encoders.image import Encoder
from retrieval.encoders.network.quantize import quantize
from retrieval.errors import EncoderError, IntegrityError


def check(model, tmp_path, signature=None):
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    check_exported(NetworkFile(tmp_path / "model.onnx"), signature or of_pictures(SIZE))


@pytest.mark.parametrize("kind", HOSTILE)
def test_network_that_is_not_plain_is_refused(kind, tmp_path):
    make, words = HOSTILE[kind]
    with pytest.raises(
        EncoderError, match=rf"^model.onnx is not a network that is exported here: .*({words}).*\. Build "
    ):
        check(make(), tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"PK\x03\x04", b"\xff" * 1000, bytes(range(256)) * 10])
def test_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(EncoderError, match="is not a network that is exported here"):
        check_exported(NetworkFile(tmp_path / "model.onnx"), of_pictures(SIZE))


def test_plain_network_is_accepted(tmp_path):
    check(plain(), tmp_path)
    check(in_parts(feature_map=[1, 1, 1, 4], bias=[4]), tmp_path, Signature(**{**vars(of_pictures(SIZE)), "most": 1}))


def test_network_that_was_accepted_is_refused_for_other_pictures_and_after_a_change(tmp_path):
    check(plain(), tmp_path)
    check(plain(), tmp_path)  # it is not looked at a second time
    with pytest.raises(EncoderError, match="its inputs must be pixels"):
        check(plain(), tmp_path, of_pictures((3, 16, 8)))
    for damage in (b"", bytes(1)):
        content = (tmp_path / "model.onnx").read_bytes()
        (tmp_path / "model.onnx").write_bytes(content[:-1] + damage)
        with pytest.raises(EncoderError, match="is not a network that is exported here"):
            check_exported(NetworkFile(tmp_path / "model.onnx"), of_pictures(SIZE))


def of_texts():
    return Signature({"input_ids": ("int64", (None,))}, [["embedding"]], 1, (2, 7))


def for_texts(*names, kind=INT64, length="words"):
    table = number("table", np.ones((50, 4), np.float32))
    nodes = [
        node("Gather", ["table", names[0]], ["words"]),
        node("ReduceMean", ["words", "one"], ["embedding"], keepdims=0),
    ]
    inputs = [value(name, kind, ["batch", length]) for name in names]
    graph = helper.make_graph(
        nodes, "it", inputs, [value("embedding", FLOAT, ["batch", 4])], [table, number("one", [1])]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_network_may_have_other_inputs_than_pixels(tmp_path):
    check(for_texts("input_ids"), tmp_path, of_texts())
    for model in (
        for_texts("attention_mask"),
        for_texts("input_ids", "more"),
        for_texts("input_ids", kind=TensorProto.INT32),
        for_texts("input_ids", length=8),
        plain(),
    ):
        with pytest.raises(EncoderError, match=r"its inputs must be input_ids of shape \(N, L\)"):
            check(model, tmp_path, of_texts())


def test_text_tower_that_needs_more_for_short_texts_is_refused(tmp_path):
    model = for_texts("input_ids")
    dear = [  # a text of 2 tokens becomes a large table, one of 7 does not
        node("Shape", ["words"], ["shape"]),
        node("Slice", ["shape", "one", "two"], ["length"]),
        node("Sub", ["seven", "length"], ["short"]),
        node("Mul", ["short", "many"], ["times"]),
        node("Concat", ["times", "one"], ["size"], axis=0),
        node("Expand", ["float", "size"], ["dear"]),
    ]
    model.graph.node.extend(dear)
    weights = [number("two", [2]), number("seven", [7]), number("many", [2**26]), number("float", np.float32([[1]]))]
    model.graph.initializer.extend(weights)
    for lengths in ((7,), (2, 7)):
        signature = dataclasses.replace(of_texts(), lengths=lengths)
        if lengths == (7,):
            check(model, tmp_path, signature)
        else:
            with pytest.raises(EncoderError, match="a pass would need a tensor of"):
                check(model, tmp_path, signature)


SMALL = {  # timm's networks, with few and narrow layers
    "test_resnet": {},
    "test_efficientnet": {},
    "test_vit": {},
    "test_convnext": {},
    "test_byobnet": {},
    "mobilenetv4_conv_small": {},
    "swin_tiny_patch4_window7_224": {"embed_dim": 16, "depths": (2,), "num_heads": (1,), "img_size": 56},
    "eva02_tiny_patch14_224": {"embed_dim": 48, "depth": 1, "num_heads": 2, "img_size": 56},
    "vit_small_patch16_dinov3": {"embed_dim": 48, "depth": 1, "num_heads": 2, "img_size": 64},
    "vit_pe_core_tiny_patch16_384": {"embed_dim": 48, "depth": 1, "num_heads": 2, "img_size": 64},
    "beit_base_patch16_224": {"embed_dim": 48, "depth": 1, "num_heads": 2, "img_size": 64},
}


@pytest.mark.parametrize("backbone", SMALL)
def test_what_is_exported_here_is_accepted(backbone):
    options = SMALL[backbone]
    stated = {"input_size": (3, options["img_size"], options["img_size"])} if options else None
    network = timm.create_model(backbone, num_classes=0, pretrained_cfg_overlay=stated, **options)
    encoder = Encoder.of(network)
    check_exported(NetworkFile(encoder.network.exported), of_pictures(encoder.data_config["input_size"]))


def test_what_no_one_could_load_is_not_exported(capsys):
    narrow = {"layers": (1,) * 4, "embed_dims": (8, 16, 16, 16), "hidden_sizes": (4,) * 4}
    encoder = Encoder.of(timm.create_model("sequencer2d_s", num_classes=0, **narrow))
    assert encoder.network.exported is None
    assert "The artifact will need torch: model.onnx is not a network" in capsys.readouterr().err


def test_network_in_int8_is_accepted(tmp_path):
    encoder = Encoder.create("test_resnet", pretrained=False, seed=0)
    size = encoder.data_config["input_size"]
    quantize(encoder.network.exported, tmp_path / "model.onnx", [np.ones(size, np.float32)] * 2)
    check_exported(NetworkFile(tmp_path / "model.onnx"), of_pictures(size))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_engine_reads_the_file_that_was_checked(engine, tmp_path):
    """Also if another one takes its place, or if it is written to."""
    path, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    path.write_bytes(plain().SerializeToString())
    twice = number("w", np.full((192, 4), 2, np.float32))
    other.write_bytes(plain(weights=[twice]).SerializeToString())
    file = NetworkFile(path)
    check_exported(file, of_pictures(SIZE))
    other.replace(path)
    pixels = np.ones((1, *SIZE), np.float32)
    assert open_exported(file, engine).embed(pixels).tolist() == [[192.0] * 4]
    file = NetworkFile(path)
    path.write_bytes(plain().SerializeToString() + b"\x08\x08")
    with pytest.raises(EncoderError, match=r"model.onnx was changed while it was read: open it again"):
        open_exported(file, engine)


def test_artifact_with_a_hostile_network_is_refused(copied_artifact):
    (copied_artifact / LAYOUT.exported).write_bytes(elsewhere().SerializeToString())
    reseal(copied_artifact)
    with pytest.raises(IntegrityError, match=r"model.onnx is not a network that is exported here: its (weights|input)"):
        load_artifact(copied_artifact)
