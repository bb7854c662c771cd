"""Loss: triplet loss and softmax over classes, from pytorch-metric-learning, on the batch of all processes.

- Triplet loss (Schroff et al., FaceNet, arXiv:1503.03832) on unit vectors. Triplets are mined with the hardest
  positive and negative of each anchor (Hermans et al., arXiv:1703.07737), semi-hard, or drawn at random.
- Normalised softmax (Wang et al., NormFace, arXiv:1704.06369; Zhai & Wu, arXiv:1811.12649): cosine similarities
  with one vector per class, divided by a temperature.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning import distances, losses, miners, reducers

from training.recipe import Recipe


class Objective(torch.nn.Module):
    """The loss of a recipe for embeddings (N, D), not necessarily of unit length, and int64 classes (N,)."""

    def __init__(self, recipe: Recipe, classes: int, dim: int) -> None:
        super().__init__()
        self.recipe = recipe
        distance = distances.LpDistance(normalize_embeddings=True, p=2, power=2 if recipe.squared else 1)
        self.triplet = losses.TripletMarginLoss(
            recipe.margin,
            distance=distance,
            reducer=reducers.MeanReducer(),
            triplets_per_anchor=1 if recipe.triplet == "random" else "all",
        )
        self.miner = {
            "hard": miners.BatchHardMiner(distance=distance),
            "semihard": miners.TripletMarginMiner(recipe.margin, type_of_triplets="semihard", distance=distance),
        }.get(recipe.triplet)
        self.softmax = None
        if recipe.softmax == "normalised":
            self.softmax = losses.NormalizedSoftmaxLoss(classes, dim, temperature=recipe.temperature)
            self.softmax.cross_entropy.label_smoothing = recipe.label_smoothing
        self.classifier = torch.nn.Linear(dim, classes) if recipe.softmax == "linear" else None

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """`loss`, `spread`, and the parts `triplet` and `softmax` that the recipe uses; all are scalars.

        Always computed in float32: near 1, bfloat16 resolves cosine similarities only to 0.004.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._parts(*gathered(embeddings.float(), labels))

    def _parts(self, embeddings: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        parts: dict[str, torch.Tensor] = {}
        if self.recipe.triplet != "none":
            mined = self.miner(embeddings, labels) if self.miner else None
            parts["triplet"] = self.triplet(embeddings, labels, mined)
        if self.softmax is not None:
            parts["softmax"] = self.softmax(embeddings, labels)
        if self.classifier is not None:
            parts["softmax"] = torch.nn.functional.cross_entropy(
                self.classifier(embeddings), labels, label_smoothing=self.recipe.label_smoothing
            )
        weighted = [part * (self.recipe.triplet_weight if name == "triplet" else 1.0) for name, part in parts.items()]
        return {"loss": torch.stack(weighted).sum(), **parts, "spread": spread(embeddings)}

    def logits(self, embeddings: torch.Tensor) -> torch.Tensor | None:
        """Class logits (N, C) float32 of embeddings (N, D); None for a recipe without a softmax."""
        if self.classifier is not None:
            return torch.as_tensor(self.classifier(embeddings.float()))
        if self.softmax is None:
            return None
        unit = torch.nn.functional.normalize
        return unit(embeddings.float(), dim=1) @ unit(self.softmax.W, dim=0) / self.recipe.temperature

    def set_class_vectors(self, vectors: torch.Tensor) -> None:
        """Set the weights of the normalised softmax to class means (C, D) (Qi et al., arXiv:1712.07136)."""
        if self.softmax is not None:
            with torch.no_grad():
                self.softmax.W.copy_(torch.nn.functional.normalize(vectors, dim=1).T)


def gathered(embeddings: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and labels of all processes, in rank order: triplets are mined in the whole batch.

    Gradients flow only to the process's own embeddings, multiplied by the number of processes. DDP averages gradients
    over processes, so the result equals that of one process with the whole batch.
    """
    if not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        return embeddings, labels
    count, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    others, classes = ([torch.empty_like(part) for _ in range(count)] for part in (embeddings.detach(), labels))
    torch.distributed.all_gather(others, embeddings.detach().contiguous())
    torch.distributed.all_gather(classes, labels.contiguous())
    own = embeddings.view_as(embeddings)
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * count)
    others[rank] = own
    return torch.cat(others), torch.cat(classes)


def spread(embeddings: torch.Tensor) -> torch.Tensor:
    """1 - mean cosine similarity over all pairs of a batch, in [0, 2); 0 if all embeddings are the same."""
    # Zero embeddings have no direction; the offset makes them count as identical.
    unit = torch.nn.functional.normalize(embeddings.detach() + 1e-20, dim=1, eps=1e-30)
    count = len(unit)
    mean = (unit.sum(dim=0).square().sum() - count) / max(1, count * (count - 1))
    return (1 - mean).clamp(min=0)  # rounding can make it a little less
