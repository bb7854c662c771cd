"""Encoder: a timm backbone with its own preprocessing, images in, unit vectors out.

The encoder is saved in timm's own Hub format (`config.json`, `model.safetensors`), so that
`timm.create_model("local-dir:FOLDER", pretrained=True)` gives the same network without this project.
Global average pooling and a linear head (timm's classifier layer), or none, are what lets the cosine of two images
be split into a sum over the cells of their feature maps; heads with more layers are in `retrieval.heads`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.models._hub import save_config_for_hf

from retrieval.errors import EncoderError, first_line
from retrieval.heads import Head
from retrieval.layout import CONFIG_FILE, WEIGHTS_FILE

_OWN_KEY = "lookalike"  # of config.json: what timm's own format has no place for
# Arguments of timm.create_model that would have it read other files, or run other code, than those of the folder.
_NOT_FROM_A_FILE = frozenset(
    {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "scriptable", "no_jit"}
)


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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")

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
        `head` in its place is a head that is not linear, `512-relu-256` for one (see `retrieval.heads`).
        Size, interpolation, mean and deviation are the model's own. `crop_mode` is timm's: `squash` shows the network
        the whole picture (what lies at its edge is looked for too: on Caltech-101 hit@1 0.858 against 0.843),
        `center` cuts the edges off as the model's own evaluation does.
        `seed` makes what is random in the weights the same each time; None draws it from torch's own generator.
        Raises EncoderError for an unknown backbone, weights that do not fit, or a Hub that cannot be reached.
        """
        _check_name(backbone)
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            model = _network(backbone, pretrained and weights is None, embedding_size)
            if head:
                _put_head(model, head)
        if weights is not None:
            _load_weights(model, weights, skip=_classifier_names(model))
        if crop_mode == "squash":
            model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": "squash", "crop_pct": 1.0}
        return cls(model)

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
                _put_head(model, head)
        except Exception as error:  # the file can be wrong in as many ways as timm and torch have arguments
            raise EncoderError(f"{CONFIG_FILE} does not describe a timm model: {error!r}") from error
        _load_weights(model, folder / WEIGHTS_FILE, skip=())
        return cls(model)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors` in timm's Hub format."""
        save_file(_contiguous(self.model.state_dict()), folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors lets nobody else read it
        path = folder / CONFIG_FILE
        save_config_for_hf(self.model, str(path))
        config = json.loads(path.read_text(encoding="utf-8"))
        # transformers' timm wrapper passes num_classes itself and refuses to get it twice.
        config.get("model_args", {}).pop("num_classes", None)
        if head := _head_of(self.model):
            config[_OWN_KEY] = {"head": head}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @property
    def name(self) -> str:
        """The timm architecture, `resnet50` for one."""
        return cast(str, self.model.pretrained_cfg["architecture"])

    @property
    def is_plain_timm(self) -> bool:
        """Whether timm alone makes the same network of the files that `save` writes: its head is timm's own."""
        return _head_of(self.model) is None

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """RGB image to the (3, H, W) float32 tensor that the network takes (resized, cropped, normalised)."""
        return cast(torch.Tensor, self.transform(image))

    def embed_tensors(self, tensors: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
        """N tensors from `preprocess` to (N, D) float32 rows of unit length."""
        if not tensors:
            return np.empty((0, self.dim), np.float32)
        vectors = self._thread.submit(self._forward, tensors).result()
        if not np.isfinite(vectors).all():
            raise EncoderError(f"the weights of {self.name!r} give numbers that are not finite; they are damaged.")
        return vectors

    @torch.inference_mode()
    def _forward(self, tensors: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
        features = self.model(torch.stack(list(tensors)).contiguous(memory_format=torch.channels_last))
        return cast(npt.NDArray[np.float32], torch.nn.functional.normalize(features.float(), dim=1).numpy())

    def embed_images(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float32]:
        """RGB images to (N, D) float32 rows of unit length."""
        return self.embed_tensors([self.preprocess(image) for image in images])

    def _fingerprint(self) -> str:
        """SHA-256 over preprocessing, shape and weights: two encoders with the same one give the same vectors."""
        # By way of JSON, so that a tuple of timm's defaults and a list read back from a file are the same thing.
        facts = [self.name, self.dim, self.data_config, *filter(None, [_head_of(self.model)])]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name, tensor in sorted(_contiguous(self.model.state_dict()).items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def feature_count(model: Any) -> int:
    """How many pooled features a timm network hands to its head."""
    # Those of a network that widens them after pooling (MobileNetV3, VGG) are `head_hidden_size`.
    return int(getattr(model, "head_hidden_size", None) or model.num_features)


def _network(backbone: str, from_hub: bool, embedding_size: int) -> Any:
    try:
        return timm.create_model(backbone, pretrained=from_hub, num_classes=embedding_size)
    except Exception as error:  # timm, torch and the Hub client each raise their own kinds
        what = f"the Hub weights of {backbone!r} could not be had" if from_hub else f"cannot make {backbone!r}"
        raise EncoderError(
            f"{what}: {first_line(error)}. Give the weights with --weights FILE (safetensors), or take random ones "
            "(--no-pretrained; in training --set pretrained=false)."
        ) from error


def _put_head(model: Any, spec: str) -> None:
    """Put the layers of a head where timm has its classifier."""
    names = _classifier_names(model)
    if len(names) != 1:
        raise EncoderError(f"{model.pretrained_cfg['architecture']!r} has no single classifier to put a head in.")
    head = Head(spec, feature_count(model))
    model.set_submodule(names[0], head)
    model.num_classes = head.dim


def _head_of(model: Any) -> str | None:
    """The word of a head that is not linear; None for timm's own classifier."""
    return next((part.spec for part in model.modules() if isinstance(part, Head)), None)


def _contiguous(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _classifier_names(model: Any) -> tuple[str, ...]:
    names = model.pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _check_name(backbone: str) -> None:
    if timm.is_model(backbone.split(".")[0]) or backbone.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        return
    near = difflib.get_close_matches(backbone, timm.list_models(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "`timm.list_models()` names them all."
    raise EncoderError(f"timm has no model {backbone!r}; {hint}")


def _load_weights(model: Any, path: Path, skip: Sequence[str]) -> None:
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
