"""Which device computes: the processor or a graphics card."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal, get_args

from retrieval.errors import EncoderError

Device = Literal["cpu", "cuda", "mps"]
DEVICES = ("auto", *get_args(Device))
DEVICE = "LOOKALIKE_DEVICE"  # the environment variable that `--device` sets, for this process and its children
_PIXELS_AT_ONCE = 128 * 224 * 224
_FEWEST, _MOST, _ON_PROCESSOR = 16, 256, 4


def wanted_device() -> str:
    """What LOOKALIKE_DEVICE says: `auto` (also if it is not set), `cpu`, `cuda` or `mps`; else raises EncoderError."""
    name = os.environ.get(DEVICE) or "auto"
    if name not in DEVICES:
        raise EncoderError(f"there is no device {name!r}: choose auto, cpu, cuda or mps.")
    return name


def may_have_gpu() -> bool:
    """Whether it is worth asking torch for a GPU: if not, its import, which takes seconds, can be left out."""
    drivers = any(Path(name).exists() for name in ("/dev/nvidia0", "/dev/kfd"))  # of NVIDIA and AMD
    return drivers or "torch" in sys.modules


def build_batch(device: Device, side: int) -> int:
    """How many pictures of side x side pixels a build puts through the network together: a power of two, 4 to 256.

    On a processor, larger batches are slower, because memory is mapped again each time.
    """
    if device == "cpu":
        return _ON_PROCESSOR
    fit = max(_FEWEST, min(_MOST, _PIXELS_AT_ONCE // side**2))
    return int(2 ** (fit.bit_length() - 1))
