"""Encoder: a timm backbone with its own preprocessing, images in, unit vectors out.

The encoder is saved in timm's own Hub format (`config.json`, `model.safetensors`), so that
`timm.create_model("local-dir:FOLDER", pretrained=True)` gives the same network without this project.
Global average pooling and a linear head (timm's classifier layer), or none, are what lets the cosine of two images
be split into a sum over the cells of their feature maps (`cells`, and `retrieval.encoders.explain`, which shows it);
heads with more layers are in `retrieval.encoders.heads`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models._hub import save_config_for_hf

from retrieval.arrays import Numbers, Vectors
from retrieval.encoders.backbone import (
    averages_cells,
    cell_embeddings,
    check_name,
    classifier_names,
    contiguous,
    feature_count,
    head_of,
    load_weights,
    make_network,
    put_head,
)
from retrieval.encoders.files import CONFIG_FILE, WEIGHTS_FILE
from retrieval.encoders.unit import check_shape, unit_rows
from retrieval.errors import EncoderError, first_line
from retrieval.forking import OneThread, in_child

# In a forked child torch makes its pool of threads anew when it is first needed, and fails where two threads need it at
# once. Here, one thread does; with a single thread, as in the workers of a DataLoader.
in_child(lambda: torch.set_num_threads(1))

_OWN_KEY = "lookalike"  # of config.json: what timm's own format has no place for
# Arguments of timm.create_model that would have it read other files, or run other code, than those of the folder.
_NOT_FROM_A_FILE = frozenset(
    {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "scriptable", "no_jit"}
)


@dataclass(frozen=True)
class Cells:
    """An embedding before it is brought to unit length, as the sum of what each cell of the feature map adds to it.

    `parts` is (H * W, D) float64, row by row of the map, `bias` (D,) float64, `grid` (H, W).
    """

    parts: Numbers
    bias: Numbers
    grid: tuple[int, int]

    @property
    def embedding(self) -> Numbers:
        """The (D,) sum of the parts and the bias."""
        total: Numbers = self.parts.sum(axis=0) + self.bias
        return total


class Encoder:
    """A timm network in eval mode, float32, and the transform that its weights were made for."""

    def __init__(self, model: torch.nn.Module) -> None:
        # channels-last is what the convolutions of oneDNN want: about a third faster on a CPU.
        network: Any = model.eval().to(memory_format=torch.channels_last)
        self.model = network
        self.data_config: dict[str, Any] = resolve_model_data_config(self.model)
        self.transform: Any = create_transform(**self.data_config, is_training=False)
        self.dim = int(self.model.num_classes or feature_count(self.model))
        self.fingerprint: str = self._fingerprint()
        # The network always runs on this one thread: OpenMP keeps a team of its own for every thread that computes,
        # and on a server with many, teams get into each other's way (33 ms an image instead of 19).
        self._thread = OneThread("encoder")

    @classmethod
    def create(
        cls,
        backbone: str = "resnet50",
        *,
        pretrained: bool = True,
        weights: Path | None = None,
        embedding_size: int = 0,
        head: str | None = None,
        crop_mode: str = "squash",
        seed: int | None = None,
    ) -> Encoder:
        """Make an encoder from a timm model name.

        `weights` is a local safetensors file that takes the place of the Hub's weights; its classifier, if it has
        one, is left out. `embedding_size` 0 gives the pooled features, more gives a linear head of that size;
        `head` in its place is a head that is not linear, `512-relu-256` for one (see `retrieval.encoders.heads`).
        Size, interpolation, mean and deviation are the model's own. `crop_mode` is timm's: `squash` shows the network
        the whole picture (what lies at its edge is looked for too: on Caltech-101 hit@1 0.858 against 0.843),
        `center` cuts the edges off as the model's own evaluation does.
        `seed` makes what is random in the weights the same each time; None draws it from torch's own generator.
        Raises EncoderError for an unknown backbone, weights that do not fit, a Hub that cannot be reached, or a network
        that does not give one row of numbers for a picture.
        """
        check_name(backbone)
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            model = make_network(backbone, pretrained and weights is None, embedding_size)
            if head:
                put_head(model, head)
        if weights is not None:
            load_weights(model, weights, skip=classifier_names(model))
        if crop_mode == "squash":
            model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": "squash", "crop_pct": 1.0}
        encoder = cls(model)
        encoder._try_out()
        return encoder

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Read `config.json` and `model.safetensors` of a folder; raises EncoderError where they do not fit."""
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            name, pretrained_cfg = config["architecture"], config["pretrained_cfg"]
            arguments = {**config.get("model_args", {}), "num_classes": config["num_classes"]}
            if not timm.is_model(name):  # a prefix like `hf-hub:` would have timm fetch another model
                raise ValueError(f"timm has no model {name!r}")
            if named := sorted(_NOT_FROM_A_FILE & arguments.keys()):
                raise ValueError(f"model_args names {', '.join(named)}")
            model = timm.create_model(name, pretrained=False, pretrained_cfg=pretrained_cfg, **arguments)
            if head := config.get(_OWN_KEY, {}).get("head"):
                put_head(model, head)
        except Exception as error:  # the file can be wrong in as many ways as timm and torch have arguments
            raise EncoderError(f"{CONFIG_FILE} does not describe a timm model: {error!r}") from error
        load_weights(model, folder / WEIGHTS_FILE, skip=())
        return cls(model)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` in timm's Hub format."""
        save_file(contiguous(self.model.state_dict()), folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors lets nobody else read it
        path = folder / CONFIG_FILE
        save_config_for_hf(self.model, str(path))
        config = json.loads(path.read_text(encoding="utf-8"))
        # transformers' timm wrapper passes num_classes itself and refuses to get it twice.
        config.get("model_args", {}).pop("num_classes", None)
        if head := head_of(self.model):
            config[_OWN_KEY] = {"head": head}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @property
    def name(self) -> str:
        """The timm architecture, `resnet50` for one."""
        return cast(str, self.model.pretrained_cfg["architecture"])

    @property
    def is_plain_timm(self) -> bool:
        """Whether timm alone makes the same network of the files that `save` writes: its head is timm's own."""
        return head_of(self.model) is None

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """RGB image to the (3, H, W) float32 tensor that the network takes (resized, cropped, normalised)."""
        return cast(torch.Tensor, self.transform(image))

    def embed_tensors(self, tensors: Sequence[torch.Tensor]) -> Vectors:
        """N tensors from `preprocess` to (N, D) float32 rows of unit length.

        Raises EmbeddingError where an embedding is too near to zero to have a direction, and EncoderError where numbers
        come out that are not finite, or not D for each tensor.
        """
        if not tensors:
            return np.empty((0, self.dim), np.float32)
        return unit_rows(self._thread.run(self._forward, tensors), self.dim, self.name)

    @torch.inference_mode()
    def _forward(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return cast(torch.Tensor, self.model(torch.stack(list(tensors)).contiguous(memory_format=torch.channels_last)))

    def _try_out(self) -> None:
        """Raise EncoderError where the network cannot take a picture, or gives something else than one embedding."""
        noise = torch.rand(self.data_config["input_size"], generator=torch.Generator().manual_seed(0))
        try:
            features = self._thread.run(self._forward, [noise])
        except Exception as error:  # a network fails in ways of its own
            raise EncoderError(f"{self.name!r} cannot embed a picture: {first_line(error)}.") from error
        check_shape(features, 1, self.dim, self.name)

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB images to (N, D) float32 rows of unit length; raises as `embed_tensors` does."""
        return self.embed_tensors([self.preprocess(image) for image in images])

    @cached_property
    def explains(self) -> bool:
        """Whether `cells` can split an embedding: global average pooling, then layers that are linear, or none.

        Asked of the network itself, once (`averages_cells`); it takes about as long as embedding three images.
        """
        return self._thread.run(averages_cells, self.model, self.data_config["input_size"])

    def cells(self, image: Image.Image) -> Cells:
        """Split the embedding of an RGB image over the cells of its feature map.

        What comes out of average pooling and a linear layer is the mean over the cells of W f + b, f being the C
        features of a cell, so that W f / (H * W) is the part of that cell, and b belongs to none (class activation
        mapping, Zhou et al. 2016, arXiv:1512.04150). The parts and the bias add up to what `embed_images` brings to
        unit length, but for rounding (1e-6 of its length). Raises EncoderError where `explains` is false.
        """
        if not self.explains:
            raise EncoderError(
                f"the similarity that {self.name!r} finds cannot be split into parts of the picture: its embedding is "
                "not an average over a map of the picture with at most a linear layer on top, as that of resnet50 is."
            )
        return self._thread.run(self._cells, self.preprocess(image))

    @torch.inference_mode()
    def _cells(self, tensor: torch.Tensor) -> Cells:
        features = self.model.forward_features(tensor[None].contiguous(memory_format=torch.channels_last))
        height, width = features.shape[2:]
        embeddings = cell_embeddings(self.model, features).double().numpy()
        bias = cell_embeddings(self.model, torch.zeros_like(features[:, :, :1, :1])).double().numpy()[0]
        return Cells((embeddings - bias) / len(embeddings), bias, (height, width))

    def _fingerprint(self) -> str:
        """SHA-256 over preprocessing, shape and weights: two encoders with the same one give the same vectors."""
        # By way of JSON, so that a tuple of timm's defaults and a list read back from a file are the same thing.
        facts = [self.name, self.dim, self.data_config, *filter(None, [head_of(self.model)])]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in sorted(contiguous(self.model.state_dict()).items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
