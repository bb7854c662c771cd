"""Fitting the embedding head to backbone features, before fine-tuning and again after it.

Starting from a head that already fits the features distorts the backbone less during fine-tuning (Kumar et al.,
"Fine-Tuning can Distort Pretrained Features", arXiv:2202.10054).
"""

from __future__ import annotations

import torch

from retrieval.arrays import Rows
from retrieval.console import Progress
from retrieval.errors import TrainingError
from training.data.pixels import Pixels
from training.model.learner import Learner, embed_rows

_BATCH = 64
_LEAST_VARIANCE = 1e-5  # of a principal component, relative to the variance of the first one
_RATE = 2e-3  # learning rate of AdamW, decays linearly to 0
_DECAY = 1e-4  # weight decay of AdamW
_SHRINKAGE = 0.03  # added to the within-class variance, relative to the mean variance: new images vary more


def features_of(
    learner: Learner, pixels: Pixels, rows: Rows, size: int, progress: Progress | None = None
) -> torch.Tensor:
    """Pooled backbone features of `rows`, (N, F) float32. Raises TrainingError if a value is not finite."""
    features = embed_rows(learner, pixels, rows, size, head=False, progress=progress)
    if not torch.isfinite(features).all():
        raise TrainingError("the weights give features that are not finite: they are damaged, or of another network.")
    return features


def start_head(learner: Learner, features: torch.Tensor, targets: torch.Tensor) -> None:
    """Fit the head to the features (N, F) of the training images and their int64 classes (N,).

    The head is initialised with the principal components of the features. `pca` whitens them; `linear` divides them by
    the square root of their standard deviation, if head_start > 0. The class vectors are initialised with the class
    means. Head and class vectors are then trained for `head_start` epochs, with the backbone frozen.
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
        learner.objective.set_class_vectors(_class_means(unit, targets))
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


def finish_head(learner: Learner, features: torch.Tensor, targets: torch.Tensor) -> None:
    """Recompute the linear head from the features (N, F) of the trained network and their int64 classes (N,).

    Features are first whitened within classes (Hatch et al., "Within-class covariance normalization", Interspeech
    2006). The first dimensions of the embedding, at most half, are linear discriminants (Fisher 1936; Rao 1948): they
    separate the training classes. The other dimensions are the principal components of the residual. Directions that
    do not separate the training classes can still separate unseen ones. These dimensions get `generic_share` of the
    squared norm of an embedding, on average over the training images. The class vectors of the objective are set to
    the class means.
    """
    head, share = learner.network.get_classifier(), learner.recipe.generic_share
    centre = features.mean(dim=0)
    features = features - centre
    floor = _SHRINKAGE * float(features.square().mean())
    whiten = _whitening(features - _class_means(features, targets)[targets], floor)
    features = features @ whiten
    means = _class_means(features, targets)
    axes = torch.linalg.svd(means - means.mean(dim=0), full_matrices=False)[2]
    axes = axes[: min(len(means) - 1, head.out_features // 2)]
    others, _ = _principal(features - features @ axes.T @ axes, head.out_features - len(axes), power=0.0)
    others = others - others @ axes.T @ axes
    weight = torch.cat([_scaled(axes, (1 - share) ** 0.5, features), _scaled(others, share**0.5, features)])
    with torch.no_grad():
        head.weight.copy_(weight @ whiten)
        head.bias.copy_(-weight @ whiten @ centre)
    unit = torch.nn.functional.normalize(features @ weight.T, dim=1)
    learner.objective.set_class_vectors(_class_means(unit, targets))


def _class_means(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean feature of each class, (C, F)."""
    means = features.new_zeros(int(targets.max()) + 1, features.shape[1]).index_add_(0, targets, features)
    return means / torch.bincount(targets)[:, None]


def _directions(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal variances (F,), in descending order, and directions (F, F), one per row, of centred features (N, F)."""
    covariance = (features.T @ features).double() / max(1, len(features) - 1)
    variances, columns = torch.linalg.eigh(covariance)
    return variances.flip(0).clamp(min=0).to(features.dtype), columns.T.flip(0).to(features.dtype)


def _whitening(deviations: torch.Tensor, floor: float) -> torch.Tensor:
    """Whitening matrix (F, F): inverse square root of (covariance of `deviations` (N, F) + `floor` * identity)."""
    variances, directions = _directions(deviations)
    scale = (variances + floor + 1e-12).rsqrt()
    return torch.as_tensor((directions.T * scale) @ directions)


def _principal(features: torch.Tensor, count: int, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (count, F) and bias (count,) that project onto the first components, divided by deviation ** power.

    The projections have an average norm of 1. `power` 1 is whitening (Jégou & Chum, "Negative evidences and
    co-occurences in image retrieval", ECCV 2012). Standard deviations are clamped to at least 1% of the largest, so
    low-variance directions are not amplified.
    """
    mean = features.mean(dim=0)
    variances, directions = _directions(features - mean)
    deviations = variances.sqrt()
    deviations = deviations.clamp(min=float(deviations[0]) * 1e-2 + 1e-12)
    weight = features.new_zeros(count, features.shape[1])
    # Directions without variance in training can have any length in new images and would dominate: drop them.
    known = min(count, int((variances > variances[0] * _LEAST_VARIANCE).sum()))
    weight[:known] = directions[:known] / deviations[:known, None] ** power
    weight = _scaled(weight, 1.0, features - mean)
    return weight, -weight @ mean


def _scaled(weight: torch.Tensor, length: float, features: torch.Tensor) -> torch.Tensor:
    """Rescale `weight` so that its projections of `features` have the average norm `length`."""
    mean = float((features @ weight.T).norm(dim=1).mean())
    return weight * (length / max(mean, 1e-12))
