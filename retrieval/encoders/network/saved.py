"""A timm network as an encoder has it: described, saved in timm's Hub format, loaded and exported."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models._hub import save_config_for_hf

from retrieval.arrays import Floats
from retrieval.console import say
from retrieval.encoders.description import OWN_KEY, About, describing, read_description
from retrieval.encoders.engines.choose import open_exported
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.encoders.engines.torch import TorchEngine
from retrieval.encoders.engines.trusted import check_exported, of_pictures
from retrieval.encoders.files import CONFIG_FILE, WEIGHTS_FILE
from retrieval.encoders.network.backbone import contiguous, head_of, load_weights
from retrieval.encoders.network.described import make_described
from retrieval.encoders.network.export import difference, export
from retrieval.encoders.network.planned import check_fit, planned
from retrieval.encoders.preprocess import data_config_of
from retrieval.encoders.presets.licences import Weights
from retrieval.encoders.unit import check_shape
from retrieval.encoders.weights import fingerprint_of, stored_shapes
from retrieval.errors import EncoderError, first_line
from retrieval.files.held import HeldFile


class Network:
    """A timm network, and torch to run it."""

    most_difference = 1e-5
    """By this much a score may differ between the exported network and torch."""

    def __init__(self, model: Any, weights: Weights | None = None, *, channels_last: bool = True) -> None:
        self._weights = weights
        self.engine = TorchEngine(model, channels_last=channels_last)
        self.model = self.engine.model

    @cached_property
    def about(self) -> About:
        """What is known of the network."""
        cfg, head = self.model.pretrained_cfg, head_of(self.model)
        name, data_config = cfg["architecture"], data_config_of(cfg)
        state = contiguous(self.model.state_dict())
        tensors = (
            (key, str(tensor.dtype), tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
            for key, tensor in sorted(state.items())
        )
        facts = [name, self.engine.dim, data_config, *filter(None, [head])]
        size = sum(tensor.nbytes for tensor in state.values())
        tag, fingerprint = str(cfg.get("tag") or ""), fingerprint_of(facts, tensors)
        return About(name, tag, data_config, head, size, fingerprint, weights=self._weights)

    @cached_property
    def exported(self) -> Path | None:
        """The exported network, a file that ends with this object; None, with a message, if it cannot be exported."""
        size = self.about.data_config["input_size"]
        try:
            self._file = HeldFile("model.onnx")
            path = self._file.path
            export(self.engine, path, size)
            file = NetworkFile(path, "model.onnx")
            check_exported(file, of_pictures(size))  # as whoever loads it does
            self.tested = open_exported(file, "onnx")
            # One picture and several: an export can be right for one number of them only.
            noise = torch.rand((3, *size), generator=torch.Generator().manual_seed(0)).numpy()
            found = max(self.difference(noise[:1]), self.difference(noise))
            if found > self.most_difference:
                raise EncoderError(
                    f"the exported network moves a score by {found:.1g}, more than {self.most_difference:.0e}"
                )
        except (EncoderError, OSError) as error:  # the latter if there is no room for temporary files
            say(f"The artifact will need torch: {str(error).rstrip('.')}.")
            return None
        return path

    def difference(self, pixels: Floats) -> float:
        """The most by which a score differs between the exported network and torch, for (N, 3, H, W) pixels."""
        return difference(self.engine, self.tested, pixels)

    def save(self, folder: Path, int8: str | None = None) -> None:
        """Write `config.json` and `model.safetensors` in timm's Hub format.

        `int8` is the engine of an exported network in int8, if that gives the vectors.
        """
        save_file(contiguous(self.model.state_dict()), folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors creates it readable by the owner only
        path = folder / CONFIG_FILE
        save_config_for_hf(self.model, str(path))
        config = json.loads(path.read_text(encoding="utf-8"))
        # transformers' timm wrapper passes num_classes itself, and fails if it is given twice.
        config.get("model_args", {}).pop("num_classes", None)
        own = {"head": head_of(self.model), "weights": asdict(self._weights) if self._weights else None}
        own |= {"precision": "int8", "engine": int8} if int8 else {}
        if own := {name: value for name, value in own.items() if value}:
            config[OWN_KEY] = own
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_network(folder: Path) -> Network:
    """The network in a folder; raises EncoderError if the files are invalid.

    Memory is allocated only for a network of the size that the weights file has.
    """
    weights = folder / WEIGHTS_FILE
    stored = stored_shapes(weights)
    described = read_description(folder / CONFIG_FILE)
    with describing():
        plan = planned(lambda: make_described(described), stored)
    check_fit(plan, stored, weights.name)  # before memory is allocated
    with describing():
        model = make_described(described)
    load_weights(model, weights, skip=())
    return Network(model, described.weights)


def try_out(model: Any) -> None:
    """Raise EncoderError if the network cannot process an image, or does not give exactly one embedding for it."""
    name, engine = model.pretrained_cfg["architecture"], TorchEngine(model)
    size = data_config_of(model.pretrained_cfg)["input_size"]
    noise = torch.rand((1, *size), generator=torch.Generator().manual_seed(0)).numpy()
    try:
        features = engine.embed(noise)
    except Exception as error:  # each network fails in its own way
        raise EncoderError(f"{name!r} cannot embed a picture: {first_line(error)}.") from error
    check_shape(features.shape, 1, engine.dim, name)
