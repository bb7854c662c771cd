"""Heads fitted to features: before the network learns, and once more when it has.

A head that fits the features disturbs the backbone less when both begin to learn (Kumar et al., "Fine-Tuning can
Distort Pretrained Features", arXiv:2202.10054).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from retrieval.errors import TrainingError
from training.network import Learner
from training.pixels import Pixels
from training.splits import Rows

_BATCH = 64
_RATE = 2e-3  # of AdamW, falling to 0
_DECAY = 1e-4


def features_of(
    learner: Learner, pixels: Pixels, rows: Rows, size: int, progress: Callable[[int, int], None] | None = None
) -> torch.Tensor:
    """(N, F) float32: the pooled features of those rows, before the head. Raises TrainingError where they are NaN."""
    chunks = []
    for start in range(0, len(rows), _BATCH):
        chunks.append(learner.embed(pixels.batch(rows[start : start + _BATCH]), size, head=False).cpu())
        if progress:
            progress(min(start + _BATCH, len(rows)), len(rows))
    features = torch.cat(chunks)
    if not torch.isfinite(features).all():
        raise TrainingError("the weights give features that are not finite: they are damaged, or not this network's.")
    return features


def start_head(learner: Learner, features: torch.Tensor, targets: torch.Tensor) -> None:
    """Fit the head to (N, F) features of the training images and their (N,) int64 classes.

    A linear head starts as the principal components of the features: whitened for `pca`, divided by the root of the
    deviation for `linear`, where head_start is above 0. The class vectors start as the means of their classes. Then
    head and class vectors learn for `head_start` epochs.
    """
    recipe = learner.recipe
    features, targets = features.to(learner.mean.device), targets.to(learner.mean.device)
    kind = recipe.head.rpartition("-")[0]
    head = learner.network.get_classifier()
    if kind == "pca" or (kind == "linear" and recipe.head_start):
        weight, bias = _principal(features, head.out_features, power=1.0 if kind == "pca" else 0.5)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)
    if not recipe.head_start or not recipe.epochs:
        return
    was_training = learner.training
    learner.eval()
    with torch.no_grad():
        unit = torch.nn.functional.normalize(head(features), dim=1)
        means = unit.new_zeros(int(targets.max()) + 1, unit.shape[1]).index_add_(0, targets, unit)
    learner.objective.set_class_vectors(torch.nn.functional.normalize(means, dim=1))
    _learn(learner, head, features, targets)
    if recipe.generic:  # which is to have a length of 1; learning cosines has left it at any
        with torch.no_grad():
            length = head(features).norm(dim=1).mean()
            head.weight /= length
            head.bias /= length
    learner.train(was_training)


def _learn(learner: Learner, head: torch.nn.Module, features: torch.Tensor, targets: torch.Tensor) -> None:
    recipe = learner.recipe
    if recipe.softmax == "none":
        return
    parameters = [*head.parameters(), *learner.objective.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
    steps = max(1, recipe.head_start * len(features) // _BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    generator = torch.Generator().manual_seed(recipe.seed)
    head.train()
    for _ in range(steps):
        batch = torch.randint(len(features), (_BATCH,), generator=generator).to(features.device)
        logits = learner.objective.logits(head(features[batch]))
        assert logits is not None
        loss = torch.nn.functional.cross_entropy(logits, targets[batch], label_smoothing=recipe.label_smoothing)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def widen(learner: Learner, features: torch.Tensor) -> None:
    """Add `generic` rows to the linear head of a trained network: principal components of its (N, F) features.

    The head has learned to tell the classes of training apart and blurs all else. The features beneath it still hold
    what tells other classes apart, in directions of little variance, which are therefore raised (divided by
    deviation ** 0.75). In an embedding they have `generic_share` of the squared length, on the mean.
    """
    recipe = learner.recipe
    head = learner.network.get_classifier()
    own, share = head.out_features, recipe.generic_share
    weight, bias = _principal(features, recipe.generic, power=0.75)
    wide = torch.nn.Linear(head.in_features, own + recipe.generic)
    with torch.no_grad():
        scale = (1 - share) ** 0.5 / head(features).norm(dim=1).mean()
        wide.weight.copy_(torch.cat([head.weight * scale, weight * share**0.5]))
        wide.bias.copy_(torch.cat([head.bias * scale, bias * share**0.5]))
    learner.network.set_submodule(learner.network.pretrained_cfg["classifier"], wide)
    learner.network.num_classes = own + recipe.generic


def _principal(features: torch.Tensor, count: int, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (count, F) and bias of the first principal components, each divided by deviation ** power.

    What comes out has length 1 on the mean. `power` 1 is whitening (Jégou & Chum, "Negative evidences and co-occurences
    in image retrieval", ECCV 2012). Directions that hardly vary are not blown up: deviations below a hundredth of the
    largest count as that.
    """
    mean = features.mean(dim=0)
    _, singular, directions = torch.linalg.svd(features - mean, full_matrices=False)
    deviation = singular / max(1, len(features) - 1) ** 0.5
    deviation = deviation.clamp(min=float(deviation[0]) * 1e-2 + 1e-12)
    weight = features.new_zeros(count, features.shape[1])
    known = min(count, len(directions))
    weight[:known] = directions[:known] / deviation[:known, None] ** power
    weight /= ((features - mean) @ weight.T).norm(dim=1).mean().clamp(min=1e-12)
    return weight, -weight @ mean
