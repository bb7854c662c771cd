"""OpenVINO: runs an exported network on the processor; an extra that has to be installed."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import openvino

from retrieval.encoders.engines.base import (
    BIAS,
    EMBEDDING,
    FEATURE_MAP,
    ExportedEngine,
    Name,
    keep_in_child,
    threads,
    width_of,
)
from retrieval.encoders.engines.onnx import OnnxEngine
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.errors import EncoderError, first_line


class OpenVinoEngine(ExportedEngine):
    """An exported network in OpenVINO. Raises EncoderError for a file that it cannot run."""

    name: Name = "openvino"

    def __init__(self, file: NetworkFile, *, is_int8: bool = False) -> None:
        """`is_int8` says that no other engine gives the same vectors."""
        self._file, self._is_int8 = file, is_int8
        self._pid, self._network = os.getpid(), _compiled(file)
        file.loaded()
        outputs = {name: output.partial_shape for output in self._network.outputs for name in output.names}
        shape = [None if side.is_dynamic else side.get_length() for side in outputs.get(EMBEDDING, [])]
        self.dim = width_of(shape, file.name)
        self.explains = {FEATURE_MAP, BIAS} <= outputs.keys()
        keep_in_child(self, "_network")

    @cached_property
    def _in_child(self) -> OnnxEngine:
        """What runs the network in a forked child, where OpenVINO waits for threads that do not exist."""
        return OnnxEngine(self._file)

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        """See `ExportedEngine`."""
        if self._pid != os.getpid():
            if self._is_int8:
                raise EncoderError(
                    "OpenVINO cannot run in a process that was forked after it was loaded, and in int8 ONNX Runtime "
                    "gives other vectors: load the encoder in that process."
                )
            return self._in_child.run(outputs, inputs)
        try:
            found = self._network(inputs)
            return [found[name].copy() for name in outputs]  # the next call writes into the same memory
        except Exception as error:  # OpenVINO raises RuntimeError for everything
            raise EncoderError(f"{self._file.name} cannot embed what it was given: {first_line(error)}") from error


def _compiled(file: NetworkFile) -> Any:
    settings = {
        "INFERENCE_NUM_THREADS": threads(),
        "NUM_STREAMS": 1,
        "ENABLE_MMAP": False,  # a mapped file could not be replaced on Windows
        "INFERENCE_PRECISION_HINT": "f32",  # on some processors it would compute in bfloat16
    }
    try:
        core, source = openvino.Core(), file.source()
        return core.compile_model(source if isinstance(source, str) else core.read_model(source), "CPU", settings)
    except Exception as error:
        raise EncoderError(f"{file.name} is not a network that OpenVINO can run: {first_line(error)}") from error
