"""How much an operation computes, estimated from the shapes of what it takes and gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onnx import helper

Shape = tuple[int, ...]
_OF_A_NUMBER = 100  # multiply-adds take as long as reading or writing one number, or a power or exponential of it


def work_of(node: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """About how many multiply-adds an operation takes the time of; an upper estimate."""
    moved = sum(math.prod(shape) for shape in (*inputs, *outputs))
    return _OF_A_NUMBER * moved + _multiply_adds(node, inputs, outputs)


def workspace_of(node: Any, inputs: Sequence[Shape]) -> int:
    """Bytes that an operation needs besides what it takes and gives; 0 for nearly all."""
    if node.op_type != "ConvTranspose":
        return 0
    return 4 * math.prod(inputs[0][2:]) * math.prod(inputs[1][1:])  # what the kernels give, before it is added up


def _multiply_adds(node: Any, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    settings = {each.name: each for each in node.attribute}
    given = math.prod(outputs[0])
    window = math.prod(max(1, side) for side in settings["kernel_shape"].ints) if "kernel_shape" in settings else 1
    match node.op_type:
        case "Conv":  # weights are (outputs, inputs of a group, *kernel)
            return given * max(math.prod(inputs[1][1:]), window)
        case "ConvTranspose":  # weights are (inputs, outputs of a group, *kernel)
            return math.prod(inputs[0]) * max(math.prod(inputs[1][1:]), window)
        case "MatMul":
            return given * inputs[0][-1]
        case "Gemm":
            return given * max(inputs[0])
        case "Einsum":
            return math.prod(_sides(helper.get_attribute_value(settings["equation"]).decode(), inputs).values())
        case "MaxPool" | "AveragePool":
            return given * window
    return 0


def _sides(equation: str, inputs: Sequence[Shape]) -> dict[str, int]:
    """Letter -> side, of an Einsum of one or two inputs; one of more makes tensors that are neither taken nor given."""
    letters = equation.replace(" ", "").split("->")[0].split(",")
    pairs = [pair for each, shape in zip(letters, inputs, strict=True) for pair in zip(each, shape, strict=True)]
    return {letter: max(side for other, side in pairs if other == letter) for letter, _ in pairs}
