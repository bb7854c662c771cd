"""Exported networks from strangers: whatever is not a plain network is refused before an engine reads it."""

import numpy as np
import onnx
import pytest
from conftest import reseal
from onnx import TensorProto, helper, numpy_helper

from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import load_artifact
from retrieval.encoders.engines.trusted import check_exported
from retrieval.encoders.image import Encoder
from retrieval.errors import EncoderError, IntegrityError

SIZE = (3, 8, 8)


def network(*nodes, weights=(), opset=18, outputs=("embedding",), size=SIZE, **options):
    """A network whose last node gives the embedding, of 4 numbers."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", *size])
    found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in outputs]
    graph = helper.make_graph(list(nodes), "it", [pixels], found, initializer=list(weights), **options)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def number(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


FLAT = helper.make_node("Flatten", ["pixels"], ["flat"])
LAST = helper.make_node("MatMul", ["flat", "w"], ["embedding"])
WEIGHT = number("w", np.ones((192, 4), np.float32))


def plain(**options):
    return network(FLAT, LAST, **{"weights": [WEIGHT], **options})


def elsewhere():
    model = plain()
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    return model


def short_of_bytes():
    model = plain()
    model.graph.initializer[0].dims[0] = 2**40
    return model


def negative():
    model = plain()
    model.graph.initializer[0].dims[:] = [-192, -4]
    return model


def branch():
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "b", [], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [192, 4])])  # fmt: skip
    return network(helper.make_node("If", ["c"], ["embedding"], then_branch=graph, else_branch=graph),
                   weights=[WEIGHT, number("c", True)])  # fmt: skip


def hidden_branch():
    model = plain()
    graph = helper.make_graph([], "b", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("axis_", graph))
    return model


def bomb():
    """100,000 x 100,000 numbers from none."""
    sides, one = number("sides", np.array([100_000, 100_000], np.int64)), number("one", np.ones(1, np.float32))
    spread = helper.make_node("Expand", ["one", "sides"], ["large"])
    total = helper.make_node("ReduceSum", ["large"], ["sum"])
    added = helper.make_node("Add", ["first", "sum"], ["embedding"])
    first = helper.make_node("MatMul", ["flat", "w"], ["first"])
    return network(FLAT, first, spread, total, added, weights=[WEIGHT, sides, one])


def outer_product():
    long = number("long", np.ones((1, 20_000), np.float32))
    tall = number("tall", np.ones((20_000, 1), np.float32))
    nodes = [helper.make_node("MatMul", ["tall", "long"], ["square"]), helper.make_node("ReduceSum", ["square"], ["s"])]
    first = helper.make_node("MatMul", ["flat", "w"], ["first"])
    return network(FLAT, first, *nodes, helper.make_node("Add", ["first", "s"], ["embedding"]),
                   weights=[WEIGHT, long, tall])  # fmt: skip


def function():
    model = plain()
    model.functions.add(name="f", domain="x")
    return model


HOSTILE = {
    "weights in another file": elsewhere,
    "weights larger than their bytes": short_of_bytes,
    "a negative size": negative,
    "a branch": branch,
    "a hidden graph": hidden_branch,
    "a tensor of 40 GB": bomb,
    "an outer product of 1.6 GB": outer_product,
    "functions": function,
    "an unknown operation": lambda: network(FLAT, helper.make_node("RandomNormal", [], ["embedding"], shape=[1, 4])),
    "another domain": lambda: network(FLAT, helper.make_node("MatMul", ["flat", "w"], ["embedding"], domain="evil")),
    "a version of the future": lambda: plain(opset=99),
    "another output": lambda: network(helper.make_node("Flatten", ["pixels"], ["other"]), outputs=("other",)),
    "other pixels": lambda: plain(size=(3, 16, 8)),
    "no network": lambda: onnx.ModelProto(),
}


def test_plain_network_is_accepted(tmp_path):
    onnx.save(plain(), tmp_path / "model.onnx")
    check_exported(tmp_path / "model.onnx", SIZE)


@pytest.mark.parametrize("kind", HOSTILE)
def test_network_that_is_not_plain_is_refused(kind, tmp_path):
    (tmp_path / "model.onnx").write_bytes(HOSTILE[kind]().SerializeToString())
    with pytest.raises(EncoderError, match=r"^model.onnx is not a network that is exported here: .+\. Build "):
        check_exported(tmp_path / "model.onnx", SIZE)


@pytest.mark.parametrize("content", [b"", b"\x00", b"PK\x03\x04", b"\xff" * 1000, bytes(range(256)) * 10])
def test_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(EncoderError, match="is not a network that is exported here"):
        check_exported(tmp_path / "model.onnx", SIZE)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext", "test_byobnet"])
def test_what_is_exported_here_is_accepted(backbone):
    encoder = Encoder.create(backbone, pretrained=False, seed=0)
    check_exported(encoder.network.exported, encoder.data_config["input_size"])


def test_artifact_with_a_hostile_network_is_refused(copied_artifact):
    (copied_artifact / LAYOUT.exported).write_bytes(elsewhere().SerializeToString())
    reseal(copied_artifact)
    with pytest.raises(IntegrityError, match=r"model.onnx is not a network that is exported here: its (weights|input)"):
        load_artifact(copied_artifact)
