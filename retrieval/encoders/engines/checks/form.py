"""The form of an exported network: the parts that a file may have, and weights of exactly the size they say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from onnx import AttributeProto, TensorProto
from onnx.defs import OpSchema

MOST_NODES = 50_000
_OPSETS = range(13, 24)
_IR_VERSIONS = range(7, 14)  # before 4, weights were inputs too
# Operations that compute numbers from numbers. Those that hold graphs (If, Loop, Scan), draw random numbers, or work on
# texts, sequences and other types are none of them; nor GatherND, GatherElements and ScatterElements: OpenVINO reads or
# writes beyond the tensor if an index is too large.
_OPERATIONS = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil",
    "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace",
    "DequantizeLinear", "Div", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "Gelu",
    "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid",
    "HardSwish", "Identity", "InstanceNormalization", "IsNaN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "LogSoftmax", "LpNormalization", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg",
    "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize",
    "Round", "ScatterND", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus", "Softsign",
    "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose",
    "Trilu", "Unsqueeze", "Where",
})  # fmt: skip
# The parts that each message may have; training, sparse weights, types that are no tensors and the like are none.
_PARTS = {
    "ModelProto": {"ir_version", "opset_import", "producer_name", "producer_version", "graph"},
    "GraphProto": {"name", "node", "initializer", "input", "output", "value_info"},
    "NodeProto": {"name", "op_type", "domain", "input", "output", "attribute"},
    "ValueInfoProto": {"name", "type"},
    "TypeProto": {"tensor_type"},
    "Tensor": {"elem_type", "shape"},
    "TensorShapeProto": {"dim"},
    "Dimension": {"dim_value", "dim_param"},
}
_NUMBERS = {  # type of an attribute -> the part that holds it
    AttributeProto.FLOAT: "f", AttributeProto.INT: "i", AttributeProto.STRING: "s", AttributeProto.TENSOR: "t",
    AttributeProto.FLOATS: "floats", AttributeProto.INTS: "ints",
}  # fmt: skip
BYTES = {
    TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1, TensorProto.UINT8: 1, TensorProto.INT16: 2, TensorProto.UINT16: 2,
    TensorProto.INT32: 4, TensorProto.UINT32: 4, TensorProto.INT64: 8, TensorProto.UINT64: 8, TensorProto.BOOL: 1,
}  # fmt: skip
"""Type of a tensor -> bytes of each of its numbers."""
_EINSUM = re.compile(rb"[ a-zA-Z]+(,[ a-zA-Z]+)?->[ a-zA-Z]*")  # ONNX never ends with some others
_LISTS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_LIST_OF = {  # where the numbers of a type are, if they are not `raw_data`; for all others `int32_data`
    TensorProto.FLOAT: "float_data", TensorProto.DOUBLE: "double_data", TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data", TensorProto.UINT64: "uint64_data",
}  # fmt: skip
_SMALL = 1024  # bytes of a weight that may hold shapes


def form_problems(model: Any) -> Iterator[str]:
    """What a network does not have, the first thing first."""
    yield from _unexpected(model)
    graph = model.graph
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if len(versions) != len(model.opset_import) or len(versions) != 1 or versions[0] not in _OPSETS:
        yield "it does not say which of ONNX's own operations it means"
    if model.ir_version not in _IR_VERSIONS:
        yield f"its version of the format is {model.ir_version}"
    if len(graph.node) > MOST_NODES:
        yield f"it has {len(graph.node):,} operations, more than {MOST_NODES:,}"
    yield from _unexpected(graph)
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        for part in (value, value.type, tensor, tensor.shape, *tensor.shape.dim):
            yield from _unexpected(part)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATIONS:
            yield f"it has the operation {node.domain}.{node.op_type}"[:120]
        yield from _unexpected(node)
        if len({attribute.name for attribute in node.attribute}) < len(node.attribute):
            yield f"the operation {node.op_type} has a setting twice"
        for attribute in node.attribute:
            yield from _attribute_problems(attribute, node.op_type)
    for tensor in graph.initializer:
        yield from _tensor_problems(tensor)
    yield from _hidden(model)


def check_use(node: Any, schema: Any) -> None:
    """Raise ValueError unless an operation has the inputs, outputs and settings that ONNX says: engines rely on it."""
    least, most = (schema.min_input, schema.min_output), (schema.max_input, schema.max_output)
    counts = len(node.input), len(node.output)
    kinds = {name: (each.type.value, each.required) for name, each in schema.attributes.items()}
    found = {each.name: each.type for each in node.attribute}
    if (
        not all(low <= count <= high for low, count, high in zip(least, counts, most, strict=True))
        or not all(node.output)
        or not all(name or _is_optional(schema.inputs, at) for at, name in enumerate(node.input))
        or not all(name in kinds and kinds[name][0] == kind for name, kind in found.items())
        or not all(name in found for name, (_, is_required) in kinds.items() if is_required)
    ):
        raise ValueError(f"the operation {node.op_type} is used in another way than ONNX says")


def _is_optional(parameters: Any, at: int) -> bool:
    return bool(parameters[min(at, len(parameters) - 1)].option == OpSchema.FormalParameterOption.Optional)


def _unexpected(message: Any) -> Iterator[str]:
    name, parts = message.DESCRIPTOR.name, message.ListFields()
    if others := {field.name for field, _ in parts} - _PARTS[name]:
        yield f"a {name} has {', '.join(sorted(others))}"
    for field, held in parts:
        texts = [] if field.type != field.TYPE_STRING else [held] if isinstance(held, str | bytes) else held
        if not all(map(_is_text, texts)):
            yield f"the {field.name} of a {name} is not text"


def _is_text(found: str | bytes) -> bool:
    return isinstance(found, str)  # protobuf gives bytes for what is not in UTF-8


def _attribute_problems(attribute: Any, operation: str) -> Iterator[str]:
    held = {field.name for field, _ in attribute.ListFields()} - {"name", "type"}
    if not _is_text(attribute.name):
        yield f"the name of a setting of {operation} is not text"
    if attribute.type not in _NUMBERS or not held <= {_NUMBERS[attribute.type]}:
        yield f"the operation {operation} holds {', '.join(sorted(held)) or 'nothing'}, which is no number"
    elif not attribute.s.isascii():
        yield f"a setting of {operation} is not text"
    elif operation == "Einsum" and not _EINSUM.fullmatch(attribute.s):
        yield f"it has the Einsum {attribute.s!r}"[:120]
    elif attribute.type == AttributeProto.TENSOR:
        yield from _tensor_problems(attribute.t)


def _tensor_problems(tensor: Any) -> Iterator[str]:
    """What a weight does not have. One that has no problem loses its bytes, unless it is small."""
    if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
        yield "its weights are in another file"
        return
    if tensor.HasField("segment") or tensor.HasField("data_location") or tensor.metadata_props or tensor.doc_string:
        yield "a weight has more than numbers"
    if not _is_text(tensor.name):
        yield "the name of a weight is not text"
    if tensor.data_type not in BYTES:
        yield f"a weight has the type {tensor.data_type}"
        return
    if any(side < 0 for side in tensor.dims):
        yield "a weight has a negative size"
    place, size = _LIST_OF.get(tensor.data_type, "int32_data"), math.prod(tensor.dims)
    raw = len(tensor.raw_data)
    if raw and any(len(getattr(tensor, name)) for name in _LISTS):
        yield "a weight has its numbers twice"
    elif not raw and any(len(getattr(tensor, name)) != (size if name == place else 0) for name in _LISTS):
        yield f"a weight of shape {list(tensor.dims)} has another number of numbers"[:200]
    elif raw and raw != size * BYTES[tensor.data_type]:
        yield f"a weight of shape {list(tensor.dims)} has {raw:,} bytes"[:200]
    if raw > _SMALL:
        tensor.ClearField("raw_data")


def _hidden(model: Any) -> Iterator[str]:
    """Parts that this version of ONNX does not know, and an engine may."""
    before = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != before:
        yield "it has parts that ONNX does not know"
