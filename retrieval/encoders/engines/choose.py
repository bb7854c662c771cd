"""Which engine runs an encoder."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.encoders.engines.device import may_have_gpu, wanted_device
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.errors import EncoderError
from retrieval.installed import how_to_install, needs

if TYPE_CHECKING:
    from retrieval.encoders.engines.base import ExportedEngine

ENGINES = ("onnx", "openvino", "torch")
ENGINE = "LOOKALIKE_ENGINE"  # the environment variable that `--engine` sets, for this process and its children


def asked(wanted: str | None = None) -> str | None:
    """The engine that was asked for, here or by LOOKALIKE_ENGINE; raises EncoderError for an unknown one."""
    name = wanted or os.environ.get(ENGINE) or None
    if name is not None and name not in ENGINES:
        raise EncoderError(f"there is no engine {name!r}: choose onnx, openvino or torch.")
    return name


def choose(exported: Path, wanted: str | None = None, only: str | None = None) -> str | None:
    """The engine for the exported network at this path, or None for torch; see `Encoder.load`.

    `only` is the one engine that gives the vectors, if the network computes in int8. Raises EncoderError for an unknown
    engine or device, for another engine than that one, for an engine that needs the exported network where there is
    none, and for a device that the engine cannot use.
    """
    name = asked(wanted)
    if only is not None:
        if name not in (None, only):
            raise EncoderError(
                f"{exported.parents[1].name} is in int8, and its vectors are those of {only}: {name} would give "
                "others. Leave out the engine, or build it again with that engine or without --precision int8."
            )
        name = only
    if (device := wanted_device()) in ("cuda", "mps"):
        _check_gpu(device, name)
        return None
    if name == "torch":
        return None
    if exported.is_file():
        return name or (None if device == "auto" and _sees_gpu() else "onnx")
    if name is None:
        return None
    raise EncoderError(
        f"{name} needs the exported network, and {exported.parents[1].name} has no {exported.parent.name}/"
        f"{exported.name}: leave out the engine, or choose torch."
    )


def open_exported(
    file: NetworkFile, engine: str, *, keep_memory: bool = False, is_int8: bool = False
) -> ExportedEngine:
    """An exported network in the engine of this name.

    Raises EncoderError if the engine cannot run it, and MissingExtraError if it is not installed. With `keep_memory`,
    ONNX Runtime keeps what it has once needed, which is faster where many pictures follow. If it `is_int8`, no other
    engine stands in for this one.
    """
    if engine == "onnx":
        from retrieval.encoders.engines.onnx import OnnxEngine

        return OnnxEngine(file, keep_memory=keep_memory)
    with needs("--engine openvino"):
        from retrieval.encoders.engines.openvino import OpenVinoEngine
    return OpenVinoEngine(file, is_int8=is_int8)


def _check_gpu(device: str, engine: str | None) -> None:
    """Raise EncoderError if this engine, or None for the default, cannot use a GPU."""
    if engine not in (None, "torch"):
        raise EncoderError(f"{engine} runs on the processor, not on {device}: leave out the engine or the device.")
    if not importlib.util.find_spec("torch"):
        raise EncoderError(
            f"the device {device} needs torch, which is not installed: {how_to_install('torch')}, or choose cpu."
        )


def _sees_gpu() -> bool:
    if not may_have_gpu() or not importlib.util.find_spec("torch"):
        return False
    from retrieval.encoders.engines.torch import device_named

    return device_named("auto").type == "cuda"
