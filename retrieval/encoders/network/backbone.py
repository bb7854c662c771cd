"""The timm network inside an encoder: create it, add a head, load weights, and test what the head computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file

from retrieval.encoders.network.heads import Head
from retrieval.encoders.network.planned import check_fit, is_kept
from retrieval.encoders.presets import PRESETS
from retrieval.encoders.weights import stored_shapes
from retrieval.errors import EncoderError, first_line
from retrieval.files.locks import check_lockable
from retrieval.words import did_you_mean


def feature_count(model: Any) -> int:
    """Number of pooled features that a timm network passes to its head."""
    # Networks that widen the features after pooling (MobileNetV3, VGG) state the number in `head_hidden_size`.
    return int(getattr(model, "head_hidden_size", None) or model.num_features)


def make_network(backbone: str, from_hub: bool, embedding_size: int, arguments: Mapping[str, Any] | None = None) -> Any:
    """Create a timm network with a linear head of this size, or without a head for size 0; raises EncoderError.

    `arguments` are more arguments of `timm.create_model`.
    """
    if from_hub:
        check_lockable(Path(constants.HF_HUB_CACHE), EncoderError)
    try:
        return timm.create_model(backbone, pretrained=from_hub, num_classes=embedding_size, **(arguments or {}))
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
    """Raise EncoderError, with the nearest names, if there is no such preset and timm has no such model."""
    if (
        backbone in PRESETS
        or timm.is_model(backbone.split(".")[0])
        or backbone.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    ):
        return
    hint = did_you_mean(backbone, [*PRESETS, *timm.list_models()], otherwise="`timm.list_models()` lists all of them.")
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
