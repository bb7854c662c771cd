"""Start: the head before the network learns, from features of the untouched backbone that are computed once.

A head that fits the features disturbs the backbone less when both begin to learn (Kumar et al., "Fine-Tuning can
Distort Pretrained Features", arXiv:2202.10054).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from training.network import Learner
from training.pixels import Pixels
from training.splits import Rows

_BATCH = 64
_RATE = 2e-3  # of AdamW, falling to 0
_DECAY = 1e-4


def features_of(
    learner: Learner, pixels: Pixels, rows: Rows, size: int, progress: Callable[[int, int], None] | None = None
) -> torch.Tensor:
    """(N, F) float32: the pooled features of those rows, before the head."""
    chunks = []
    for start in range(0, len(rows), _BATCH):
        chunks.append(learner.embed(pixels.batch(rows[start : start + _BATCH]), size, head=False).cpu())
        if progress:
            progress(min(start + _BATCH, len(rows)), len(rows))
    return torch.cat(chunks)


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
        _principal(head, features, power=1.0 if kind == "pca" else 0.5)
    if not recipe.head_start or not recipe.epochs:
        return
    was_training = learner.training
    learner.eval()
    with torch.no_grad():
        unit = torch.nn.functional.normalize(head(features), dim=1)
        means = unit.new_zeros(int(targets.max()) + 1, unit.shape[1]).index_add_(0, targets, unit)
    learner.objective.set_class_vectors(torch.nn.functional.normalize(means, dim=1))
    _learn(learner, head, features, targets)
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


def _principal(head: torch.nn.Module, features: torch.Tensor, power: float) -> None:
    """Make a linear layer the projection on the first D principal components, each divided by deviation ** power.

    `power` 1 is whitening (Jégou & Chum, "Negative evidences and co-occurences in image retrieval", ECCV 2012).
    Directions that hardly vary are not blown up: deviations below a hundredth of the largest count as that.
    """
    assert isinstance(head, torch.nn.Linear)
    mean = features.mean(dim=0)
    _, singular, directions = torch.linalg.svd(features - mean, full_matrices=False)
    deviation = singular / max(1, len(features) - 1) ** 0.5
    deviation = deviation.clamp(min=float(deviation[0]) * 1e-2 + 1e-12)
    count = min(head.out_features, len(directions))
    with torch.no_grad():
        weight = torch.zeros_like(head.weight)
        weight[:count] = directions[:count] / deviation[:count, None] ** power
        scale = 1 / ((features - mean) @ weight.T).norm(dim=1).mean().clamp(min=1e-12)
        head.weight.copy_(weight * scale)
        head.bias.copy_(-(weight * scale) @ mean)
