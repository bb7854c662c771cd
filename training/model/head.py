"""Heads fitted to features: before the network learns, and once more when it has.

A head that fits the features disturbs the backbone less when both begin to learn (Kumar et al., "Fine-Tuning can
Distort Pretrained Features", arXiv:2202.10054).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from retrieval.arrays import Rows
from retrieval.errors import TrainingError
from training.data.pixels import Pixels
from training.model.learner import Learner, embed_rows

_BATCH = 64
_LEAST_VARIANCE = 1e-5  # of a principal component, as a share of the first one's
_RATE = 2e-3  # of AdamW, falling to 0
_DECAY = 1e-4
_SHRINKAGE = 0.03  # variance that is added within classes, as a share of all there is: new images vary more


def features_of(
    learner: Learner, pixels: Pixels, rows: Rows, size: int, progress: Callable[[int, int], None] | None = None
) -> torch.Tensor:
    """(N, F) float32: the pooled features of those rows, before the head. Raises TrainingError where they are NaN."""
    features = embed_rows(learner, pixels, rows, size, head=False, progress=progress)
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
    """Compute the linear head anew from the (N, F) features of a trained network and their (N,) int64 classes.

    Features are whitened within their classes (Hatch et al., "Within-class covariance normalization", Interspeech
    2006). The first numbers of an embedding, half of them at most, are then the linear discriminants (Fisher 1936; Rao
    1948), which tell the classes of training apart. All others are the principal components of what is left: what
    varies between images, but does not tell these classes apart, is what other classes are known by. They get
    `generic_share` of the squared length of an embedding, on the mean of the training images. The class vectors of the
    objective become the means of their classes.
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
    """(C, F): the mean of each class."""
    means = features.new_zeros(int(targets.max()) + 1, features.shape[1]).index_add_(0, targets, features)
    return means / torch.bincount(targets)[:, None]


def _directions(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Variances (F,), the largest first, of (N, F) features without their mean, and their directions, (F, F) rows."""
    covariance = (features.T @ features).double() / max(1, len(features) - 1)
    variances, columns = torch.linalg.eigh(covariance)
    return variances.flip(0).clamp(min=0).to(features.dtype), columns.T.flip(0).to(features.dtype)


def _whitening(deviations: torch.Tensor, floor: float) -> torch.Tensor:
    """(F, F): the inverse root of the covariance of (N, F) deviations, to which `floor` is added in all directions."""
    variances, directions = _directions(deviations)
    scale = (variances + floor + 1e-12).rsqrt()
    return torch.as_tensor((directions.T * scale) @ directions)


def _principal(features: torch.Tensor, count: int, power: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (count, F) and bias of the first principal components, each divided by deviation ** power.

    What comes out has length 1 on the mean. `power` 1 is whitening (Jégou & Chum, "Negative evidences and co-occurences
    in image retrieval", ECCV 2012). Directions that hardly vary are not blown up: deviations below a hundredth of the
    largest count as that.
    """
    mean = features.mean(dim=0)
    variances, directions = _directions(features - mean)
    deviations = variances.sqrt()
    deviations = deviations.clamp(min=float(deviations[0]) * 1e-2 + 1e-12)
    weight = features.new_zeros(count, features.shape[1])
    # What the images of training do not have at all, new images have at any length: it would drown the rest.
    known = min(count, int((variances > variances[0] * _LEAST_VARIANCE).sum()))
    weight[:known] = directions[:known] / deviations[:known, None] ** power
    weight = _scaled(weight, 1.0, features - mean)
    return weight, -weight @ mean


def _scaled(weight: torch.Tensor, length: float, features: torch.Tensor) -> torch.Tensor:
    """The weight, so that what it makes of the features has that length on the mean."""
    mean = float((features @ weight.T).norm(dim=1).mean())
    return weight * (length / max(mean, 1e-12))
