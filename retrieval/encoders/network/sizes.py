"""Which picture sizes a timm network can take, found out without memory for its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed

from retrieval.encoders.network.backbone import check_name
from retrieval.encoders.network.planned import NoNumbers
from retrieval.encoders.presets import PRESETS, timm_name
from retrieval.errors import EncoderError, first_line

SMALLEST, LARGEST = 16, 2_048  # pixels
_TRIES = 8  # sizes on each side that are tried in search of the nearest


def fixed_side(backbone: str) -> int | None:
    """The usual picture size of a network that is made for one size; None if it takes pictures of any size."""
    own = _own(backbone).pretrained_cfg
    preset = PRESETS.get(backbone)
    return (preset.pixels if preset else int(own["input_size"][1])) if own.get("fixed_input_size") else None


def size_arguments(backbone: str, size: int) -> dict[str, Any] | None:
    """Arguments of `timm.create_model` for pictures of `size` x `size` pixels; None if that is timm's own size.

    Raises EncoderError, with the nearest sizes that work, if the network cannot take such pictures.
    """
    if not SMALLEST <= size <= LARGEST:
        raise EncoderError(f"the picture size must be {SMALLEST} to {LARGEST:,} pixels, not {size:,}.")
    own = _own(backbone)
    if tuple(own.pretrained_cfg["input_size"][1:]) == (size, size):
        return None
    patch = _patch(own)
    if size % patch:
        why = f"it cuts pictures into patches of {patch} pixels"
    elif not (why := _problem(backbone, own, size)):
        return _arguments(own, size)
    near = list(map(str, _nearest(backbone, own, size)))
    hint = f"The nearest {'sizes are' if len(near) > 1 else 'size is'} {' and '.join(near)}."
    raise EncoderError(
        f"{backbone} cannot take pictures of {size} pixels: {why}. {hint if near else 'Leave out the picture size.'}"
    )


def _own(backbone: str) -> Any:
    """The network at timm's own size, on torch's meta device; raises EncoderError."""
    check_name(backbone)
    try:
        return _on_meta(timm_name(backbone))
    except Exception as error:  # timm and the Hub client each raise their own exceptions
        raise EncoderError(f"cannot create {backbone!r}: {first_line(error)}.") from error


def _on_meta(name: str, **arguments: Any) -> Any:
    with torch.device("meta"), NoNumbers():
        return timm.create_model(name, pretrained=False, num_classes=0, **arguments).eval()


def _arguments(own: Any, size: int) -> dict[str, Any]:
    return {"img_size": size} if own.pretrained_cfg.get("fixed_input_size") else {}


def _patch(network: Any) -> int:
    """The side of the patches that the network cuts a picture into, pixels beyond the last one being lost; else 1."""
    sides = [max(part.patch_size) for part in network.modules() if isinstance(part, PatchEmbed)]
    return math.lcm(*sides) if sides else 1


def _problem(backbone: str, own: Any, size: int) -> str:
    """Why the network cannot process a picture of this size; empty if it can."""
    try:
        arguments = _arguments(own, size)
        network = _on_meta(timm_name(backbone), **arguments) if arguments else own
        with torch.device("meta"), torch.inference_mode():
            network(torch.empty(1, own.pretrained_cfg["input_size"][0], size, size))
    except Exception as error:  # each network fails in its own way
        return first_line(error).rstrip(".")
    return ""


def _nearest(backbone: str, own: Any, size: int) -> Iterator[int]:
    """The nearest smaller and the nearest larger size that the network can process."""
    strides = [int(stage["reduction"]) for stage in getattr(own, "feature_info", None) or []]
    step = _patch(own) if _patch(own) > 1 else max(strides, default=32)
    below, above = range(size - size % step, 0, -step), range(size - size % step + step, LARGEST + 1, step)
    for side in (below, above):
        tried = [one for one in side if one != size and one >= SMALLEST][:_TRIES]
        yield from [one for one in tried if not _problem(backbone, own, one)][:1]
