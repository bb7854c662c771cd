"""The timm network inside an encoder: create it, add a head, load weights, and test what the head computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file

from retrieval.encoders.heads import Head
from retrieval.encoders.weights import check_fit, is_kept, stored_shapes
from retrieval.errors import EncoderError, first_line
from retrieval.files.locks import check_lockable
from retrieval.words import did_you_mean

_PROBE_SCALES = (1.0, 1e3, 1e6)  # a bias can hide a ReLU's nonlinearity at small inputs, not at large ones
_PIXELS_AT_ONCE = 4 * 224 * 224  # with more, the system maps the memory anew for each forward pass: twice the time
_PROBE_TOLERANCE = 1e-4  # relative to the largest output: float32 rounding reaches a tenth of it, a ReLU far exceeds it


def feature_count(model: Any) -> int:
    """Number of pooled features that a timm network passes to its head."""
    # Networks that widen the features after pooling (MobileNetV3, VGG) state the number in `head_hidden_size`.
    return int(getattr(model, "head_hidden_size", None) or model.num_features)


def most_at_once(input_size: Sequence[int]) -> int:
    """How many pictures that are waiting go through a network of this (3, H, W) input together, 1 to 16."""
    return max(1, min(16, _PIXELS_AT_ONCE // (input_size[1] * input_size[2])))


def make_network(backbone: str, from_hub: bool, embedding_size: int) -> Any:
    """Create a timm network with a linear head of this size, or without a head for size 0; raises EncoderError."""
    if from_hub:
        check_lockable(Path(constants.HF_HUB_CACHE), EncoderError)
    try:
        return timm.create_model(backbone, pretrained=from_hub, num_classes=embedding_size)
    except Exception as error:  # timm, torch and the Hub client each raise their own exceptions
        what = f"the Hub weights of {backbone!r} could not be downloaded" if from_hub else f"cannot create {backbone!r}"
        raise EncoderError(
            f"{what}: {first_line(error)}. Give the weights with --weights FILE (safetensors), or use random ones "
            "(--no-pretrained; in training --set pretrained=false)."
        ) from error


def put_head(model: Any, spec: str) -> None:
    """Replace timm's classifier by the head described by `spec`; raises EncoderError if there is no single one."""
    names = classifier_names(model)
    if len(names) != 1:
        raise EncoderError(
            f"the head of {model.pretrained_cfg['architecture']!r} cannot be replaced: it needs exactly one classifier."
        )
    head = Head(spec, feature_count(model))
    model.set_submodule(names[0], head)
    model.num_classes = head.dim


def head_of(model: Any) -> str | None:
    """The spec of a head that is not linear; None for timm's own classifier."""
    return next((part.spec for part in model.modules() if isinstance(part, Head)), None)


def contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a network in contiguous memory, as safetensors and hashing require."""
    return {name: tensor.contiguous() for name, tensor in state.items()}


def classifier_names(model: Any) -> tuple[str, ...]:
    """timm's names of the classifier layers; a few networks have more than one."""
    names = model.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def check_name(backbone: str) -> None:
    """Raise EncoderError, with the nearest names, if timm has no such model."""
    if timm.is_model(backbone.split(".")[0]) or backbone.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        return
    hint = did_you_mean(backbone, timm.list_models(), otherwise="`timm.list_models()` lists all of them.")
    raise EncoderError(f"timm has no model {backbone!r}; {hint}")


def load_weights(model: Any, path: Path, skip: Sequence[str]) -> None:
    """Load a safetensors file into the model; only the layers in `skip` may be missing. Raises EncoderError."""
    stored = stored_shapes(path)
    check_fit(model, stored, path.name, tuple(skip))
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{path.name} is not a readable safetensors file: {first_line(error)}") from error
    model.load_state_dict({name: state[name] for name in stored if is_kept(name, skip)}, strict=False)


@torch.inference_mode()
def averages_cells(model: Any, input_size: Sequence[int]) -> bool:
    """Whether the embedding is the mean, over the feature map's cells, of the head applied to each cell alone.

    This holds if global average pooling is followed by linear layers only, or by none. It is tested on the network
    rather than assumed from its class: its own feature map of noise, and random 3 x 2 maps with and without negative
    numbers, go through the head whole and cell by cell. `input_size` is (channels, height, width). A network whose
    features are not a (1, C, H, W) map (but tokens, for example) gives False.
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
    except Exception:  # a head that cannot process a single cell fails in its own way
        return False


def cell_embeddings(model: Any, features: torch.Tensor) -> torch.Tensor:
    """Apply the head to each cell of a (1, C, H, W) feature map alone: (H * W, D), row by row of the map."""
    cells = features.flatten(2)[0].T[:, :, None, None]
    return torch.as_tensor(model.forward_head(cells))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    # Finite, too: an infinite difference is not more than an infinite tolerance.
    close = one.shape == other.shape and one.ndim == 2
    largest = other.abs().max() if close else torch.tensor(torch.inf)
    return bool(torch.isfinite(largest)) and bool((one - other).abs().max() <= _PROBE_TOLERANCE * largest)
