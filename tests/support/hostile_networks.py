"""Networks in ONNX that no export makes: each asks for something that a network for pictures does not need."""

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

SIZE = (3, 8, 8)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
value, node = helper.make_tensor_value_info, helper.make_node


def network(*nodes, weights=(), opset=18, outputs=("embedding",), size=SIZE, ir_version=8, batch="batch"):
    """A network whose last node gives the embedding, of 4 numbers."""
    shapes = {"embedding": ["n", 4], "feature_map": ["n", 1, 1, 4], "bias": [4]}
    found = [value(name, FLOAT, shapes.get(name, ["n", 4])) for name in outputs]
    graph = helper.make_graph(list(nodes), "it", [value("pixels", FLOAT, [batch, *size])], found, list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def number(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


FLAT = node("Flatten", ["pixels"], ["flat"])
LAST = node("MatMul", ["flat", "w"], ["embedding"])
WEIGHT = number("w", np.ones((192, 4), np.float32))


def plain(**options):
    return network(FLAT, LAST, **{"weights": [WEIGHT], **options})


def beside(*nodes, weights=()):
    """A plain network, and nodes whose `extra` is added to its embedding."""
    first = node("MatMul", ["flat", "w"], ["first"])
    return network(FLAT, first, *nodes, node("Add", ["first", "extra"], ["embedding"]), weights=[WEIGHT, *weights])


def changed(change):
    """A plain network after a change of its graph."""
    model = plain()
    change(model.graph)
    return model


def summed(nodes, weights=()):
    """A plain network, and nodes that give `large`, which is added up."""
    total = [node("ReduceSum", ["large"], ["total"], keepdims=0), node("Cast", ["total"], ["extra"], to=FLOAT)]
    return beside(*nodes, *total, weights=weights)


def elsewhere():
    def change(graph):
        graph.initializer[0].ClearField("raw_data")
        graph.initializer[0].data_location = TensorProto.EXTERNAL
        graph.initializer[0].external_data.add(key="location", value="/etc/passwd")

    return changed(change)


def with_weight(**fields):
    """A plain network whose weight has these parts instead."""

    def change(graph):
        graph.initializer[0].ClearField("raw_data")
        for name, found in fields.items():
            if isinstance(found, list):
                del getattr(graph.initializer[0], name)[:]
                getattr(graph.initializer[0], name).extend(found)
            else:
                setattr(graph.initializer[0], name, found)

    return changed(change)


def with_setting(kind, **fields):
    """A plain network, the first operation of which has one more attribute."""
    return changed(lambda graph: graph.node[0].attribute.append(AttributeProto(name="axis_", type=kind, **fields)))


def with_input(at, info, weights=()):
    def change(graph):
        graph.input.insert(at, info)
        graph.initializer.extend(weights)

    return changed(change)


def shapeless(name):
    info = value(name, FLOAT, [1])
    info.type.tensor_type.ClearField("shape")
    return info


def branch():
    graph = helper.make_graph([node("Identity", ["w"], ["y"])], "b", [], [value("y", FLOAT, [192, 4])])
    return network(node("If", ["c"], ["embedding"], then_branch=graph, else_branch=graph),
                   weights=[WEIGHT, number("c", True)])  # fmt: skip


def with_part(name):
    """A plain network with something in a part of the model or the graph that has nothing to do with numbers."""
    model = plain()
    holder = model if hasattr(model, name) else model.graph
    getattr(holder, name).add()
    return model


def tiled(name, *repeats):
    """Repeats the pixels: not known before there is a picture, so no engine computes it earlier."""
    return [node("Tile", ["pixels", f"{name} repeats"], [name])], [number(f"{name} repeats", np.array(repeats))]


def expanded(*sides, **kind):
    """As many ones, which an engine computes at once."""
    fill = number("", np.ones(1, **kind))
    weights = [number("sides", np.array(sides))]
    return [node("ConstantOfShape", ["sides"], ["large"], value=fill)], weights


def expanded_thrice():
    nodes, weights = expanded(2**25, dtype=np.float32)
    nodes[0].output[0] = "one"
    more = [node("Neg", ["one"], ["two"]), node("Neg", ["two"], ["large"])]
    return [*nodes, *more], weights


def eight_bytes():
    nodes, weights = tiled("tiles", 1, 1, 500, 500)
    return summed([*nodes, node("Cast", ["tiles"], ["large"], to=TensorProto.DOUBLE)], weights)


def many_at_once():
    parts = [tiled(f"part {at}", 1, 1, 512, 512) for at in range(24)]
    nodes, weights = ([each for pair in parts for each in pair[which]] for which in (0, 1))
    return summed([*nodes, node("Sum", [f"part {at}" for at in range(24)], ["large"])], weights)


def slow():
    nodes, weights = tiled("0", 1, 1, 256, 256)
    steps = [node("MatMul", [str(at), str(at)], [str(at + 1)]) for at in range(400)]
    return summed([*nodes, *steps, node("Identity", ["400"], ["large"])], weights)


def large_with_many():
    """Small for one or two pictures, and then 16 million numbers for each picture more."""
    nodes = [
        node("Shape", ["pixels"], ["n"], end=1),
        node("Sub", ["n", "two"], ["more"]),
        node("Max", ["more", "zero"], ["some"]),
        node("Mul", ["some", "many"], ["sides"]),
        node("Expand", ["one", "sides"], ["large"]),
    ]
    numbers = {"two": 2, "zero": 0, "many": 2**24}
    return summed(nodes, [*(number(name, [each]) for name, each in numbers.items()), number("one", [1.0])])


def shape_of_pixels():
    """As many numbers as the first pixel says."""
    first = [node("ReduceSum", ["pixels"], ["sum"], keepdims=0), node("Cast", ["sum"], ["cast"], to=INT64)]
    sides = node("Reshape", ["cast", "one"], ["sides"])
    one = number("one", np.array([1]))
    return summed([*first, sides, node("ConstantOfShape", ["sides"], ["large"])], [one])


def divided():
    nodes = [node("Shape", ["pixels"], ["n"], end=1), node("Div", ["n", "zero"], ["sides"])]
    return summed([*nodes, node("ConstantOfShape", ["sides"], ["large"])], [number("zero", [0])])


def false_description():
    def change(graph):
        graph.value_info.append(value("flat", FLOAT, ["n", 5]))

    return changed(change)


def unpacked():
    """The kernels of a transposed convolution give 400 MB before they are added up."""
    weight = number("kernel", np.ones((3, 1, 40, 40), np.float32))
    conv = node("ConvTranspose", ["tiles", "kernel"], ["large"], strides=[1, 1])
    nodes, weights = tiled("tiles", 1, 1, 32, 32)
    return summed([*nodes, conv], [weight, *weights])


def not_in_utf8(graph):
    graph.node[0].MergeFromString(b"\x1a\x02\xff\xfe")  # its name


def gathered():
    """Process memory for an embedding, where OpenVINO reads beyond the tensor."""
    far = number("far", [[0, 1000]] * 4)
    return network(FLAT, node("GatherND", ["flat", "far"], ["embedding"]), weights=[far])


def einsum():
    return summed([node("Einsum", ["flat"] * 3, ["large"], equation="ab,ac,ad->bcd")])


def endless():
    return summed([node("Einsum", ["flat"], ["large"], equation="ab-")])


def of_the_future():
    return onnx.load_from_string(plain().SerializeToString() + b"\xc0\xbb\x01\x01")


def in_parts(**shapes):
    """Outputs that split the embedding, of these shapes."""
    rest = [node("ConstantOfShape", [f"{name} sides"], [name]) for name in shapes]
    sides = [number(f"{name} sides", np.array(shape)) for name, shape in shapes.items()]
    return network(FLAT, LAST, *rest, weights=[WEIGHT, *sides], outputs=("embedding", *shapes))


HOSTILE = {
    # kind -> (network, what is said of it)
    "weights in another file": (elsewhere, "in another file"),
    "weights larger than their bytes": (lambda: with_weight(dims=[2**40, 4], raw_data=bytes(8)), "has 8 bytes"),
    "a negative size": (lambda: with_weight(dims=[-192, -4], raw_data=bytes(3072)), "a negative size"),
    "weights without numbers": (lambda: with_weight(), "another number of numbers"),
    "too few floats": (lambda: with_weight(float_data=[1.0]), "another number of numbers"),
    "numbers of another type": (lambda: with_weight(int64_data=[1] * 768), "another number of numbers"),
    "numbers twice": (lambda: with_weight(float_data=[1.0] * 768, raw_data=bytes(3072)), "numbers twice"),
    "texts for weights": (lambda: with_weight(data_type=8, string_data=[b"a"] * 768), "the type 8"),
    "one part of a weight": (lambda: changed(lambda graph: graph.initializer[0].segment.SetInParent()), "more than"),
    "two weights of a name": (lambda: plain(weights=[WEIGHT, WEIGHT]), "two values of the name"),
    "a branch": (branch, "the operation .If"),
    "a hidden graph": (lambda: with_setting(5, g=helper.make_graph([], "b", [], [])), "holds g"),
    "hidden tensors": (lambda: with_setting(9, tensors=[elsewhere().graph.initializer[0]]), "holds tensors"),
    "sparse tensors": (lambda: with_setting(11, sparse_tensor=onnx.SparseTensorProto()), "holds sparse_tensor"),
    "a list of them": (lambda: with_setting(12, sparse_tensors=[onnx.SparseTensorProto()]), "holds sparse_tensors"),
    "a type": (lambda: with_setting(13, tp=onnx.TypeProto()), "holds tp"),
    "texts": (lambda: with_setting(8, strings=[b"a"]), "holds strings"),
    "a setting of a function": (lambda: with_setting(2, ref_attr_name="a"), "holds ref_attr_name"),
    "a setting of two kinds": (lambda: with_setting(2, i=1, t=TensorProto()), "holds i, t"),
    "a tensor elsewhere": (lambda: with_setting(4, t=elsewhere().graph.initializer[0]), "in another file"),
    "a setting twice": (
        lambda: changed(lambda graph: graph.node[0].attribute.extend([helper.make_attribute("axis", 1)] * 2)),
        "a setting twice",
    ),
    "training": (lambda: with_part("training_info"), "has training_info"),
    "functions": (lambda: with_part("functions"), "has functions"),
    "devices": (lambda: with_part("configuration"), "has configuration"),
    "settings of an engine": (lambda: with_part("metadata_props"), "has metadata_props"),
    "sparse weights": (lambda: with_part("sparse_initializer"), "has sparse_initializer"),
    "ranges of integers": (lambda: with_part("quantization_annotation"), "has quantization_annotation"),
    "a part of the future": (of_the_future, "that ONNX does not know"),
    "a version of the future": (lambda: plain(opset=99), "which of ONNX's own operations"),
    "a format of the past": (lambda: plain(ir_version=3), "version of the format is 3"),
    "an unknown operation": (lambda: network(node("RandomNormal", [], ["embedding"], shape=[1, 4])), "RandomNormal"),
    "an operation of later": (lambda: network(node("Gelu", ["pixels"], ["embedding"])), "Gelu"),
    "an index that one engine does not check": (gathered, "the operation .GatherND"),
    "another domain": (lambda: network(FLAT, node("MatMul", ["flat", "w"], ["embedding"], domain="evil")), "evil"),
    "another output": (lambda: network(FLAT, outputs=("flat",)), "outputs are flat"),
    "outputs in another order": (lambda: in_parts(bias=[4], feature_map=[1, 1, 1, 4]), "outputs are embedding, bias"),
    "other pixels": (lambda: plain(size=(3, 16, 8)), "its inputs must be pixels"),
    "a fixed number of pictures": (lambda: plain(batch=2), "its inputs must be pixels"),
    "a number before the pixels": (lambda: with_input(0, value("scalar", FLOAT, [])), "its inputs must be pixels"),
    "no shape before the pixels": (lambda: with_input(0, shapeless("any")), "its inputs must be pixels"),
    "one more input": (lambda: with_input(1, value("more", FLOAT, [1])), "its inputs must be pixels"),
    "a weight for an input": (lambda: with_input(0, value("w", FLOAT, [192, 4])), "its inputs must be pixels"),
    "pixels in float64": (
        lambda: changed(lambda graph: graph.input[0].CopyFrom(value("pixels", TensorProto.DOUBLE, ["n", *SIZE]))),
        "its inputs must be pixels",
    ),
    "an embedding of integers": (
        lambda: network(FLAT, node("MatMul", ["flat", "w"], ["first"]), node("Cast", ["first"], ["embedding"], to=6),
                        weights=[WEIGHT]),
        "embedding is not in float32",
    ),
    "an embedding with sides": (lambda: network(node("Neg", ["pixels"], ["embedding"])), r"of shape \(1, 3, 8, 8"),
    "one embedding for all": (
        lambda: network(FLAT, node("MatMul", ["flat", "w"], ["first"]),
                        node("ReduceSum", ["first", "axes"], ["embedding"]), weights=[WEIGHT, number("axes", [0])]),
        r"of shape \(1, 4\) for 2 inputs",
    ),
    "parts of another dimension": (lambda: in_parts(feature_map=[1, 1, 1, 5], bias=[4]), "its output feature_map"),
    "parts without sides": (lambda: in_parts(feature_map=[1, 4], bias=[4]), "its output feature_map"),
    "a false description": (false_description, "flat is not what it says"),
    "an operation before its input": (lambda: network(LAST, FLAT, weights=[WEIGHT]), "takes flat, which does not"),
    "two values of a name": (lambda: network(FLAT, FLAT, LAST, weights=[WEIGHT]), "two values of the name flat"),
    "a tensor of 80 GB": (lambda: summed(*expanded(10**5, 10**5)), "a tensor of 80,000,000,000 bytes"),
    "many weights from none": (lambda: summed(*expanded_thrice()), "computed from weights"),
    "a tensor of 8-byte numbers": (eight_bytes, "a tensor of 384,000,000 bytes"),
    "a tensor that grows with pictures": (large_with_many, "a tensor of 402,653,184 bytes"),
    "an unpacked tensor": (unpacked, "a tensor of 419,430,400 bytes"),
    "many tensors at once": (many_at_once, "tensors at the same time"),
    "minutes of work": (slow, "multiply-adds"),
    "a shape that a picture gives": (shape_of_pixels, "a shape comes from the operation"),
    "a division by zero": (divided, "a shape comes from the operation Div"),
    "an Einsum of three": (einsum, "the Einsum b'ab,ac,ad->bcd'"),
    "an Einsum that never ends": (endless, "the Einsum b'ab-'"),
    "an output without a name": (
        lambda: summed([node("Split", ["flat"], ["large", ""], num_outputs=2)]), "Split is used in another way"
    ),
    "an input without a name": (
        lambda: summed([node("Add", ["flat", ""], ["large"])]), "Add is used in another way"
    ),
    "a setting of another operation": (
        lambda: summed([node("Neg", ["flat"], ["large"], axis=1)]), "Neg is used in another way"
    ),
    "a setting of another type": (
        lambda: summed([node("Concat", ["flat"], ["large"], axis=1.5)]), "Concat is used in another way"
    ),
    "a setting of bytes": (lambda: with_setting(3, s=b"\xff"), "a setting of Flatten is not text"),
    "names of bytes": (lambda: changed(not_in_utf8), "the name of a NodeProto is not text"),
    "no network": (lambda: onnx.ModelProto(), "operations it means"),
}  # fmt: skip
