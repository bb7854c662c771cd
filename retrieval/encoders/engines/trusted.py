"""Exported networks from strangers: what a file asks for is looked at before an engine reads it.

An ONNX file can name other files, hold programs that loop, and ask for far more memory than it has bytes. A network
that timm and torch export does none of this: given the shapes of its inputs, the shapes of all its values are known.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto

from retrieval.encoders.engines.base import BIAS, EMBEDDING, FEATURE_MAP, PIXELS, ExportedEngine, most_at_once
from retrieval.encoders.engines.checks.form import form_problems
from retrieval.encoders.engines.checks.shapes import Graph, Walk
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.errors import EncoderError, first_line, short
from retrieval.files.remembered import remembered
from retrieval.installed import VERSION

_MOST_BYTES = 2**31 - 1  # of a file; protobuf reads no more
_MOST_TENSOR = 2**28  # bytes of one tensor between two operations: a hundred times what most networks need
_MOST_HELD = 2**30  # bytes of all tensors that exist at once
_MOST_CONSTANTS = (2**28, 8)  # bytes of what is computed from weights and shapes: so many, and 8 for each of the file
_MOST_WORK = 10**13  # multiply-adds of a pass: three times what the largest networks of timm take that fit into a file
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
_OUTPUTS = {EMBEDDING: "ND", FEATURE_MAP: "NHWD", BIAS: "D"}
_MOST_PASSED = 64  # networks to remember
_PASSED: dict[tuple[bytes, str], None] = {}
"""What has passed: the hash of the file, and its signature. The same network is loaded again at every change."""


@dataclass(frozen=True)
class Signature:
    """What an exported network takes and gives. The first side of each input is N, the number of pictures or texts."""

    inputs: Mapping[str, tuple[str, tuple[int | None, ...]]]
    """Name -> type (`float32` or `int64`), and shape without N, with None for a side of several lengths."""
    outputs: Sequence[Sequence[str]]
    """The lists of names that its outputs may have, all float32: `embedding`, and what splits it."""
    most: int
    """N is from 1 to this."""
    lengths: tuple[int, ...] = (0,)
    """What the sides that are None can be when it runs."""


def of_pictures(input_size: Sequence[int]) -> Signature:
    """Of a network for pictures of this (3, H, W) input."""
    most = most_at_once(input_size, ExportedEngine.pixels_at_once)
    inputs = {PIXELS: ("float32", tuple(input_size))}
    return Signature(inputs, ([EMBEDDING], [EMBEDDING, FEATURE_MAP, BIAS]), most)


def check_exported(file: NetworkFile, signature: Signature) -> None:
    """Raise EncoderError unless an ONNX file is a network of plain operations with this signature, within limits.

    A large file that passed is not looked at again while it is the same, except within `reading_anew`.
    """

    def passed() -> str:
        _check(file, signature)
        return "plain"

    remembered([file.descriptor], f"network {VERSION} {onnx.__version__} {signature}", passed)


def _check(file: NetworkFile, signature: Signature) -> None:
    content = file.read() if file.size <= _MOST_BYTES else None
    try:
        if content is None:
            raise ValueError(f"it has {file.size:,} bytes")
        key = hashlib.sha256(content).digest(), repr(signature)
        if key in _PASSED:
            return
        model = onnx.load_model_from_string(content)
        del content
        if problem := next(_problems(model, signature, file.size), None):
            raise ValueError(problem)
        if len(_PASSED) >= _MOST_PASSED:
            _PASSED.clear()
        _PASSED[key] = None
    except Exception as error:  # a file can be wrong in as many ways as ONNX has operations
        raise EncoderError(
            f"{file.name} is not a network that is exported here: {short(first_line(error), 300)}. Build the artifact "
            "again, or choose the engine torch."
        ) from error


def _problems(model: Any, signature: Signature, size: int) -> Iterator[str]:
    """What a network does not have, the first thing first."""
    yield from form_problems(model)
    inputs = {each.name: each for each in model.graph.input}
    wanted = signature.inputs
    if len(model.graph.input) != len(wanted) or not all(
        name in inputs and _is_of(inputs[name].type.tensor_type, *kind) for name, kind in wanted.items()
    ):
        texts = (
            f"{name} of shape (N, {', '.join(str(side or 'L') for side in kind[1])})" for name, kind in wanted.items()
        )
        yield f"its inputs must be {', '.join(texts)}"
    names = [each.name for each in model.graph.output]
    if names not in [list(each) for each in signature.outputs]:
        yield f"its outputs are {', '.join(names)}"
    graph = Graph(model)
    # All that can come: what grows with N may grow faster than N.
    for number, length in itertools.product(range(1, signature.most + 1), signature.lengths):
        shapes = {
            name: (number, *(length if side is None else side for side in kind[1])) for name, kind in wanted.items()
        }
        walk = graph.walk({name: (_TYPES[kind], shapes[name]) for name, (kind, _) in wanted.items()})
        yield from _wrong_values(model, walk, number)
        yield from _too_much(walk, size)


def _is_of(found: Any, kind: str, shape: tuple[int | None, ...]) -> bool:
    """Whether an input is declared with this type, and this shape after N."""
    sides = [side.dim_value if side.HasField("dim_value") else None for side in found.shape.dim]
    return found.elem_type == _TYPES[kind] and sides == [None, *shape]


def _wrong_values(model: Any, walk: Walk, number: int) -> Iterator[str]:
    """Outputs of another type or shape, and values that are not what the file says of them."""
    sides = {"N": number}
    for output in model.graph.output:
        if output.name not in walk.types or walk.types[output.name].tensor_type.elem_type != TensorProto.FLOAT:
            yield f"its output {output.name} is not in float32"
            return
        shape, letters = walk.shapes[output.name], _OUTPUTS[output.name]
        if len(shape) != len(letters) or any(
            sides.setdefault(letter, side) != side or not side for letter, side in zip(letters, shape, strict=True)
        ):
            yield f"its output {output.name} is of shape {shape} for {number} inputs"
    for value in (*model.graph.output, *model.graph.value_info):
        stated = value.type.tensor_type
        if (found := walk.types.get(value.name)) is None:
            yield f"it describes {value.name}, which does not exist"
        elif stated.elem_type != found.tensor_type.elem_type or (
            stated.HasField("shape") and not _agrees(stated.shape.dim, walk.shapes[value.name])
        ):
            yield f"{value.name} is not what it says, but of shape {walk.shapes[value.name]}"


def _agrees(stated: Any, found: tuple[int, ...]) -> bool:
    return len(stated) == len(found) and all(
        not side.HasField("dim_value") or side.dim_value == other for side, other in zip(stated, found, strict=True)
    )


def _too_much(walk: Walk, size: int) -> Iterator[str]:
    costs, constants = walk.costs, _MOST_CONSTANTS[0] + _MOST_CONSTANTS[1] * size
    for name, found, most in (
        ("a tensor", costs.largest, _MOST_TENSOR),
        ("tensors at the same time", costs.held, _MOST_HELD),
        ("tensors that are computed from weights and shapes", costs.constants, constants),
    ):
        if found > most:
            yield f"a pass would need {name} of {found:,} bytes, more than {most:,}"
    if costs.work > _MOST_WORK:
        yield f"a pass would need about {costs.work:.1g} multiply-adds, more than {_MOST_WORK:.0g}"
