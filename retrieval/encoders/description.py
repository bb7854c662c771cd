"""What is known of an encoder without running it; its config.json, in timm's Hub format, read without torch or timm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from retrieval.encoders.engines.base import Name, Precision
from retrieval.encoders.files import CONFIG_FILE
from retrieval.encoders.preprocess import check_data_config, data_config_of
from retrieval.encoders.presets.licences import Weights
from retrieval.errors import EncoderError, short
from retrieval.untrusted.strict_json import parse_json

OWN_KEY = "lookalike"  # in config.json, for what timm's own format cannot hold
# Arguments of timm.create_model that would make it read files outside the folder, or run other code.
_NOT_FROM_A_FILE = frozenset(
    {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "scriptable", "no_jit"}
)
_OF_INT8: tuple[Name, ...] = ("onnx", "openvino")
_MOST_BYTES = 2**20
_MOST_NUMBER = 100_000  # of an argument, such as a width or a depth


@dataclass(frozen=True)
class Description:
    """What config.json says of an encoder."""

    name: str
    """The timm architecture, for example `resnet50`."""
    pretrained_cfg: dict[str, Any]
    arguments: dict[str, Any]
    """Of `timm.create_model`, besides the name and `pretrained_cfg`."""
    head: str | None
    """The spec of a head that is not linear (see `retrieval.encoders.network.heads`)."""
    precision: Precision = "float32"
    """What the vectors are computed in: float32 by any engine, int8 only by the exported network in `engine`."""
    engine: Name | None = None
    """The only engine that gives the vectors, in int8; in float32 None, as all give the same."""
    weights: Weights | None = None
    """Where the weights come from, and their licence; None if an older artifact does not say."""


@dataclass(frozen=True)
class About:
    """What is known of an encoder without running it."""

    name: str
    """The timm architecture, for example `resnet50`."""
    tag: str
    """timm's name of the pretrained weights, for example `a1_in1k`; may be empty."""
    data_config: dict[str, Any]
    """timm's preprocessing configuration: input size, interpolation, mean, standard deviation, crop."""
    head: str | None
    """The spec of a head that is not linear."""
    size: int
    """Size of the weights in bytes."""
    fingerprint: str
    """SHA-256 hex digest of weights, preprocessing and precision: equal for encoders that give the same vectors."""
    precision: Precision = "float32"
    """What the vectors are computed in."""
    weights: Weights | None = None
    """Where the weights come from, and their licence; None if that is not known."""


def read_description(path: Path) -> Description:
    """Read a config.json; raises EncoderError if it is not in timm's format, or asks for too much."""
    with describing():
        config = _parsed(path)
        name, pretrained_cfg = config["architecture"], config["pretrained_cfg"]
        arguments = {**config.get("model_args", {}), "num_classes": config["num_classes"]}
        own = config.get(OWN_KEY, {})
        head, precision, engine = own.get("head"), own.get("precision", "float32"), own.get("engine")
        if not isinstance(name, str) or not (head is None or isinstance(head, str)):
            raise ValueError(f"architecture and head must be text, found {name!r} and {head!r}")
        if named := sorted(_NOT_FROM_A_FILE & arguments.keys()):
            raise ValueError(f"model_args must not set {', '.join(named)}")
        weights = Weights.read(own["weights"]) if "weights" in own else None
        _check_precision(precision, engine)
        _check_numbers(arguments)
        check_data_config(data_config_of(pretrained_cfg))
    return Description(name, pretrained_cfg, arguments, head, precision, engine, weights)


def described_weights(path: Path) -> Weights | None:
    """What a config.json says of the weights beside it, in a part of our own; None if it says nothing.

    Raises ValueError or TypeError if it is of another form.
    """
    own = _parsed(path).get(OWN_KEY, {})
    return Weights.read(own["weights"]) if "weights" in own else None


def _parsed(path: Path) -> Any:
    with path.open("rb") as file:
        return parse_json(file.read(_MOST_BYTES + 1), most=_MOST_BYTES)


@contextmanager
def describing() -> Iterator[None]:
    """Raise whatever goes wrong inside as an EncoderError about config.json."""
    try:
        yield
    except Exception as error:  # the file can be wrong in as many ways as timm and torch have arguments
        why = short(" ".join(repr(error).split()), 300)
        raise EncoderError(f"{CONFIG_FILE} does not describe a timm model: {why}") from error


def _check_precision(precision: Any, engine: Any) -> None:
    if precision not in get_args(Precision) or engine not in ((None,) if precision == "float32" else _OF_INT8):
        raise ValueError(
            f"precision must be float32, or int8 with the engine {' or '.join(_OF_INT8)}; found {precision!r} with "
            f"{engine!r}"
        )


def _check_numbers(value: Any) -> None:
    """Raise ValueError for a number that no network has, anywhere in the arguments."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)
    elif isinstance(value, int | float) and not abs(value) <= _MOST_NUMBER:
        raise ValueError(f"an argument is {value}, and more than {_MOST_NUMBER:,} is too large")
