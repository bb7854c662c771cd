"""A new network from a preset or a timm name, with weights from the Hub, from a file, or random ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file

from retrieval.encoders.description import described_weights
from retrieval.encoders.files import CONFIG_FILE
from retrieval.encoders.network.backbone import check_name, classifier_names, load_weights, make_network, put_head
from retrieval.encoders.network.planned import check_fit, is_kept, planned
from retrieval.encoders.network.sizes import size_arguments
from retrieval.encoders.presets import PRESETS, timm_name
from retrieval.encoders.presets.licences import RANDOM, UNKNOWN, Weights
from retrieval.encoders.weights import stored_shapes
from retrieval.errors import EncoderError

# What timm's names of networks that were trained with captions have in common, and of those trained on classes.
_IN_ONE_SPACE = re.compile(r"clip|_pe_core_|_mci\d")
_ON_CLASSES = re.compile(r"in(1|12|21|22)k")


def new_network(
    backbone: str,
    *,
    pretrained: bool,
    weights: Path | None,
    weights_license: str | None,
    embedding_size: int,
    head: str | None,
    image_size: int | None,
    seed: int | None,
) -> tuple[Any, Weights]:
    """The network that `Encoder.create` describes, and where its weights come from; raises EncoderError."""
    check_name(backbone)
    if weights_license and weights is None and not backbone.startswith("local-dir:"):
        raise EncoderError(
            "a licence of the weights can only be stated for weights from a file or a folder (--weights FILE, "
            "--backbone local-dir:FOLDER)."
        )
    preset = PRESETS.get(backbone)
    size = image_size or (preset.pixels if preset else None)
    arguments = size_arguments(backbone, size) if size else None
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        name, from_hub = timm_name(backbone), pretrained and weights is None
        network = make_network(name, from_hub, embedding_size, arguments)
        kept = 0 if embedding_size or head else projection_of(network.pretrained_cfg, weights)
        if kept:
            network = make_network(name, from_hub, kept, arguments)
        if head:
            put_head(network, head)
    if weights is not None:
        _fill(network, name, weights, arguments, () if kept else classifier_names(network), kept)
    found = _origin(network, backbone, from_hub, weights, weights_license)
    stated = {"license": None if found.license == UNKNOWN else found.license}
    sized = {"input_size": (3, size, size), "test_input_size": None} if arguments is not None else {}
    network.pretrained_cfg = {**network.pretrained_cfg, **stated, **sized}
    return network, found


def projection_of(stated: Mapping[str, Any], weights: Path | None = None) -> int:
    """Size of the space that a network shares with words: CLIP and its like project pictures into it.

    `stated` is timm's `pretrained_cfg`, where that projection is the classifier. 0 for other networks, those that were
    trained on classes after that, and if a file of weights does not have the projection.
    """
    name = f"{stated.get('architecture')}.{stated.get('tag')}"
    if not _IN_ONE_SPACE.search(name) or _ON_CLASSES.search(name):
        return 0
    size, classifier = int(stated.get("num_classes") or 0), f"{stated.get('classifier')}.weight"
    return size if weights is None or stored_shapes(weights).get(classifier, (0,))[0] == size else 0


def _origin(network: Any, backbone: str, from_hub: bool, weights: Path | None, weights_license: str | None) -> Weights:
    if weights is not None:
        beside = None
        with suppress(OSError, ValueError, TypeError, AttributeError):  # it may be any other file of this name
            beside = described_weights(weights.with_name(CONFIG_FILE))
        if weights_license or not (beside and beside.license):
            return Weights.read({"name": weights.name, "license": weights_license or UNKNOWN})
        return beside  # the file is that of an artifact
    if not from_hub:
        return Weights(RANDOM, None)
    stated = network.pretrained_cfg
    name = stated.get("hf_hub_id") or Path(backbone.removeprefix("local-dir:")).name
    return Weights(str(name), weights_license or stated.get("license") or UNKNOWN)


def _fill(
    network: Any, name: str, path: Path, arguments: Mapping[str, Any] | None, skip: tuple[str, ...], outputs: int
) -> None:
    """Load a file but the layers in `skip`; `outputs` is the size of the network in it without them, or 0.

    Its position embeddings are resampled if it was made for pictures of timm's own size.
    """
    try:
        load_weights(network, path, skip)
    except EncoderError:
        if not arguments:
            raise
        own = planned(lambda: make_network(name, False, outputs), stored := stored_shapes(path))
        check_fit(own, stored, path.name, skip)
        state = {key: tensor for key, tensor in load_file(path).items() if is_kept(key, skip)}
        resampled = timm.create_model(
            name, pretrained=True, num_classes=outputs, pretrained_cfg_overlay={"state_dict": state}, **arguments
        ).state_dict()
        check_fit(network, {key: tuple(tensor.shape) for key, tensor in resampled.items()}, path.name, skip)
        network.load_state_dict({key: value for key, value in resampled.items() if is_kept(key, skip)}, strict=False)
