"""config.json of an encoder: which timm network it describes, and whether a picture can be prepared for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm

from retrieval.encoders.backbone import put_head
from retrieval.encoders.files import CONFIG_FILE
from retrieval.errors import EncoderError, short
from retrieval.untrusted.strict_json import parse_json

OWN_KEY = "lookalike"  # in config.json, for what timm's own format cannot hold
# Arguments of timm.create_model that would make it read files outside the folder, or run other code.
_NOT_FROM_A_FILE = frozenset(
    {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "scriptable", "no_jit"}
)
_MOST_BYTES = 2**20
_MOST_SIDE = 2_048  # pixels of the input: a network needs about a kilobyte for each
_MOST_NUMBER = 100_000  # of an argument, such as a width or a depth
_CROPS = (0.1, 4.0)  # share of the picture that is kept: a small one would enlarge the picture first


def described_network(path: Path) -> Callable[[], Any]:
    """A function that builds the network that a config.json describes, with random weights.

    Raises whatever is wrong with the file, as ValueError, KeyError or TypeError; so does the function.
    """
    config = parse_json(path.read_bytes()[: _MOST_BYTES + 1], most=_MOST_BYTES)
    name, pretrained_cfg = config["architecture"], config["pretrained_cfg"]
    arguments = {**config.get("model_args", {}), "num_classes": config["num_classes"]}
    head = config.get(OWN_KEY, {}).get("head")
    if not timm.is_model(name):  # a prefix like `hf-hub:` would make timm fetch another model
        raise ValueError(f"timm has no model {name!r}")
    if named := sorted(_NOT_FROM_A_FILE & arguments.keys()):
        raise ValueError(f"model_args must not set {', '.join(named)}")
    _check_numbers(arguments)
    _check_preprocessing(pretrained_cfg)

    def make() -> Any:
        model = timm.create_model(name, pretrained=False, pretrained_cfg=pretrained_cfg, **arguments)
        if head:
            put_head(model, head)
        return model

    return make


@contextmanager
def describing() -> Iterator[None]:
    """Raise whatever goes wrong inside as an EncoderError about config.json."""
    try:
        yield
    except Exception as error:  # the file can be wrong in as many ways as timm and torch have arguments
        why = short(" ".join(repr(error).split()), 300)
        raise EncoderError(f"{CONFIG_FILE} does not describe a timm model: {why}") from error


def _check_numbers(value: Any) -> None:
    """Raise ValueError for a number that no network has, anywhere in the arguments."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)
    elif isinstance(value, int | float) and not abs(value) <= _MOST_NUMBER:
        raise ValueError(f"an argument is {value}, and more than {_MOST_NUMBER:,} is too large")


def _check_preprocessing(settings: dict[str, Any]) -> None:
    """Raise ValueError for settings with which preparing a picture would take much memory or give no numbers."""
    channels, height, width = settings["input_size"]
    if not all(type(side) is int and 1 <= side <= _MOST_SIDE for side in (channels, height, width)) or channels > 4:
        raise ValueError(
            f"input_size must be 3 and two sides of at most {_MOST_SIDE:,}, found {settings['input_size']}"
        )
    crop = settings.get("crop_pct")
    if crop is not None and not _CROPS[0] <= crop <= _CROPS[1]:
        raise ValueError(f"crop_pct must be {_CROPS[0]} to {_CROPS[1]}, found {crop}")
    for name in ("mean", "std"):
        numbers = settings.get(name, [1.0])
        if not all(math.isfinite(number) for number in numbers) or (name == "std" and 0 in numbers):
            raise ValueError(f"{name} is {numbers}")
