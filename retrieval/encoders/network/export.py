"""Export: a timm network to ONNX, held against torch before it is used."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval.arrays import Floats
from retrieval.encoders.engines.base import BIAS, EMBEDDING, FEATURE_MAP, PIXELS, Engine
from retrieval.encoders.engines.torch import TorchEngine
from retrieval.errors import EncoderError, first_line

_OPSET = 18


class _Outputs(torch.nn.Module):
    """What an exported network gives: the embedding and, if it can be split, what each cell contributes, and the bias.

    See `retrieval.encoders.engines.base.Split`.
    """

    def __init__(self, model: Any, splitting: Any) -> None:
        super().__init__()
        self.network = model if splitting is None else splitting
        self.splits = splitting is not None

    def forward(self, pixels: torch.Tensor) -> Any:
        found = self.network(pixels)
        return (*found, self.network.bias.clone()) if self.splits else found


def export(engine: TorchEngine, path: Path, input_size: tuple[int, int, int]) -> None:
    """Write the network as ONNX: float32, any number of pictures at once. Raises EncoderError if torch cannot."""
    outputs = [EMBEDDING, FEATURE_MAP, BIAS] if engine.explains else [EMBEDDING]
    network = _Outputs(engine.model, engine.splitting)
    noise = torch.rand(2, *input_size, generator=torch.Generator().manual_seed(0))
    try:
        write_onnx(network, {PIXELS: noise}, path, outputs)
    except EncoderError as error:
        raise EncoderError(f"torch cannot export {engine.model.pretrained_cfg['architecture']!r}: {error}") from error


def write_onnx(
    network: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    path: Path,
    outputs: list[str],
    also_dynamic: dict[int, str] | None = None,
) -> None:
    """Write a network as ONNX, for any number of pictures or texts at once; raises EncoderError if torch cannot.

    `inputs` are examples with two rows, as one alone would become constant. `also_dynamic` names other axes of the
    inputs that may have any length.
    """
    free: dict[str, dict[int, str]] = {name: {0: "batch"} for name in outputs if name != BIAS}
    # The exporter turns its log on before it calls the network, and would print the whole graph to stdout if it fails.
    hook = network.register_forward_pre_hook(lambda *_: torch._C._jit_set_onnx_log_enabled(False))
    free |= {name: {0: "batch", **(also_dynamic or {})} for name in inputs}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of shapes taken for constant, which the comparison finds out
            torch.onnx.export(
                network.eval(),  # the exporter leaves it in the mode that it had
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=outputs,
                dynamic_axes=free,
                opset_version=_OPSET,
                dynamo=False,  # a tenth of the time of the other exporter, and the same figures
            )
    except Exception as error:  # each network fails in its own way
        raise EncoderError(first_line(error)) from error
    finally:
        hook.remove()


def difference(one: Engine, other: Engine, pixels: Floats) -> float:
    """The most by which a cosine similarity can differ between two engines: the distance of their unit vectors.

    `pixels` is (N, 3, H, W) float32. Infinite where an embedding has no direction.
    """
    return distance(one.embed(pixels), other.embed(pixels))


def distance(one: Floats, other: Floats) -> float:
    """The largest distance of the unit vectors of two (N, D) arrays, row by row; infinite without a direction."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second)]
    if first.shape != second.shape or not all(np.isfinite(length).all() and (length > 0).all() for length in lengths):
        return float("inf")
    return float(np.linalg.norm(first / lengths[0] - second / lengths[1], axis=1).max())
