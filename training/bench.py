"""Bench: speed-ups from mixed precision, frozen stages and the decode cache.

Variants are timed alternately, several times, and their medians compared, which is robust to noise on shared machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from retrieval.encoders.engines.device import wanted_device
from retrieval.encoders.engines.torch import device_named
from retrieval.errors import RecipeError
from retrieval.files.held import temporary_folder
from training.data.batches import Batches, augmentation
from training.data.dataset import open_data
from training.data.pixels import Pixels
from training.loop.trainer import has_bf16
from training.model.learner import Learner, starting_encoder
from training.recipe import Recipe
from training.starter.catalogue import catalogue, draw

_TURNS = 5
_STEPS = 2  # training steps per timing
_IMAGES = 256  # images whose decoding is timed
_SIDE = 300  # pixels, of the images that are drawn if the recipe names no data


def bench(recipe: Recipe) -> dict[str, Any]:
    """Measure a recipe on its data, or on drawn images if it names none. Rates are in images/s.

    Raises RecipeError for a recipe without training (epochs=0).
    """
    if not recipe.epochs:
        raise RecipeError(
            f"{recipe.name} does not train (epochs=0): there is nothing to measure; choose another recipe."
        )
    device = device_named(wanted_device())
    with temporary_folder() as folder:
        if not recipe.data:
            recipe = recipe.changed({"data": str(_drawn(folder / "drawn")), "label_column": None})
        data = open_data(recipe, folder)
        encoder = starting_encoder(recipe)
        rows = data.train[:_IMAGES].tolist()
        side = max(recipe.image_size, recipe.test_size)
        kept, none = (Pixels(data.raw, side, encoder.data_config["interpolation"], room) for room in (4.0, 0.0))
        kept.fill(rows)
        none.fill(rows)
        return {
            "device": f"{torch.get_num_threads()} threads" if device.type == "cpu" else device.type,
            "model": f"{recipe.backbone}, {recipe.batch_size} images of {recipe.image_size} pixels",
            **_training(recipe, len(data.classes)),
            **_decoding(recipe, rows, kept, none),
        }


def _drawn(folder: Path) -> Path:
    """Draw a part of the starter catalogue as JPEG files in class folders; returns `folder`."""
    for number, item in enumerate(catalogue()[::8]):
        path = folder / f"{item.article} {item.pattern}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(item, _SIDE).save(path)
    return folder


def _training(recipe: Recipe, classes: int) -> dict[str, Any]:
    """Speed of training steps: fp32, bf16 with channels last, and the latter with the recipe's frozen stages."""
    plain = _stepper(recipe.changed({"frozen_stride": 0, "unfreeze": []}), classes, bf16=False, plain=True)
    mixed = _stepper(recipe.changed({"frozen_stride": 0, "unfreeze": []}), classes, bf16=True)
    frozen = _stepper(recipe, classes, bf16=True)
    rates = _in_turn(recipe.batch_size * _STEPS, plain, mixed, frozen)
    return {
        "training, fp32": rates[0],
        "training, bf16 and channels last": rates[1],
        "bf16 / fp32": rates[1] / rates[0],
        "native bf16": has_bf16(),
        f"training, bf16, frozen_stride={recipe.frozen_stride}": rates[2],
        "frozen / whole": rates[2] / rates[1],
    }


def _stepper(recipe: Recipe, classes: int, *, bf16: bool, plain: bool = False) -> Callable[[], None]:
    device = device_named(wanted_device())
    learner = Learner(starting_encoder(recipe), recipe, classes).to(device).train()
    if plain:
        learner.network.to(memory_format=torch.contiguous_format)
        learner.layout = torch.contiguous_format
    optimiser = torch.optim.AdamW(learner.parameter_groups())
    size = recipe.image_size
    pixels = torch.randint(256, (recipe.batch_size, 3, size, size), dtype=torch.uint8, device=device)
    labels = (torch.arange(recipe.batch_size, device=device) // recipe.images_per_class) % classes

    def step() -> None:
        for _ in range(_STEPS):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = learner(pixels, labels)["loss"]
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _decoding(recipe: Recipe, rows: list[int], kept: Pixels, none: Pixels) -> dict[str, Any]:
    """Speed of preparing augmented images, from the cache and by decoding each file again."""
    targets = dict.fromkeys(rows, 0)
    cached, again = (Batches(pixels, targets, augmentation(recipe)) for pixels in (kept, none))
    keys = [(row, row) for row in rows]
    rates = _in_turn(
        len(rows), *(lambda batches=batches: [batches[key] for key in keys] for batches in (again, cached))
    )
    return {
        "preparing pictures, decoded each time": rates[0],
        "preparing pictures, from the cache": rates[1],
        "cached / decoded": rates[1] / rates[0],
    }


def _in_turn(images: int, *tasks: Callable[[], Any]) -> list[float]:
    """Images per second of each task: median over alternating runs, after one warm-up run."""
    times: list[list[float]] = [[] for _ in tasks]
    for turn in range(_TURNS + 1):
        for task, taken in zip(tasks, times, strict=True):
            start = time.perf_counter()
            task()
            if turn:
                taken.append(time.perf_counter() - start)
    return [images / median(taken) for taken in times]
