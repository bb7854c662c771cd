"""Encoder: a timm network with its own preprocessing, from images to unit vectors.

The encoder is saved in timm's Hub format (`config.json`, `model.safetensors`):
`timm.create_model("local-dir:FOLDER", pretrained=True)` gives the same network without this project. Beside it, the
exported network (`onnx/model.onnx`) gives the same vectors without torch. An engine runs one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from retrieval.arrays import Floats, Vectors
from retrieval.encoders.base import Cells, resize_by
from retrieval.encoders.description import About, read_description
from retrieval.encoders.engines.base import Engine, Precision, most_at_once
from retrieval.encoders.engines.choose import choose, open_exported
from retrieval.encoders.engines.device import build_batch
from retrieval.encoders.engines.opened import NetworkFile
from retrieval.encoders.engines.trusted import check_exported, of_pictures
from retrieval.encoders.exported import exported_encoder
from retrieval.encoders.files import CONFIG_FILE, EXPORTED_FILE
from retrieval.encoders.preprocess import Transform
from retrieval.encoders.presets.licences import Weights
from retrieval.encoders.unit import unit_rows
from retrieval.encoders.weights import int8_fingerprint
from retrieval.errors import EncoderError
from retrieval.forking import Batches, OneThread
from retrieval.installed import needs

if TYPE_CHECKING:
    from retrieval.encoders.network.saved import Network


class Encoder:
    """Turns pictures into unit vectors: preprocessing, and an engine that runs the network. Thread-safe."""

    def __init__(self, about: About, engine: Engine, network: Callable[[], Network]) -> None:
        """`network` gives the timm network; it is only called where the network itself is needed."""
        self.about, self._make = about, network
        self.name, self.fingerprint, self.data_config = about.name, about.fingerprint, about.data_config
        self.dim = engine.dim
        self.transform = Transform(self.data_config)
        self.resize = resize_by(self.data_config)
        # The network always runs on this one thread: OpenMP keeps a thread team for every thread that computes, and
        # on a server with many threads the teams slow each other down (33 ms an image instead of 19).
        self._thread = OneThread("encoder")
        self._run_with(engine)

    def _run_with(self, engine: Engine) -> None:
        size = self.data_config["input_size"]
        at_once = most_at_once(size, engine.pixels_at_once)
        self.engine, self._most = engine, at_once if engine.device == "cpu" else build_batch(engine.device, size[1])
        self._queries = Batches(self._thread, self._run_each, self._most)

    @classmethod
    def of(cls, model: Any, weights: Weights | None = None, *, channels_last: bool = True) -> Encoder:
        """An encoder for a timm network, which torch runs; `channels_last` is faster on nearly all processors.

        `weights` says where its weights come from, and their licence; None if that is not known.
        """
        with needs("a network of torch"):
            from retrieval.encoders.network.saved import Network
        network = Network(model, weights, channels_last=channels_last)
        return cls(network.about, network.engine, lambda: network)

    @classmethod
    def create(
        cls,
        backbone: str = "resnet50",
        *,
        pretrained: bool = True,
        weights: Path | None = None,
        weights_license: str | None = None,
        embedding_size: int = 0,
        head: str | None = None,
        image_size: int | None = None,
        crop_mode: str = "squash",
        seed: int | None = None,
    ) -> Encoder:
        """Create an encoder from a preset (`python -m retrieval encoders` lists them), or from any timm model name.

        `weights` is a local safetensors file used instead of the Hub's weights; a classifier in it is ignored.
        `weights_license` is its licence, which the artifact states; for weights from the Hub, timm states it.
        `embedding_size` 0 gives the pooled features, and of CLIP and its like, their projection into the space of
        words; a larger value gives a linear head of that size. `head` replaces it by a nonlinear head, such as
        `512-relu-256` (see `retrieval.encoders.network.heads`).
        `image_size` is the side of the square input in pixels; None is that of the preset or of the model. Position
        embeddings are resampled. Interpolation, mean and standard deviation are the model's own. `crop_mode` is timm's:
        `squash` shows the network the whole image (objects at the edge count too: hit@1 on Caltech-101 is 0.858,
        against 0.843), `center` cuts the edges off, as the model's own evaluation does.
        `seed` makes random weights reproducible; None draws them from torch's global generator.
        Raises EncoderError for an unknown backbone, weights that do not fit, a size that the network cannot take, an
        unreachable Hub, or a network that does not give one vector per image.
        """
        with needs("a new encoder"):
            from retrieval.encoders.network.new import new_network
            from retrieval.encoders.network.saved import try_out
        model, origin = new_network(
            backbone, pretrained=pretrained, weights=weights, weights_license=weights_license,
            embedding_size=embedding_size, head=head, image_size=image_size, seed=seed,
        )  # fmt: skip
        if crop_mode == "squash":
            model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": "squash", "crop_pct": 1.0}
        encoder = cls.of(model, origin)
        encoder._thread.run(try_out, model)
        return encoder

    @classmethod
    def load(cls, folder: Path, *, engine: str | None = None) -> Encoder:
        """Load what `save` wrote from a folder; raises EncoderError if it is invalid.

        `engine` is `onnx`, `openvino` or `torch`. None takes what LOOKALIKE_ENGINE says, else ONNX Runtime if the
        folder has the exported network and there is no GPU, else torch. torch is imported only if it runs the network.
        LOOKALIKE_DEVICE says where torch runs it: `cpu`, `cuda`, `mps`, or `auto`, a CUDA GPU if there is one.
        An encoder in int8 has only the engine that it was built with.
        Memory is allocated only for a network of the size that the weights file has.
        """
        described = read_description(folder / CONFIG_FILE)
        from_exported = choose(folder / EXPORTED_FILE, engine, described.engine)
        if from_exported is None:
            with needs(f"an artifact without {EXPORTED_FILE}, or --engine torch,"):
                from retrieval.encoders.network.saved import load_network
            loaded = load_network(folder)
            return cls(loaded.about, loaded.engine, lambda: loaded)
        running, about = exported_encoder(folder, described, from_exported)

        def network() -> Network:
            with needs("the network itself"):
                from retrieval.encoders.network.saved import load_network
            return load_network(folder)

        return cls(about, running, network)

    def use_fastest(self) -> None:
        """Let the engine that is fastest here run the network from now on, chosen as in `load`.

        If torch runs it now, it is exported as it is at this moment; what cannot be exported stays with torch.
        """
        path = self.network.exported if self.engine.name == "torch" else None
        if path is not None and (engine := choose(path)) is not None:
            self._run_with(open_exported(NetworkFile(path), engine, keep_memory=True))

    def in_int8(self, exported: Path, engine: str) -> Encoder:
        """This encoder with the network that `retrieval.encoders.network.quantize` made, in an engine of this name."""
        fingerprint = int8_fingerprint(self.fingerprint, engine, exported)
        about = replace(self.about, fingerprint=fingerprint, precision="int8")
        file = NetworkFile(exported)
        check_exported(file, of_pictures(self.data_config["input_size"]))  # as whoever loads it does
        return Encoder(about, open_exported(file, engine, keep_memory=True, is_int8=True), lambda: self.network)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` in timm's Hub format: the network in float32.

        Of an encoder in int8, config.json also says so; its exported network is a file of its own.
        """
        self.network.save(folder, None if self.precision == "float32" else self.engine.name)

    @cached_property
    def network(self) -> Network:
        """The timm network with torch, loaded when it is first needed; raises EncoderError if it cannot be."""
        return self._make()

    @property
    def model(self) -> Any:
        """The timm network itself, a `torch.nn.Module`."""
        return self.network.model

    @property
    def precision(self) -> Precision:
        """What the vectors are computed in; int8 only by the exported network, in the engine that it was built with."""
        return self.about.precision

    @property
    def weights(self) -> Weights | None:
        """Where the weights come from, and their licence; None if that is not known."""
        return self.about.weights

    @property
    def size(self) -> int:
        """Size of the weights in bytes."""
        return self.about.size

    @property
    def is_plain_timm(self) -> bool:
        """Whether timm alone can rebuild the network from the files that `save` writes: no head but timm's own."""
        return self.about.head is None

    def preprocess(self, image: Image.Image) -> Floats:
        """RGB image to the (3, H, W) float32 input of the network: resized, cropped and normalised."""
        return self.transform(image)

    def embed_tensors(self, tensors: Sequence[Floats]) -> Vectors:
        """N arrays from `preprocess` to (N, D) float32 rows of unit length.

        Raises EmbeddingError if an embedding is too close to zero to have a direction, and EncoderError if the output
        is not finite or does not have shape (N, D).
        """
        if not len(tensors):
            return np.empty((0, self.dim), np.float32)
        if len(tensors) == 1:  # a query: those that come while the network is busy share the next forward pass
            return unit_rows(self._queries.run(tensors[0])[None], self.dim, self.name)
        return unit_rows(self._thread.run(self._run, tensors), self.dim, self.name)

    def _run_each(self, tensors: list[Floats]) -> Sequence[Floats]:
        return list(self._run(tensors))

    def _run(self, tensors: Sequence[Floats]) -> Floats:
        starts = range(0, len(tensors), self._most)
        return np.concatenate([self.engine.embed(np.stack(tensors[at : at + self._most])) for at in starts])

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB images to (N, D) float32 rows of unit length; raises like `embed_tensors`."""
        return self.embed_tensors([self.preprocess(image) for image in images])

    @cached_property
    def explains(self) -> bool:
        """Whether `cells` can split an embedding: average pooling, then at most a layer norm and linear layers."""
        return self._thread.run(lambda: self.engine.explains)

    def cells(self, image: Image.Image) -> Cells:
        """Split the embedding of an RGB image over the cells of its feature map.

        Cells are those of a feature map, or the tokens of a transformer. Parts and bias add up to the embedding before
        normalisation, up to rounding (1e-6 of its norm); see `retrieval.encoders.network.split`. Raises EncoderError if
        `explains` is false.
        """
        if not self.explains:
            raise EncoderError(
                f"the similarity of {self.name!r} cannot be split into parts of the picture: its embedding is not the "
                "average over the picture followed by at most a layer norm and a linear layer, as in resnet50."
            )
        found = self._thread.run(self.engine.split, self.preprocess(image)[None])
        _, height, width, dim = found.parts.shape
        parts = found.parts[0].reshape(height * width, dim).astype(np.float64)
        return Cells(parts, found.bias.astype(np.float64), (height, width))
