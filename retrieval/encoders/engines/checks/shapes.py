"""The shapes of all values of an exported network, for a number of pictures or texts, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import onnx
from onnx import TypeProto, helper, numpy_helper

from retrieval.encoders.engines.checks.form import BYTES, check_use
from retrieval.encoders.engines.checks.values import Array, needed_for_shapes, numbers_of, value_of
from retrieval.encoders.engines.checks.work import Shape, work_of, workspace_of

_MOST_KNOWN = 65_536  # numbers of a value that shapes are made of


@dataclass
class Costs:
    """What a pass through a network costs: bytes of tensors, and an estimate of multiply-adds."""

    largest: int = 0
    """Bytes of the largest tensor."""
    held: int = 0
    """Bytes of all tensors that are needed later, at most, if operations run in the order of the file."""
    constants: int = 0
    """Bytes of all tensors that are computed from weights and shapes: an engine may do so at once, and keep them."""
    work: int = 0


@dataclass
class Walk:
    """What is known of a network's values after some of its operations."""

    types: dict[str, Any] = field(default_factory=dict)
    """Name -> `TypeProto`."""
    shapes: dict[str, Shape] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)
    """Values that shapes depend on."""
    constant: set[str] = field(default_factory=set)
    """Values that depend on weights and shapes alone."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of the values that are needed later."""
    held: int = 0
    """The sum of these."""
    costs: Costs = field(default_factory=Costs)

    def add(self, name: str, kind: Any) -> None:
        """A value of this name and type; raises ValueError for a name that is taken, and a shape that is not known."""
        if name in self.types:
            raise ValueError(f"it has two values of the name {name}")
        self.types[name], self.shapes[name] = kind, shape_of(kind, name)


class Graph:
    """The operations of a network whose form has been checked."""

    def __init__(self, model: Any) -> None:
        """Raises ValueError for two weights of one name, and operations that are used in another way than ONNX says."""
        constants = [node for node in model.graph.node if _is_weight(node)]
        self._nodes = [node for node in model.graph.node if not _is_weight(node)]
        self._needed = needed_for_shapes(self._nodes)
        self._last = {name: at for at, node in enumerate(self._nodes) for name in node.input}
        self._last |= {output.name: len(self._nodes) for output in model.graph.output}
        self._versions = {"opset_imports": list(model.opset_import), "ir_version": model.ir_version}
        version = model.opset_import[0].version
        self._schema = cache(lambda operation: onnx.defs.get_schema(operation, version, ""))
        for node in model.graph.node:
            check_use(node, self._schema(node.op_type))
        self._weights = Walk()
        weights = [(tensor.name, tensor) for tensor in model.graph.initializer]
        for name, tensor in (*weights, *((node.output[0], node.attribute[0].t) for node in constants)):
            self._weights.add(name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
            self._weights.constant.add(name)
            if name in self._needed:
                self._weights.known[name] = numpy_helper.to_array(tensor)

    def walk(self, inputs: Mapping[str, tuple[int, Shape]]) -> Walk:
        """Go through all operations, for inputs of these types and shapes.

        Raises ValueError, or what ONNX raises, if a shape depends on more than those.
        """
        start = self._weights
        done = Walk(dict(start.types), dict(start.shapes), dict(start.known), set(start.constant))
        for name, (number, shape) in inputs.items():
            done.add(name, helper.make_tensor_type_proto(number, shape))
        for at, node in enumerate(self._nodes):
            self._step(done, at, node)
        return done

    def _step(self, done: Walk, at: int, node: Any) -> None:
        taken, given = [name for name in node.input if name], list(node.output)
        if missing := [name for name in taken if name not in done.types]:
            raise ValueError(f"the operation {node.op_type} takes {missing[0]}, which does not exist yet")
        asked = [name for name in numbers_of(node) if name in done.known]
        found = onnx.shape_inference.infer_node_outputs(
            self._schema(node.op_type),
            node,
            {name: done.types[name] for name in taken},
            {name: numpy_helper.from_array(done.known[name], name) for name in asked},
            **self._versions,
        )
        for name in given:
            done.add(name, found.get(name, TypeProto()))
            if name in self._needed:
                if math.prod(done.shapes[name]) > _MOST_KNOWN:
                    raise ValueError(f"a shape comes from {done.shapes[name]} numbers")
                first = done.shapes[taken[0]] if taken else ()
                inputs = [done.known.get(each) if each else None for each in node.input]
                done.known[name] = value_of(node, inputs, first, done.shapes[name])
        self._count(done, at, node, taken, given)

    def _count(self, done: Walk, at: int, node: Any, taken: list[str], given: list[str]) -> None:
        """Add up what an operation costs."""
        costs, inputs, outputs = done.costs, *([done.shapes[each] for each in names] for names in (taken, given))
        sizes = {name: size_of(done.types[name], done.shapes[name]) for name in given}
        costs.work += work_of(node, inputs, outputs)
        costs.largest = max(costs.largest, workspace_of(node, inputs), *sizes.values())
        if node.op_type in ("Shape", "Size") or done.constant.issuperset(taken):
            done.constant.update(given)
            costs.constants += sum(sizes.values())
        done.sizes |= sizes
        done.held += sum(sizes.values())
        costs.held = max(costs.held, done.held)
        for name in (*taken, *given):
            if self._last.get(name, at) <= at:
                done.held -= done.sizes.pop(name, 0)


def _is_weight(node: Any) -> bool:
    """Whether an operation does nothing but give a tensor of the file."""
    return node.op_type == "Constant" and len(node.output) == 1 and [each.name for each in node.attribute] == ["value"]


def shape_of(kind: Any, name: str) -> Shape:
    """The shape of a tensor, whose sides are all known; else raises ValueError."""
    sides = kind.tensor_type.shape.dim
    if not kind.tensor_type.HasField("shape") or not all(side.HasField("dim_value") for side in sides):
        raise ValueError(f"the shape of {name} is only known when it runs")
    if any(side.dim_value < 0 for side in sides):
        raise ValueError(f"the shape of {name} is negative")
    return tuple(side.dim_value for side in sides)


def size_of(kind: Any, shape: Shape) -> int:
    """Bytes of a tensor; raises ValueError for one of other things than numbers."""
    if (number := kind.tensor_type.elem_type) not in BYTES:
        raise ValueError(f"a value has the type {number}")
    return BYTES[number] * math.prod(shape)
