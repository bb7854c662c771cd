"""Quantization: an exported network to one that computes in int8, calibrated on pictures, with NNCF."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from retrieval.arrays import Floats
from retrieval.encoders.engines.base import EMBEDDING, FEATURE_MAP, PIXELS
from retrieval.errors import EncoderError, first_line
from retrieval.installed import needs

_TELEMETRY = "openvino_telemetry"
_OF_TRANSFORMERS = {"Softmax", "LayerNormalization"}


def check_installed() -> None:
    """Raise MissingExtraError unless what `quantize` needs is installed."""
    with _quiet(), needs("--precision int8"):
        import nncf  # noqa: F401


def quantize(exported: Path, target: Path, pixels: Sequence[Floats]) -> None:
    """Write the exported network `exported` to `target` as one that computes in int8 (QDQ form).

    `pixels` are (3, H, W) float32 inputs, whose values give the ranges of the integers. The head stays in float32: it
    is a thousandth of the work, and the parts of an embedding then add up to it. So do the parts of a network that only
    one output needs. Weights have seven bits: with eight, processors without VNNI overflow, and give other vectors.
    Raises EncoderError if NNCF cannot quantize the network, and MissingExtraError if it is not installed.
    """
    check_installed()
    with _quiet():
        import onnx

        graph = onnx.load(exported).graph
        is_transformer = not _OF_TRANSFORMERS.isdisjoint(node.op_type for node in graph.node)
        # The slow bias correction takes twice the time, and mAP falls by less; it fails for some networks.
        for fast in (True,) if is_transformer else (False, True):
            try:
                made = _quantized(onnx.load(exported), pixels, _head(graph), is_transformer, fast)
                break
            except Exception as error:  # NNCF and ONNX Runtime have classes of their own
                if fast:
                    raise EncoderError(f"NNCF cannot quantize the exported network: {first_line(error)}") from error
        onnx.save(made, target)


def _quantized(model: Any, pixels: Sequence[Floats], head: list[str], is_transformer: bool, fast: bool) -> Any:
    import nncf
    from nncf.quantization import advanced_parameters as advanced
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return nncf.quantize(
        model,
        nncf.Dataset([{PIXELS: one[None]} for one in pixels]),
        subset_size=len(pixels),
        fast_bias_correction=fast,
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
        ignored_scope=nncf.IgnoredScope(names=head, validate=False),
        advanced_parameters=advanced.AdvancedQuantizationParameters(
            overflow_fix=advanced.OverflowFix.ENABLE,
            # ONNX Runtime has no integer convolution for inputs with a range for each channel.
            activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
            activations_range_estimator_params=RangeEstimatorParametersSet.MEAN_QUANTILE,
        ),
    )


def _head(graph: Any) -> list[str]:
    """The names of the nodes that either the embedding or its parts need, but not both: what follows the feature map.

    Of a network whose embedding has no parts, none.
    """
    if FEATURE_MAP not in [output.name for output in graph.output]:
        return []
    return sorted(_needed_for(graph, EMBEDDING) ^ _needed_for(graph, FEATURE_MAP))


def _needed_for(graph: Any, output: str) -> set[str]:
    makers = {made: node for node in graph.node for made in node.output}
    found: set[str] = set()
    waiting = [output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += node.input
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF without its progress bars, and without the statistics that it would send to its makers."""
    blocked = _TELEMETRY not in sys.modules
    if blocked:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # importing it raises ImportError, as NNCF allows
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            logging.getLogger("nncf").setLevel(logging.ERROR)
            yield
    finally:
        if blocked:
            del sys.modules[_TELEMETRY]
