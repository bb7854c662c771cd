"""Numbers that shapes are made of, computed before a network runs: of operations as exported networks have them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
_LARGEST = 2**31  # of numbers that are computed with: no product of two overflows
_FROM = {  # operation -> the inputs whose numbers give the shape of its output
    "ConstantOfShape": (0,), "Range": (0, 1, 2), "Reshape": (1,), "Expand": (1,), "Tile": (1,), "Slice": (1, 2, 3, 4),
    "Pad": (1, 3), "Resize": (2, 3), "Unsqueeze": (1,), "Squeeze": (1,), "Split": (1,), "TopK": (1,), "OneHot": (1,),
}  # fmt: skip
_OF_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Mod": np.mod, "Equal": operator.eq,
    "Less": operator.lt, "LessOrEqual": operator.le, "Greater": operator.gt, "GreaterOrEqual": operator.ge,
    "And": np.logical_and, "Or": np.logical_or, "Min": np.minimum, "Max": np.maximum, "Div": np.divide,
}  # fmt: skip
_OF_ONE: dict[str, Callable[[Any], Any]] = {
    "Neg": operator.neg, "Abs": np.abs, "Not": np.logical_not, "Ceil": np.ceil, "Floor": np.floor, "Sqrt": np.sqrt,
}  # fmt: skip


def numbers_of(node: Any) -> list[str]:
    """The inputs of a node whose numbers give the shape of its output."""
    places = _FROM.get(node.op_type, (1,) if node.op_type.startswith("Reduce") else ())
    return [node.input[at] for at in places if at < len(node.input)]


def needed_for_shapes(nodes: Sequence[Any]) -> set[str]:
    """The names of the values that shapes depend on, by their numbers."""
    makers = {name: node for node in nodes for name in node.output}
    waiting = [name for node in nodes for name in numbers_of(node)]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name and name not in found:
            found.add(name)
            if (node := makers.get(name)) is not None and node.op_type not in ("Shape", "Size"):
                waiting += node.input
    return found


def value_of(node: Any, inputs: Sequence[Array | None], first: Sequence[int], shape: Sequence[int]) -> Array:
    """What a node gives, a (*shape) array, from its inputs; `first` is the shape of the first, None is one left out.

    Raises ValueError for an operation or numbers that no shape of an exported network comes from.
    """
    settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    try:
        with np.errstate(all="ignore"):
            found: Array = _value(node.op_type, settings, inputs, first, shape)
        if found.shape != tuple(shape):
            raise ValueError(f"{node.op_type} gives {found.shape}")
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, AttributeError) as error:
        raise ValueError(f"a shape comes from the operation {node.op_type}, of numbers that none has") from error
    return found


def _value(kind: str, settings: Any, inputs: Sequence[Any], first: Sequence[int], shape: Sequence[int]) -> Any:
    match kind:
        case "Constant":
            return _constant(settings)
        case "Shape":
            return np.array(first[settings.get("start", 0) : settings.get("end")], np.int64)
        case "Size":
            return np.array(int(np.prod(first)), np.int64)
        case "ConstantOfShape":
            fill = numpy_helper.to_array(settings["value"]).ravel() if "value" in settings else np.zeros(1, np.float32)
            return np.full(shape, fill[0])
        case "Identity" | "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten":
            return np.asarray(inputs[0]).reshape(shape)
        case "Expand":
            return np.broadcast_to(inputs[0], shape)
        case "Transpose":
            return np.transpose(inputs[0], settings.get("perm"))
        case "Concat":
            return np.concatenate(list(inputs), settings["axis"])
        case "Gather":
            return np.take(inputs[0], inputs[1], settings.get("axis", 0))
        case "OneHot":
            return _one_hot(inputs, settings.get("axis", -1))
        case "Slice":
            return _sliced(*inputs)
        case "Where":
            return np.where(*inputs)
        case "Cast":
            return _cast(_moderate(inputs[0]), helper.tensor_dtype_to_np_dtype(settings["to"]))
        case "Clip":
            low, high = (*inputs[1:], None, None)[:2]
            return np.clip(_moderate(inputs[0]), low, high)
    return _computed(kind, settings, [_moderate(each) for each in inputs])


def _computed(kind: str, settings: Any, inputs: Sequence[Array]) -> Array:
    if kind in _OF_ONE:
        return np.asarray(_OF_ONE[kind](*inputs))
    one, two = inputs
    if kind in ("Div", "Mod") and one.dtype.kind == "i":  # libraries differ where numbers are negative
        if settings.get("fmod") or (two <= 0).any() or (kind == "Div" and (one < 0).any()):
            raise ValueError("a division by what is not positive")
        return np.asarray(one // two if kind == "Div" else one % two)
    return np.asarray(_OF_TWO[kind](one, two))


def _constant(settings: Any) -> Array:
    if "value" in settings:
        return np.asarray(numpy_helper.to_array(settings["value"]))
    name, value = next(iter(settings.items()))
    return np.array(value, {"value_int": np.int64, "value_float": np.float32}[name.removesuffix("s")])


def _sliced(data: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Array:
    cuts = [slice(None)] * data.ndim
    chosen = range(len(starts)) if axes is None else axes
    for at, (start, end, axis) in enumerate(zip(starts, ends, chosen, strict=True)):
        cuts[int(axis)] = slice(int(start), int(end), 1 if steps is None else int(steps[at]))
    return np.asarray(data[tuple(cuts)])


def _one_hot(inputs: Sequence[Array], axis: int) -> Array:
    at, depth, (off, on) = inputs
    if axis != -1 or (at < 0).any():
        raise ValueError("a OneHot of another form")
    return np.asarray(np.where(at[..., None] == np.arange(int(depth.item())), on, off))


def _cast(value: Array, to: Any) -> Array:
    if np.dtype(to).kind not in "bif" or not np.isfinite(value).all():
        raise ValueError("a cast that libraries do differently")
    return value.astype(to)


def _moderate(value: Array) -> Array:
    if value.dtype.kind != "b" and not (np.abs(value.astype(np.float64)) < _LARGEST).all():
        raise ValueError("a number that is too large")
    return value
