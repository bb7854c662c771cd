"""A program: mutants of an exported network go through the check and the engines; it says how many were refused.

    python mutated_networks.py COUNT [FIRST] [FILE]

Each mutant is checked like a stranger's file and, if it passes, embeds one picture and more in both engines. It ends
with an error at the first mutant that does anything else than pass or raise EncoderError; a mutant is made again from
its number. FILE is another network than the small one that is made here.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from hostile_networks import FLOAT, number, value
from onnx import helper

from retrieval.encoders.engines.choose import open_exported
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.encoders.engines.trusted import check_exported, of_pictures
from retrieval.encoders.unit import unit_rows
from retrieval.errors import EncoderError

SIDE = 16
EMPTY = {FieldDescriptor.TYPE_STRING: "", FieldDescriptor.TYPE_BYTES: b""}
EXTREME = (-1, 0, 1, 2, 3, 7, 2**16, 2**31 - 1, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63))


def small():
    """A network with a bit of everything that exported networks have."""
    steps = [
        ("Conv", "pixels kernel", "a", {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}),
        ("BatchNormalization", "a ones ones ones ones", "b", {}),
        ("PRelu", "b slope", "c", {}),
        ("QuantizeLinear", "c scale zero", "d", {}),
        ("DequantizeLinear", "d scale zero", "e", {}),
        ("MaxPool", "e", "f", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Pad", "f pads", "padded", {}),
        ("AveragePool", "padded", "pooled", {"kernel_shape": [3, 3], "strides": [1, 1]}),
        ("Resize", "pooled  scales", "larger", {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}),
        ("ConvTranspose", "larger turned", "turned_", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("InstanceNormalization", "turned_ ones ones", "normed", {}),
        ("SpaceToDepth", "normed", "deep", {"blocksize": 2}),
        ("DepthToSpace", "deep", "wide", {"blocksize": 2}),
        ("GlobalMaxPool", "wide", "most", {}),
        ("Mul", "f most", "scaled", {}),
        ("Shape", "scaled", "shape", {}),
        ("Gather", "shape first", "number", {"axis": 0}),
        ("Concat", "number rest", "sides", {"axis": 0}),
        ("Reshape", "scaled sides", "g", {}),
        ("Transpose", "g", "h", {"perm": [0, 2, 1]}),
        ("LayerNormalization", "h ones ones", "i", {"axis": -1, "epsilon": 1e-6}),
        ("MatMul", "i square", "j", {}),
        ("Einsum", "j i", "products", {"equation": "abc,adc->abd"}),
        ("Softmax", "products", "k", {"axis": -1}),
        ("CumSum", "k one", "running", {}),
        ("Split", "running halves", "left right", {"axis": 1}),
        ("Slice", "left zeros two second", "l", {}),
        ("TopK", "l three", "top at", {"axis": -1}),
        ("OneHot", "at depth off_on", "hot", {}),
        ("ReduceSum", "hot axes", "votes", {"keepdims": 0}),
        ("Expand", "votes flat", "many", {}),
        ("Tile", "top tiles", "tiled", {}),
        ("ReduceMean", "tiled axes_", "m", {"keepdims": 0}),
        ("Add", "m many", "n", {}),
        ("Gemm", "n square", "embedding", {"transB": 1}),
    ]
    rng = np.random.default_rng(0)
    floats = {"kernel": (8, 3, 3, 3), "turned": (8, 8, 2, 2), "square": (8, 8), "slope": (8, 1, 1)}
    integers = {
        "pads": [0, 0, 1, 1, 0, 0, 1, 1], "first": [0], "rest": [8, -1], "halves": [8, 8],
        "zeros": [0], "two": [2], "second": [1], "three": [4], "depth": 8, "off_on": [0, 1], "one": 1,
        "axes": [1, 2], "flat": [1, 8], "tiles": [1, 1, 2], "axes_": [1],
    }  # fmt: skip
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in floats.items()}
    weights |= {name: np.array(found) for name, found in integers.items()} | {"off_on": np.array([0, 1], np.float32)}
    weights["scales"] = np.array([1, 1, 1.5, 1.5], np.float32)
    weights |= {"ones": np.ones(8, np.float32), "scale": np.float32(0.1), "zero": np.uint8(0)}
    graph = helper.make_graph(
        [helper.make_node(kind, taken.split(" "), given.split(), **settings) for kind, taken, given, settings in steps],
        "small",
        [value("pixels", FLOAT, ["batch", 3, SIDE, SIDE])],
        [value("embedding", FLOAT, ["batch", 8])],
        [number(name, found) for name, found in weights.items()],
        value_info=[value("c", FLOAT, ["batch", 8, SIDE // 2, SIDE // 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def mutant(content, seed):
    """The bytes of a network after one to three changes, of bytes or of fields."""
    chance = random.Random(seed)
    if chance.random() < 0.3:
        return with_other_bytes(bytearray(content), chance)
    model = onnx.load_from_string(content)
    messages = list(all_messages(model))
    for _ in range(chance.randint(1, 3)):
        with_another_field(chance.choice(messages), chance)
    return model.SerializeToString()


def with_other_bytes(content, chance):
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content))
        match chance.randrange(3):
            case 0:
                content[at] = chance.randrange(256)
            case 1:
                del content[at : at + chance.randint(1, 9)]
            case 2:
                content[at:at] = chance.randbytes(chance.randint(1, 9))
    return bytes(content)


def all_messages(message):
    yield message
    for field, held in message.ListFields():
        if field.message_type:
            for each in held if hasattr(held, "add") else [held]:
                yield from all_messages(each)


def with_another_field(message, chance):
    """Change one field of a message: mostly one that it has."""
    there = [field for field, _ in message.ListFields()]
    field = chance.choice(there if there and chance.random() < 0.9 else message.DESCRIPTOR.fields)
    held = getattr(message, field.name)
    if hasattr(held, "extend"):
        with_another_list(held, field, chance)
    elif field.message_type:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, another(held, field, chance))


def with_another_list(held, field, chance):
    parts = list(held)
    what = chance.randrange(4)
    if parts and what == 0:
        del parts[chance.randrange(len(parts))]
    elif parts and what == 1:
        parts.append(chance.choice(parts))
    elif parts and what == 2:
        chance.shuffle(parts)
    elif not field.message_type:
        at = chance.randrange(len(parts) + 1)
        parts[at : at + 1] = [another(parts[at] if at < len(parts) else EMPTY.get(field.type, 0), field, chance)]
    copies = [type(part).FromString(part.SerializeToString()) if field.message_type else part for part in parts]
    del held[:]
    held.extend(copies)


def another(held, field, chance):
    if field.enum_type:
        return chance.choice(field.enum_type.values).number
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return chance.choice([0.0, -1.0, 1e30, float("nan"), float("inf")])
    if isinstance(held, str):
        return chance.choice(["", "pixels", "embedding", "c", "sides", "Reshape", "Tile", "If", "x" * 70_000])
    if isinstance(held, bytes):
        return chance.choice([b"", held[:-1], held + b"\0", chance.randbytes(len(held)), bytes(len(held))])
    most = 2**31 if field.cpp_type == field.CPPTYPE_INT32 else 2**63
    found = chance.choice([each for each in (*EXTREME, held + 1, held - 1, -held) if -most <= each < most])
    return abs(found) if field.cpp_type == field.CPPTYPE_UINT64 else found


def main(count, first=0, source=None):
    content = Path(source).read_bytes() if source else small().SerializeToString()
    shape = [side.dim_value for side in onnx.load_from_string(content).graph.input[0].type.tensor_type.shape.dim[1:]]
    signature = of_pictures(shape)
    pixels = np.random.default_rng(0).random((signature.most, *shape), np.float32)
    found = {"refused": 0, "failed": 0, "passed": 0}
    path = Path(tempfile.mkdtemp()) / "model.onnx"
    for seed in range(first, first + count):
        path.write_bytes(mutant(content, seed))
        print(seed, file=sys.stderr)
        stage = "refused"
        try:
            file = NetworkFile(path)
            check_exported(file, signature)
            stage = "failed"
            for engine in ("onnx", "openvino"):
                running = open_exported(file, engine)
                for number_of in {1, 2, signature.most}:
                    unit_rows(running.embed(pixels[:number_of]), running.dim, "it")
            stage = "passed"
        except EncoderError:
            pass
        found[stage] += 1
    print(json.dumps({**found, "peak": peak()}))


def peak():
    """The most memory of this process so far, in MB; `getrusage` would count that of the one that started it."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
