"""Exported networks from strangers: what a file asks for is looked at before an engine reads it.

An ONNX file can name other files, hold programs that loop, and ask for far more memory than it has bytes. A network
that timm and torch export does none of this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from retrieval.encoders.engines.base import BIAS, EMBEDDING, FEATURE_MAP, PIXELS
from retrieval.errors import EncoderError, first_line

_MOST_BYTES = 2**31 - 1  # of a file; protobuf reads no more
_MOST_NODES = 50_000
_MOST_TENSOR = 2**28  # bytes of one tensor between two layers, for one picture: a hundred times what networks need
_OPSETS = range(13, 24)
# Operations that compute numbers from numbers. Those that hold graphs (If, Loop, Scan), draw random numbers, or work on
# texts, sequences and other types are none of them.
_OPERATIONS = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Ceil",
    "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace",
    "DequantizeLinear", "Div", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LayerNormalization",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "MatMul", "Max", "MaxPool", "Mean",
    "Min", "Mish", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Resize", "Round", "ScatterElements", "ScatterND", "Shape", "Sigmoid",
    "Sign", "Sin", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze",
    "Sub", "Sum", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where",
})  # fmt: skip
_BYTES = {
    TensorProto.FLOAT: 4, TensorProto.DOUBLE: 8, TensorProto.FLOAT16: 2, TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1, TensorProto.UINT8: 1, TensorProto.INT16: 2, TensorProto.UINT16: 2,
    TensorProto.INT32: 4, TensorProto.UINT32: 4, TensorProto.INT64: 8, TensorProto.UINT64: 8, TensorProto.BOOL: 1,
}  # fmt: skip


def check_exported(path: Path, input_size: Sequence[int]) -> None:
    """Raise EncoderError unless an ONNX file is a network of plain operations, for (N, *input_size) float32 pixels."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        model = onnx.load(path, load_external_data=False)
        if problem := next(_problems(model, input_size), None):
            raise ValueError(problem)
        _check_sizes(model)
    except (ValueError, DecodeError, onnx.shape_inference.InferenceError) as error:
        raise EncoderError(
            f"{path.name} is not a network that is exported here: {first_line(error)}. Build the artifact again, or "
            "choose the engine torch."
        ) from error


def _problems(model: Any, input_size: Sequence[int]) -> Iterator[str]:
    """What a network does not have, the first thing first."""
    graph = model.graph
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if len(versions) != len(model.opset_import) or len(versions) != 1 or versions[0] not in _OPSETS:
        yield "it does not say which of ONNX's own operations it means"
    if model.functions or graph.sparse_initializer:
        yield "it has functions or sparse weights"
    if len(graph.node) > _MOST_NODES:
        yield f"it has {len(graph.node):,} operations, more than {_MOST_NODES:,}"
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATIONS:
            yield f"it has the operation {node.domain}.{node.op_type}"[:120]
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse_tensor"):
                yield f"the operation {node.op_type} holds a graph"
            if attribute.HasField("t"):
                yield from _tensor_problems(attribute.t)
    for tensor in graph.initializer:
        yield from _tensor_problems(tensor)
    inputs = [each for each in graph.input if each.name not in {tensor.name for tensor in graph.initializer}]
    if [each.name for each in inputs] != [PIXELS] or _shape(inputs[0])[1:] != list(input_size):
        yield f"its input must be {PIXELS}, of shape (N, {', '.join(map(str, input_size))})"
    names = [each.name for each in graph.output]
    if names not in ([EMBEDDING], [EMBEDDING, FEATURE_MAP, BIAS]):
        yield f"its outputs are {', '.join(names)}"[:200]


def _tensor_problems(tensor: Any) -> Iterator[str]:
    if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
        yield "its weights are in another file"
    elif tensor.data_type not in _BYTES:
        yield f"a weight has the type {tensor.data_type}"
    elif any(side < 0 for side in tensor.dims):
        yield "a weight has a negative size"
    elif tensor.HasField("raw_data") and len(tensor.raw_data) != math.prod(tensor.dims) * _BYTES[tensor.data_type]:
        yield f"a weight of shape {list(tensor.dims)} has {len(tensor.raw_data):,} bytes"[:200]


def _shape(value: Any) -> list[int | None]:
    sides = value.type.tensor_type.shape.dim
    return [side.dim_value if side.HasField("dim_value") else None for side in sides]


def _check_sizes(model: Any) -> None:
    """Raise ValueError if a tensor between two layers would be too large for one picture, as far as shapes tell."""
    graph = model.graph
    for tensor in graph.initializer:  # their bytes are not needed for shapes, but small ones hold shapes
        if len(tensor.raw_data) > 1024:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    for value in (*inferred.value_info, *inferred.output):
        shape = _shape(value)
        if None not in shape and 4 * math.prod(side or 0 for side in shape) > _MOST_TENSOR:
            raise ValueError(f"a picture would need a tensor of shape {shape}")
