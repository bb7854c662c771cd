"""Guards: stop a failed run early, with an error that says why."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers.trainer_utils import get_last_checkpoint

from retrieval.errors import TrainingError
from training.recipe import Recipe

PATIENCE = 30  # consecutive steps before the run is stopped
_LEAST_SPREAD = 0.01  # 1 - mean cosine similarity of a batch; pretrained networks have 0.1 or more
_NEAR_MARGIN = 0.02  # relative to the margin: a triplet loss this close to it means no separation


class CollapseGuard:
    """Stops a run whose embeddings have collapsed.

    Either the mean cosine similarity is above 0.99, or the triplet loss stays at its margin, so anchors are as far from
    positives as from negatives. Either must hold for PATIENCE consecutive steps.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        """`folder` is the working folder of the run, for the error message."""
        self._recipe, self._folder = recipe, folder
        self._alike: deque[bool] = deque(maxlen=PATIENCE)
        self._stuck: deque[bool] = deque(maxlen=PATIENCE)

    def watch(self, step: int, parts: Mapping[str, torch.Tensor]) -> None:
        """Check the parts of the loss after one step. Raises TrainingError, with advice, on collapse."""
        margin = self._recipe.margin
        self._alike.append(float(parts["spread"]) < _LEAST_SPREAD)
        triplet = parts.get("triplet")
        stuck = triplet is not None and margin > 0 and abs(float(triplet) - margin) < _NEAR_MARGIN * margin
        self._stuck.append(stuck)
        signs = (
            ("all embeddings are nearly the same", self._alike),
            ("the triplet loss equals its margin", self._stuck),
        )
        for name, seen in signs:
            if len(seen) == PATIENCE and all(seen):
                raise TrainingError(
                    f"the embeddings have collapsed: {name} for {PATIENCE} steps up to step {step} "
                    f"({', '.join(f'{key} {float(value):.4f}' for key, value in parts.items())}). "
                    f"Delete {self._folder} and start again: {self._advice()}."
                )

    def _advice(self) -> str:
        recipe = self._recipe
        ways = [
            f"lower the learning rates (now learning_rate={recipe.learning_rate:g}, "
            f"head_learning_rate={recipe.head_learning_rate:g})"
        ]
        if recipe.triplet == "hard":
            ways.append("use semi-hard triplets (--set triplet=semihard)")
        if recipe.softmax == "none":
            ways.append("add a softmax loss (--set softmax=normalised)")
        return ", or ".join(ways)


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint in a working folder, or None. All checkpoints there are complete."""
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return Path(found) if found else None


def check_finite(step: int, loss: torch.Tensor, recipe: Recipe, folder: Path) -> None:
    """Raise TrainingError if the loss is NaN or infinite; the message names the last checkpoint."""
    if not torch.isfinite(loss).all():
        raise _diverged(f"the loss is {float(loss):g}", step, recipe, folder)


def check_weights(step: int, model: torch.nn.Module, recipe: Recipe, folder: Path) -> None:
    """Raise TrainingError if a weight is NaN or infinite: such weights must not become a checkpoint."""
    numbers = (value for value in model.state_dict().values() if value.is_floating_point())
    if not all(bool(torch.isfinite(value).all()) for value in numbers):
        raise _diverged("the weights are not finite", step, recipe, folder)


def _diverged(what: str, step: int, recipe: Recipe, folder: Path) -> TrainingError:
    last_good = last_checkpoint(folder)
    kept = f"the last good checkpoint is {last_good.name} in {folder}" if last_good else "there is no checkpoint yet"
    return TrainingError(
        f"{what} at step {step}; {kept}. Start again in a new folder with lower learning rates (now "
        f"learning_rate={recipe.learning_rate:g}, head_learning_rate={recipe.head_learning_rate:g}), with clipped "
        "gradients (--set max_grad_norm=1), or in full precision (--set bf16=false)."
    )
