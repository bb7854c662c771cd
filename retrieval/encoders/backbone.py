"""Backbone: the timm network inside an encoder: made by name, given a head and weights, asked what its head does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from retrieval.encoders.heads import Head
from retrieval.errors import EncoderError, first_line
from retrieval.words import did_you_mean

_PROBE_SCALES = (1.0, 1e3, 1e6)  # a bias can hide the bend of a ReLU from small numbers, not from large ones
_PROBE_TOLERANCE = 1e-4  # of the largest number that comes out: float32 loses a tenth of it, a ReLU bends by far more


def feature_count(model: Any) -> int:
    """How many pooled features a timm network hands to its head."""
    # Those of a network that widens them after pooling (MobileNetV3, VGG) are `head_hidden_size`.
    return int(getattr(model, "head_hidden_size", None) or model.num_features)


def make_network(backbone: str, from_hub: bool, embedding_size: int) -> Any:
    """A timm network by name, with a linear head of that size or, where it is 0, none; raises EncoderError."""
    try:
        return timm.create_model(backbone, pretrained=from_hub, num_classes=embedding_size)
    except Exception as error:  # timm, torch and the Hub client each raise their own kinds
        what = f"the Hub weights of {backbone!r} could not be had" if from_hub else f"cannot make {backbone!r}"
        raise EncoderError(
            f"{what}: {first_line(error)}. Give the weights with --weights FILE (safetensors), or take random ones "
            "(--no-pretrained; in training --set pretrained=false)."
        ) from error


def put_head(model: Any, spec: str) -> None:
    """Put the layers of a head where timm has its classifier."""
    names = classifier_names(model)
    if len(names) != 1:
        raise EncoderError(f"{model.pretrained_cfg['architecture']!r} has no single classifier to put a head in.")
    head = Head(spec, feature_count(model))
    model.set_submodule(names[0], head)
    model.num_classes = head.dim


def head_of(model: Any) -> str | None:
    """The word of a head that is not linear; None for timm's own classifier."""
    return next((part.spec for part in model.modules() if isinstance(part, Head)), None)


def contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a network as safetensors and hashes want them, in the order of their dimensions."""
    return {name: tensor.contiguous() for name, tensor in state.items()}


def classifier_names(model: Any) -> tuple[str, ...]:
    """What timm calls the layers of its classifier; more than one for a few networks."""
    names = model.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def check_name(backbone: str) -> None:
    """Raise EncoderError, with the nearest names, where timm has no such model."""
    if timm.is_model(backbone.split(".")[0]) or backbone.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        return
    hint = did_you_mean(backbone, timm.list_models(), otherwise="`timm.list_models()` names them all.")
    raise EncoderError(f"timm has no model {backbone!r}; {hint}")


def load_weights(model: Any, path: Path, skip: Sequence[str]) -> None:
    """Copy the tensors of a safetensors file into the model; only those of the layers in `skip` may be absent."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{path.name} is not a safetensors file that can be read: {first_line(error)}") from error

    def kept(name: str) -> bool:
        return not name.startswith(tuple(f"{layer}." for layer in skip))

    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if kept(name)}
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if kept(name)}
    # A counter that only training with momentum=None reads; older files do not hold it.
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong := [name for name in wrong if name not in optional]:
        name = wrong[0]
        raise EncoderError(
            f"the weights in {path.name} are not those of {model.pretrained_cfg['architecture']!r}: "
            f"{len(wrong)} tensors do not fit, the first is {name!r}: "
            f"the model wants {wanted.get(name, 'none')}, the file has {found.get(name, 'none')}."
        )
    model.load_state_dict({name: state[name] for name in found}, strict=False)


@torch.inference_mode()
def averages_cells(model: Any, input_size: Sequence[int]) -> bool:
    """Whether the embedding is the mean, over the cells of the feature map, of what the head makes of each alone.

    That is so where global average pooling is followed by layers that are linear, or by none. The network is asked,
    not its class: its own feature map of noise, and random ones of 3 x 2 cells with and without negative numbers,
    go through the head whole and cell by cell. `input_size` is (channels, height, width). A network whose features
    are no (1, C, H, W) map, tokens for one, gives no.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        picture = torch.randn(1, *input_size, generator=generator)
        features = model.forward_features(picture)
        signed = torch.randn(1, features.shape[1], 3, 2, generator=generator)
        probes = [scale * probe for scale in _PROBE_SCALES for probe in (signed, signed.abs())]
        return _same(model(picture), model.forward_head(features)) and all(
            _same(model.forward_head(probe), cell_embeddings(model, probe).mean(dim=0, keepdim=True))
            for probe in [features, *probes]
        )
    except Exception:  # a head that cannot take one cell fails in a way of its own
        return False


def cell_embeddings(model: Any, features: torch.Tensor) -> torch.Tensor:
    """A (1, C, H, W) feature map to (H * W, D): what the head makes of each cell alone, row by row of the map."""
    cells = features.flatten(2)[0].T[:, :, None, None]
    return torch.as_tensor(model.forward_head(cells))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    # Finite too: infinity is not less than infinity, and nothing is less than NaN.
    close = one.shape == other.shape and one.ndim == 2
    return close and bool((one - other).abs().max() <= _PROBE_TOLERANCE * other.abs().max())
