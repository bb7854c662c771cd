"""Encoder: a timm backbone with its own preprocessing, from images to unit vectors.

The encoder is saved in timm's Hub format (`config.json`, `model.safetensors`):
`timm.create_model("local-dir:FOLDER", pretrained=True)` gives the same network without this project.
With global average pooling and at most a linear head (timm's classifier layer), the cosine of two images can be split
into a sum over the cells of their feature maps (`cells`; `retrieval.encoders.explain` uses it).
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
    most_at_once,
    put_head,
)
from retrieval.encoders.base import resize_by
from retrieval.encoders.config import OWN_KEY, described_network, describing
from retrieval.encoders.files import CONFIG_FILE, WEIGHTS_FILE
from retrieval.encoders.unit import check_shape, unit_rows
from retrieval.encoders.weights import check_fit, planned, stored_shapes
from retrieval.errors import EncoderError, first_line
from retrieval.forking import Batches, OneThread, in_child, threads_in_child

# In a forked child torch makes its pool of threads anew when it is first needed, and fails where two threads need it at
# once. Here, one thread does; with a single thread, as in the workers of a DataLoader.
in_child(lambda: torch.set_num_threads(threads_in_child()))


@dataclass(frozen=True)
class Cells:
    """An embedding before normalisation, as the sum of the contributions of each feature map cell.

    `parts` is (H * W, D) float64, row by row of the map, `bias` (D,) float64, `grid` (H, W).
    """

    parts: Numbers
    bias: Numbers
    grid: tuple[int, int]

    @property
    def embedding(self) -> Numbers:
        """The sum of the parts and the bias, (D,) float64."""
        total: Numbers = self.parts.sum(axis=0) + self.bias
        return total


class Encoder:
    """A timm network in eval mode, float32, with the transform that its weights were trained for."""

    def __init__(self, model: torch.nn.Module) -> None:
        # oneDNN's convolutions prefer channels-last: about a third faster on a CPU.
        network: Any = model.eval().to(memory_format=torch.channels_last)
        self.model = network
        self.data_config: dict[str, Any] = resolve_model_data_config(self.model)
        self.transform: Any = create_transform(**self.data_config, is_training=False)
        self.resize = resize_by(self.data_config)
        self.dim = int(self.model.num_classes or feature_count(self.model))
        self.fingerprint: str = self._fingerprint()
        # The network always runs on this one thread: OpenMP keeps a thread team for every thread that computes, and
        # on a server with many threads the teams slow each other down (33 ms an image instead of 19).
        self._thread = OneThread("encoder")
        self._queries = Batches(self._thread, self._forward_each, most_at_once(self.data_config["input_size"]))

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
        """Create an encoder from a timm model name.

        `weights` is a local safetensors file used instead of the Hub's weights; a classifier in it is ignored.
        `embedding_size` 0 gives the pooled features, a larger value a linear head of that size. `head` replaces it by a
        nonlinear head, such as `512-relu-256` (see `retrieval.encoders.heads`).
        Input size, interpolation, mean and standard deviation are the model's own. `crop_mode` is timm's: `squash`
        shows the network the whole image (objects at the edge count too: hit@1 on Caltech-101 is 0.858, against
        0.843), `center` cuts the edges off, as the model's own evaluation does.
        `seed` makes random weights reproducible; None draws them from torch's global generator.
        Raises EncoderError for an unknown backbone, weights that do not fit, an unreachable Hub, or a network that
        does not give one vector per image.
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
        """Load `config.json` and `model.safetensors` from a folder; raises EncoderError if they are invalid.

        Memory is allocated only for a network of the size that the weights file has.
        """
        weights = folder / WEIGHTS_FILE
        stored = stored_shapes(weights)
        with describing():
            make = described_network(folder / CONFIG_FILE)
            plan = planned(make, stored)
        check_fit(plan, stored, weights.name)  # before memory is allocated
        with describing():
            model = make()
        load_weights(model, weights, skip=())
        return cls(model)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` in timm's Hub format."""
        save_file(contiguous(self.model.state_dict()), folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors creates it readable by the owner only
        path = folder / CONFIG_FILE
        save_config_for_hf(self.model, str(path))
        config = json.loads(path.read_text(encoding="utf-8"))
        # transformers' timm wrapper passes num_classes itself, and fails if it is given twice.
        config.get("model_args", {}).pop("num_classes", None)
        if head := head_of(self.model):
            config[OWN_KEY] = {"head": head}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @property
    def size(self) -> int:
        """Size of the weights in bytes."""
        return sum(tensor.nbytes for tensor in self.model.state_dict().values())

    @property
    def name(self) -> str:
        """The timm architecture, for example `resnet50`."""
        return cast(str, self.model.pretrained_cfg["architecture"])

    @property
    def is_plain_timm(self) -> bool:
        """Whether timm alone can rebuild the network from the files that `save` writes: no head but timm's own."""
        return head_of(self.model) is None

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """RGB image to the (3, H, W) float32 input of the network: resized, cropped and normalised."""
        return cast(torch.Tensor, self.transform(image))

    def embed_tensors(self, tensors: Sequence[torch.Tensor]) -> Vectors:
        """N tensors from `preprocess` to (N, D) float32 rows of unit length.

        Raises EmbeddingError if an embedding is too close to zero to have a direction, and EncoderError if the output
        is not finite or does not have shape (N, D).
        """
        if not tensors:
            return np.empty((0, self.dim), np.float32)
        if len(tensors) == 1:  # a query: those that come while the network is busy share the next forward pass
            return unit_rows(self._queries.run(tensors[0]), self.dim, self.name)
        return unit_rows(self._thread.run(self._forward, tensors), self.dim, self.name)

    def _forward_each(self, tensors: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        return self._forward(tensors).split(1) if len(tensors) > 1 else [self._forward(tensors)]

    @torch.inference_mode()
    def _forward(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return cast(torch.Tensor, self.model(torch.stack(list(tensors)).contiguous(memory_format=torch.channels_last)))

    def _try_out(self) -> None:
        """Raise EncoderError if the network cannot process an image, or does not give exactly one embedding for it."""
        noise = torch.rand(self.data_config["input_size"], generator=torch.Generator().manual_seed(0))
        try:
            features = self._thread.run(self._forward, [noise])
        except Exception as error:  # each network fails in its own way
            raise EncoderError(f"{self.name!r} cannot embed a picture: {first_line(error)}.") from error
        check_shape(features, 1, self.dim, self.name)

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB images to (N, D) float32 rows of unit length; raises like `embed_tensors`."""
        return self.embed_tensors([self.preprocess(image) for image in images])

    @cached_property
    def explains(self) -> bool:
        """Whether `cells` can split an embedding: global average pooling, then linear layers only, or none.

        Tested once on the network itself (`averages_cells`), in about the time of embedding three images.
        """
        return self._thread.run(averages_cells, self.model, self.data_config["input_size"])

    def cells(self, image: Image.Image) -> Cells:
        """Split the embedding of an RGB image over the cells of its feature map.

        Average pooling followed by a linear layer gives the mean over the cells of W f + b, where f holds the C
        features of a cell. So W f / (H * W) is the contribution of that cell, and b belongs to no cell (class
        activation mapping, Zhou et al. 2016, arXiv:1512.04150). Parts and bias add up to the embedding before
        normalisation, up to rounding (1e-6 of its norm). Raises EncoderError if `explains` is false.
        """
        if not self.explains:
            raise EncoderError(
                f"the similarity of {self.name!r} cannot be split into parts of the picture: its embedding is not the "
                "average of a feature map followed by at most a linear layer, as in resnet50."
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
        """SHA-256 hex digest of preprocessing, shape and weights: equal for encoders that give the same vectors."""
        # Through JSON, which makes a tuple of timm's defaults equal to a list read back from a file.
        facts = [self.name, self.dim, self.data_config, *filter(None, [head_of(self.model)])]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in sorted(contiguous(self.model.state_dict()).items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()
