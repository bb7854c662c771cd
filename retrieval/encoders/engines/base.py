"""What an encoder asks of an engine, which runs its network."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import psutil

from retrieval.arrays import Floats
from retrieval.encoders.engines.device import Device
from retrieval.errors import EncoderError
from retrieval.files.system import cores
from retrieval.forking import in_child, threads_in_child

Name = Literal["onnx", "openvino", "torch"]
Precision = Literal["float32", "int8"]
# The names of an exported network's input and outputs; those after the embedding are there if it can be split.
PIXELS, EMBEDDING, FEATURE_MAP, BIAS = "pixels", "embedding", "feature_map", "bias"


@dataclass(frozen=True)
class Split:
    """Embeddings before normalisation, and what each cell of the feature map contributes to them.

    `embedding` is (N, D) float32, `parts` (N, H, W, D) float32 and `bias` (D,) float32: the sum of an image's parts and
    the bias is its embedding.
    """

    embedding: Floats
    parts: Floats
    bias: Floats


class Engine(Protocol):
    """Runs a network. An encoder calls it from one thread only; in a forked child, it works too."""

    @property
    def name(self) -> Name:
        """The name of the engine, as `--engine` takes it."""

    @property
    def device(self) -> Device:
        """Where it computes, as `--device` takes it."""

    @property
    def pixels_at_once(self) -> int:
        """As many go through the network together: with more, the system maps the memory anew for each pass."""

    @property
    def dim(self) -> int:
        """D, the dimension of an embedding."""

    @property
    def explains(self) -> bool:
        """Whether `split` can be called."""

    def embed(self, pixels: Floats) -> Floats:
        """Embeddings before normalisation, (N, D) float32, of N inputs, (N, 3, H, W) float32."""

    def split(self, pixels: Floats) -> Split:
        """The embeddings of N inputs, (N, 3, H, W) float32, as sums over the cells of their feature maps."""


def most_at_once(input_size: Sequence[int], pixels: int) -> int:
    """How many pictures go through a network of this (3, H, W) input together, for at most so many pixels; 1 to 16."""
    return max(1, min(16, pixels // (input_size[1] * input_size[2])))


def threads() -> int:
    """How many threads an engine computes with: the cores that this process may use, or OMP_NUM_THREADS if it is set.

    A forked child computes with as many as `retrieval.forking` says.
    """
    if os.getpid() != _PARENT:
        return threads_in_child()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return min(cores(), psutil.cpu_count(logical=False) or cores())  # two threads on one core slow each other down


_PARENT = os.getpid()


class ExportedEngine:
    """What the engines that run an exported network have in common."""

    name: Name
    device: Device = "cpu"
    pixels_at_once = 2 * 224 * 224
    dim: int
    explains: bool

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        """The named outputs for the named inputs, arrays with N rows each."""
        raise NotImplementedError

    def embed(self, pixels: Floats) -> Floats:
        """See `Engine`."""
        embedding: Floats = self.run([EMBEDDING], {PIXELS: pixels})[0]
        return embedding

    def split(self, pixels: Floats) -> Split:
        """See `Engine`."""
        return Split(*self.run([EMBEDDING, FEATURE_MAP, BIAS], {PIXELS: pixels}))


def keep_in_child(engine: object, name: str) -> None:
    """Never free the attribute of an engine in a forked child: that would wait for ever for the parent's threads."""
    _kept[engine] = name


def _keep() -> None:
    for engine, name in list(_kept.items()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(getattr(engine, name)))


_kept: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
in_child(_keep)


def width_of(shape: Sequence[object] | None, file: str) -> int:
    """D of an output of shape (N, D); raises EncoderError for another shape, or None."""
    if shape is None or len(shape) != 2 or not isinstance(shape[1], int) or shape[1] < 1:
        raise EncoderError(f"{file} does not give one embedding for each picture: its {EMBEDDING!r} is {shape}.")
    return shape[1]
