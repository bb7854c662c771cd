"""Checks of the data before the first step: labels, and enough images for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval.arrays import Rows
from retrieval.errors import TrainingError, short
from training.data.splits import counted
from training.recipe import Recipe


def check_labels(recipe: Recipe, images: Any, labels: Sequence[str]) -> list[str]:
    """Notes on images without a label; raises TrainingError unless `skip_unusable` drops them."""
    missing = [row for row, label in enumerate(labels) if not label]
    if not labels:
        raise TrainingError(f"{recipe.data} has no images.")
    if len(missing) == len(labels):
        raise TrainingError(
            f"{recipe.data} has no labels: training needs one for each image. Name the label column with "
            "--label-column, or give a folder with one sub-folder per class."
        )
    if missing and not recipe.skip_unusable:
        raise TrainingError(
            f"{len(missing)} of {len(labels)} images of {recipe.data} have no label, the first is "
            f"{images[missing[0]]['source']}. Label them, or leave them out with --set skip_unusable=true."
        )
    return [f"{counted(len(missing))} without a label"] if missing else []


def check_classes(recipe: Recipe, parts: dict[str, Rows], labels: list[str], declared: Sequence[str]) -> list[str]:
    """Classes with fewer than two training images: drop them from all parts (skip_unusable) or raise TrainingError."""
    counts = Counter(labels[row] for row in parts["train"])
    everywhere = {labels[row] for rows in parts.values() for row in rows} | set(declared)
    small = {label: counts[label] for label in sorted(everywhere) if counts[label] < 2}
    if not small:
        return []
    named = ", ".join(f"{short(label, 60)!r} ({count})" for label, count in list(small.items())[:5])
    if not recipe.skip_unusable:
        raise TrainingError(
            f"{len(small)} of {len(everywhere)} classes have fewer than two training images: {named}. A triplet "
            "needs two. Add images, or leave these classes out with --set skip_unusable=true."
        )
    before = sum(map(len, parts.values()))
    for part, rows in parts.items():
        parts[part] = np.array([row for row in rows if labels[row] not in small], np.int64)
    gone = counted(before - sum(map(len, parts.values())))
    kinds = "1 class" if len(small) == 1 else f"{len(small)} classes"
    return [f"{gone} of {kinds} with fewer than two training images: {named}"]


def draw_held_out(recipe: Recipe, classes: Sequence[str]) -> tuple[str, ...]:
    """The held-out classes, sorted; drawn with the recipe's seed."""
    count = round(len(classes) * recipe.hold_out_classes)
    if recipe.hold_out_classes and not 0 < count < len(classes) - 1:
        raise TrainingError(
            f"hold_out_classes={recipe.hold_out_classes:g} of {len(classes)} classes is {count}: at least one class "
            "must be held out, and at least two must stay."
        )
    return tuple(sorted(np.random.default_rng(recipe.seed).choice(classes, count, replace=False).tolist()))
