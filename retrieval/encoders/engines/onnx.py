"""ONNX Runtime: runs an exported network on the processor."""

from __future__ import annotations

import os
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is imported, which else leaves a device's id in the user's cache

import onnxruntime

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
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.errors import EncoderError, first_line

onnxruntime.set_default_logger_severity(3)  # errors; the rest is advice on the graph
onnxruntime.disable_telemetry_events()


class OnnxEngine(ExportedEngine):
    """An exported network in ONNX Runtime. Raises EncoderError for a file that it cannot run."""

    name: Name = "onnx"

    def __init__(self, file: NetworkFile, *, keep_memory: bool = False) -> None:
        """With `keep_memory`, it keeps what it has once needed: a tenth faster, for a build."""
        self._file, self._keep = file, keep_memory
        self._pid, self._session = os.getpid(), _session(file.source(), file.name, keep_memory)
        file.loaded()
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        self.dim = width_of(outputs.get(EMBEDDING), file.name)
        self.explains = {FEATURE_MAP, BIAS} <= outputs.keys()
        keep_in_child(self, "_session")

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        """See `ExportedEngine`."""
        if self._pid != os.getpid():  # the threads of a session do not exist in a forked child
            self._pid, self._session = os.getpid(), _session(self._file.read(), self._file.name, self._keep)
        try:
            return list(self._session.run(outputs, inputs))
        except Exception as error:  # ONNX Runtime has a class for each of its states
            raise EncoderError(f"{self._file.name} cannot embed what it was given: {first_line(error)}") from error


def _session(model: str | bytes, name: str, keep_memory: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = keep_memory
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EncoderError(f"{name} is not a network that ONNX Runtime can run: {first_line(error)}") from error
