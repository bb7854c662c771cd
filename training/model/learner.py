"""Learner: the timm model and its loss as one module for the Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2 import functional

from retrieval.arrays import Rows
from retrieval.console import Progress
from retrieval.encoders.image import Encoder
from retrieval.encoders.network.heads import Head
from retrieval.encoders.network.sizes import fixed_side
from retrieval.encoders.presets.licences import Weights
from retrieval.errors import RecipeError
from training.data.pixels import Pixels
from training.model.loss import Objective
from training.recipe import Recipe

_BATCH = 64
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


class Learner(torch.nn.Module):
    """Maps images and labels to the loss; `network` is a timm model, `objective` the loss with its class vectors."""

    def __init__(self, encoder: Encoder, recipe: Recipe, classes: int, *, bf16: bool = False) -> None:
        super().__init__()
        self.recipe, self.bf16 = recipe, bf16
        self.layout = torch.channels_last  # the fastest layout for convolutions, on CPUs and GPUs
        self.network: Any = encoder.model
        self.weights = encoder.weights  # what it is trained from
        self.objective = Objective(recipe, classes, encoder.dim)
        mean, std = (torch.tensor(encoder.data_config[key]).view(1, 3, 1, 1) * 255 for key in ("mean", "std"))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.interpolation = functional.InterpolationMode(encoder.data_config["interpolation"])
        self.stages = _stages(self.network) if recipe.frozen_stride or recipe.unfreeze else []
        self._closed: list[torch.nn.Module] = []
        self.open_stages(0.0)

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Loss and its parts for images (N, 3, S, S) uint8, classes (N,) int64; see `Objective.forward`."""
        return dict(self.objective(self.network(self.normalised(pixels)), labels))

    def normalised(self, pixels: torch.Tensor, size: int | None = None) -> torch.Tensor:
        """Images (N, 3, S, S) uint8 as normalised float32 input of the network, resized to `size` if it is given."""
        if size is not None and size != pixels.shape[-1]:
            pixels = functional.resize(pixels, [size, size], self.interpolation, antialias=True)
        scaled = (pixels.float() - self.mean) / self.std
        return scaled.contiguous(memory_format=self.layout)

    @torch.no_grad()
    def embed(self, pixels: torch.Tensor, size: int, *, head: bool = True) -> torch.Tensor:
        """Embed images (N, 3, S, S) uint8 as (N, D) float32 in eval mode; without head: pooled features (N, F)."""
        was_training = self.training
        self.eval()
        inputs = self.normalised(pixels.to(self.mean.device), size)
        with torch.autocast(self.mean.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.network.forward_features(inputs)
            out = self.network.forward_head(features, pre_logits=not head)
        self.train(was_training)
        return torch.as_tensor(out).float()

    def open_stages(self, epoch: float) -> None:
        """Unfreeze the stages that the recipe trains at this epoch, and freeze all others."""
        frozen = [modules for stride, modules in self.stages if stride <= self.recipe.frozen_stride]
        opened = sum(epoch >= at for at in self.recipe.unfreeze)
        self._closed = [module for modules in frozen[: max(0, len(frozen) - opened)] for module in modules]
        closed = {id(parameter) for module in self._closed for parameter in module.parameters(recurse=False)}
        # DDP fixes the trainable parameters at the start: if stages unfreeze later, discard their gradients until then.
        keep = bool(self.recipe.unfreeze) and torch.distributed.is_initialized()
        for parameter in self.network.parameters():
            parameter.requires_grad_(keep or id(parameter) not in closed)
        self.train(self.training)

    def forget_closed(self) -> None:
        """Discard gradients of frozen stages: the optimiser skips parameters without one."""
        for module in self._closed:
            for parameter in module.parameters(recurse=False):
                parameter.grad = None

    def train(self, mode: bool = True) -> Learner:
        """As in torch, but batch norm of frozen stages (freeze_norm: of the backbone) stays in eval mode."""
        super().train(mode)
        still = list(self.network.modules()) if self.recipe.freeze_norm else self._closed
        head = set(self.network.get_classifier().modules())
        for module in still:
            if isinstance(module, _NORMS) and module not in head:
                module.eval()
        return self

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Separate learning rates for backbone and head; no weight decay on norms, biases and the loss."""
        recipe = self.recipe
        head = list(self.network.get_classifier().parameters())
        of_head = {id(parameter) for parameter in head}
        backbone = [parameter for parameter in self.network.parameters() if id(parameter) not in of_head]
        groups = []
        for parameters, rate in ((backbone, recipe.learning_rate), (head, recipe.head_learning_rate)):
            for flat, decay in ((False, recipe.weight_decay), (True, 0.0)):
                chosen = [parameter for parameter in parameters if (parameter.ndim <= 1) == flat]
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
        own = list(self.objective.parameters())
        groups.append({"params": own, "lr": recipe.head_learning_rate, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]


def embed_rows(
    learner: Learner,
    pixels: Pixels,
    rows: Sequence[int] | Rows,
    size: int,
    *,
    head: bool = True,
    progress: Progress | None = None,
) -> torch.Tensor:
    """`Learner.embed` of `rows` in batches: (N, D) float32 on the CPU."""
    chunks = []
    for start in range(0, len(rows), _BATCH):
        chunks.append(learner.embed(pixels.batch(rows[start : start + _BATCH]), size, head=head).cpu())
        if progress:
            progress(min(start + _BATCH, len(rows)), len(rows))
    return torch.cat(chunks)


def starting_encoder(recipe: Recipe) -> Encoder:
    """The initial encoder of a run: the recipe's backbone and head, for pictures of test_size.

    Raises EncoderError if the backbone or its weights cannot be loaded, and RecipeError if the backbone does not
    support the image size or cannot be trained with this recipe.
    """
    own = fixed_side(recipe.backbone)
    if own and recipe.image_size != recipe.test_size:
        raise RecipeError(
            f"{recipe.backbone} is trained and used with pictures of one size: set both to the same, for example "
            f"--set image_size={own} --set test_size={own}."
        )
    kind, _, size = recipe.head.rpartition("-")
    linear = kind in ("linear", "pca")
    encoder = Encoder.create(
        recipe.backbone,
        pretrained=recipe.pretrained,
        weights=None if recipe.weights is None else Path(recipe.weights).expanduser(),
        weights_license=recipe.weights_license,
        embedding_size=int(size) if linear else 0,
        head=None if linear or recipe.head == "none" else recipe.head,
        image_size=recipe.test_size,
        seed=recipe.seed,
    )
    _check_network(encoder.model, recipe)
    return at_size(encoder.model, recipe.test_size, encoder.weights)


def _check_network(network: Any, recipe: Recipe) -> None:
    head = network.get_classifier()
    if not isinstance(head, torch.nn.Linear | torch.nn.Identity | Head):
        raise RecipeError(
            f"{recipe.backbone} does not end in one linear layer, which training needs: choose another backbone, such "
            "as resnet50."
        )
    if recipe.frozen_stride or recipe.unfreeze:
        _stages(network)


def at_size(network: Any, size: int, weights: Weights | None = None) -> Encoder:
    """Wrap `network` in an encoder that resizes images to size x size, ignoring their aspect ratio.

    `weights` says what the network was trained from.
    """
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, size, size), "test_input_size": None}
    return Encoder.of(network, weights)


def _stages(network: Any) -> list[tuple[int, list[torch.nn.Module]]]:
    """The stages of the backbone in forward order, as (stride in pixels, modules), split by timm's `feature_info`.

    Modules are taken in registration order, which in timm is the order of the forward pass.
    Raises RecipeError if `feature_info` names a module that does not exist.
    """
    ends = {int(info["reduction"]): str(info["module"]) for info in network.feature_info}
    head = set(network.get_classifier().modules())
    modules = [(name, module) for name, module in network.named_modules() if module not in head]
    stages: list[tuple[int, list[torch.nn.Module]]] = []
    start = 0
    for number, (stride, end) in enumerate(sorted(ends.items())):
        inside = [i for i, (name, _) in enumerate(modules) if name == end or name.startswith(f"{end}.")]
        if not inside:
            raise RecipeError(
                f"{type(network).__name__} does not say where its stage {end!r} ends: train all of it with "
                "--set frozen_stride=0 --set unfreeze=[]."
            )
        stop = len(modules) if number == len(ends) - 1 else max(inside) + 1
        stages.append((stride, [module for _, module in modules[start:stop]]))
        start = stop
    return stages
