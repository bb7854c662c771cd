"""The shapes of all values of an exported network, for a number of pictures or texts, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import onnx
from onnx import TypeProto, helper, numpy_helper

from retrieval.encoders.engines.checks.form import BYTES
from retrieval.encoders.engines.checks.values import Array, needed_for_shapes, value_of
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
    """Bytes of all tensors that are computed from weights alone: an engine may do so at once, and keep them."""
    work: int = 0


@dataclass
class Walk:
    """What is known of a network's values after some of its operations."""

    types: dict[str, Any]
    """Name -> `TypeProto`."""
    shapes: dict[str, Shape]
    known: dict[str, Array]
    """Values that shapes depend on."""
    constant: set[str]
    """Values that depend on weights alone."""
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
        self._nodes, self._weights = model.graph.node, model.graph.initializer
        self._needed = needed_for_shapes(self._nodes)
        self._last = {name: at for at, node in enumerate(self._nodes) for name in node.input}
        self._last |= {output.name: len(self._nodes) for output in model.graph.output}
        self._versions = {"opset_imports": list(model.opset_import), "ir_version": model.ir_version}
        version = model.opset_import[0].version
        self._schema = cache(lambda operation: onnx.defs.get_schema(operation, version, ""))

    def walk(self, inputs: Mapping[str, tuple[int, Shape]]) -> Walk:
        """Go through all operations, for inputs of these types and shapes.

        Raises ValueError, or what ONNX raises, if a shape depends on more than those.
        """
        done = Walk({}, {}, {}, set())
        for name, (number, shape) in inputs.items():
            done.add(name, helper.make_tensor_type_proto(number, shape))
        for tensor in self._weights:
            done.add(tensor.name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
            done.constant.add(tensor.name)
            if tensor.name in self._needed:
                done.known[tensor.name] = numpy_helper.to_array(tensor)
        for at, node in enumerate(self._nodes):
            self._step(done, at, node)
        return done

    def _step(self, done: Walk, at: int, node: Any) -> None:
        taken, given = [name for name in node.input if name], [name for name in node.output if name]
        if missing := [name for name in taken if name not in done.types]:
            raise ValueError(f"the operation {node.op_type} takes {missing[0]}, which does not exist yet")
        found = onnx.shape_inference.infer_node_outputs(
            self._schema(node.op_type),
            node,
            {name: done.types[name] for name in taken},
            {name: numpy_helper.from_array(done.known[name], name) for name in taken if name in done.known},
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
        if done.constant.issuperset(taken):
            done.constant.update(given)
            costs.constants += sum(sizes.values())
        done.sizes |= sizes
        done.held += sum(sizes.values())
        costs.held = max(costs.held, done.held)
        for name in (*taken, *given):
            if self._last.get(name, at) <= at:
                done.held -= done.sizes.pop(name, 0)


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
