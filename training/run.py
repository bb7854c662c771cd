"""Run: train a recipe, from data to artifact.

Intermediate files (rows, checkpoints, audit) are kept in a folder next to the artifact, `OUT.training`, until the
artifact is complete.
"""

from __future__ import annotations

import gc
import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers.trainer import TRAINER_STATE_NAME

from retrieval.artifact.load import check_target
from retrieval.build.precision.calibration import check_int8
from retrieval.commands.printing import one_line
from retrieval.encoders.presets.licences import notice
from retrieval.errors import TrainingError
from retrieval.evaluation.metrics import query_figures
from retrieval.files.storing import discard, storing, whole
from retrieval.stores.faiss import FaissStore
from training.data.audit import Pair, near_duplicates
from training.data.batches import Batches, augmentation
from training.data.dataset import Data, open_data, without
from training.data.pixels import Pixels
from training.loop.guards import last_checkpoint
from training.loop.trainer import METRIC, MetricTrainer, has_bf16, training_arguments
from training.loop.workdir import check_images, claim, is_finished
from training.model.head import features_of, finish_head, start_head
from training.model.learner import Learner, embed_rows, starting_encoder
from training.recipe import Recipe
from training.results.publish import Run, publish

_GALLERY_OF_A_CLASS = 10  # training images per class in the validation gallery: enough to select a checkpoint

Say = Callable[[str], None]


def train(recipe: Recipe, out: Path, *, resume: bool = False, say: Say = print) -> Path:
    """Train a recipe and write the artifact `out`; returns `out`.

    `resume` continues from the last checkpoint of an interrupted run, or starts a new run if there is none.
    Raises TrainingError, SourceError, EncoderError or ArtifactError, before the first step if possible.
    """
    started = time.monotonic()
    check_target(out)
    work = out.parent / f"{out.name}.training"
    if is_finished(recipe, out, resume):
        say(f"{out} is finished: there is nothing to resume")
        shutil.rmtree(work, ignore_errors=True)  # may remain if the run was killed
        return out
    torch.set_num_threads(recipe.threads or torch.get_num_threads())
    transformers.set_seed(recipe.seed)
    bf16 = has_bf16() if recipe.bf16 is None else recipe.bf16
    arguments = training_arguments(recipe, work, bf16=bf16)
    _check_processes(recipe, arguments.world_size)
    if arguments.process_index:
        say = _silent
    first = arguments.process_index == 0
    with storing(work, TrainingError, only=lambda at: at.is_relative_to(work.absolute())):
        _train(recipe, out, work, arguments, resume, say, started)
    if first:
        gc.collect()  # Windows deletes no folder with an open file, such as the rows
        discard(work)
    return out


def _train(
    recipe: Recipe,
    out: Path,
    work: Path,
    arguments: transformers.TrainingArguments,
    resume: bool,
    say: Say,
    started: float,
) -> None:
    first = arguments.process_index == 0
    with ExitStack() as stack:
        with arguments.main_process_first():
            if first:
                stack.enter_context(claim(work, out, recipe, resume))
            last = last_checkpoint(work) if resume else None
            pairs: list[Pair] = []
            learner, data, pixels = _opened(recipe, work, arguments.bf16, last is not None, say)
            learner.to(arguments.device)
            if first:
                check_images(data, pixels, work, last is not None)
                pairs = _prepare(learner, data, pixels, work, last is None, say)
        state = _learn(learner, data, pixels, arguments, last, say)
        if first:
            finished = _finish(learner, data, pixels, say)
            seconds = None if last else time.monotonic() - started  # unknown for a resumed run
            run = Run(recipe, data, pixels, learner, pairs, state, finished, seconds)
            publish(run, out, _counter(say, "indexed"))


def _learn(
    learner: Learner,
    data: Data,
    pixels: Pixels,
    arguments: transformers.TrainingArguments,
    last: Path | None,
    say: Say,
) -> transformers.TrainerState:
    """Train from scratch or from the last checkpoint; the learner ends with the weights of the best checkpoint."""
    recipe = learner.recipe
    if not recipe.epochs:
        return transformers.TrainerState()
    trainer = _trainer(learner, data, pixels, arguments, say)
    state = transformers.TrainerState.load_from_json(str(last / TRAINER_STATE_NAME)) if last else trainer.state
    # For fractional epochs, resuming a completed training would run one step too many.
    if state.global_step < math.ceil(recipe.epochs * trainer.steps_per_epoch):
        how = f"{'bf16' if arguments.bf16 else 'fp32'}, processes: {arguments.world_size}"
        say(f"training for {recipe.epochs:g} epochs of {trainer.steps_per_epoch} steps, {how}")
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        state = trainer.state
    best = state.best_global_step or state.global_step
    learner.load_state_dict(load_file(trainer.folder / f"checkpoint-{best}" / "model.safetensors"))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return state


def _finish(learner: Learner, data: Data, pixels: Pixels, say: Say) -> dict[str, float]:
    """Recompute the head if the recipe asks for it (generic_share); returns the final validation metrics."""
    learner.eval()
    if learner.recipe.generic_share:
        features = features_of(learner, pixels, data.train, learner.recipe.test_size, _counter(say, "embedded"))
        finish_head(learner.cpu(), features, torch.from_numpy(data.targets))
    figures = _validated(learner.cpu(), data, pixels)
    say(f"final head: {', '.join(f'validation {name} {value:.4f}' for name, value in figures.items())}")
    return figures


def _opened(recipe: Recipe, work: Path, bf16: bool, resumed: bool, say: Say) -> tuple[Learner, Data, Pixels]:
    """The learner, the checked data, and its decoded images."""
    encoder = starting_encoder(recipe)
    if encoder.weights and (said := notice(encoder.weights, recipe.backbone)):
        say(one_line(f"note: {said}"))
    FaissStore.check_factory(recipe.index, encoder.dim)
    if recipe.precision == "int8":
        check_int8(encoder)  # not after the training
    say(f"reading {recipe.data}")
    data = open_data(recipe, work, resumed=resumed)
    side = max(recipe.image_size, recipe.test_size)
    pixels = Pixels(data.raw, side, encoder.data_config["interpolation"], recipe.cache_gb)
    pixels.fill(data.everything.tolist(), _counter(say, "decoded"))
    data = without(recipe, data, pixels.bad)
    _describe(data, pixels, say)
    return Learner(encoder, recipe, len(data.classes), bf16=bf16), data, pixels


def _check_processes(recipe: Recipe, count: int) -> None:
    if recipe.batch_size % count:
        raise TrainingError(
            f"a batch of {recipe.batch_size} images cannot be divided among {count} processes: change "
            "classes_per_batch or images_per_class."
        )


def _describe(data: Data, pixels: Pixels, say: Say) -> None:
    sizes = ", ".join(f"{len(rows):,} {part}" for part, rows in data.parts.items())
    say(f"{sizes}; test is {data.described}")
    held_out = f"; {len(data.held_out)} classes held out" if data.held_out else ""
    say(f"{len(data.train):,} training images of {len(data.classes)} classes{held_out}")
    say(f"{pixels.kept:,} decoded images kept in memory, at {pixels.side} pixels")
    for note in (*data.notes, *(f"left out: {note}" for note in data.left_out)):
        say(one_line(note))


def _prepare(learner: Learner, data: Data, pixels: Pixels, work: Path, fresh: bool, say: Say) -> list[Pair]:
    """Leak audit and head initialisation, once before training, from features of the pretrained backbone."""
    path = work / "audit.json"
    if not fresh and path.is_file():
        return [Pair(**pair) for pair in json.loads(path.read_text(encoding="utf-8"))]
    rows = data.everything
    features = features_of(learner, pixels, rows, learner.recipe.image_size, _counter(say, "embedded"))
    of_row = dict(zip(rows.tolist(), features, strict=True))
    held_out = [*data.seen("test").tolist(), *data.unseen.tolist()]
    others = [*data.train.tolist(), *data.seen("validation").tolist()]
    pairs = near_duplicates(held_out, others, of_row, pixels.grey, _counter(say, "audited"))
    say(f"leak audit: {len(pairs)} of {len(held_out)} held-out images have a near-duplicate among the others")
    start_head(learner, torch.stack([of_row[int(row)] for row in data.train]), torch.from_numpy(data.targets))
    with whole(path) as unfinished:
        unfinished.write_text(json.dumps([asdict(pair) for pair in pairs]), encoding="utf-8")
    return pairs


def _trainer(
    learner: Learner, data: Data, pixels: Pixels, arguments: transformers.TrainingArguments, say: Say
) -> MetricTrainer:
    targets = dict(zip(data.train.tolist(), data.targets.tolist(), strict=True))
    rows_of: list[list[int]] = [[] for _ in data.classes]
    for row, target in targets.items():
        rows_of[target].append(row)
    batches = Batches(pixels, targets, augmentation(learner.recipe))
    return MetricTrainer(learner, batches, rows_of, lambda now: _validated(now, data, pixels), arguments, say)


def _validated(learner: Learner, data: Data, pixels: Pixels) -> dict[str, float]:
    """Metrics of validation images as queries; the gallery is the first training images of each class."""
    parts: list[list[int]] = [data.seen("validation").tolist(), []]
    room = dict.fromkeys(data.classes, _GALLERY_OF_A_CLASS)
    for row in data.train.tolist():
        if room[data.labels[row]]:
            room[data.labels[row]] -= 1
            parts[1].append(row)
    vectors = [embed_rows(learner, pixels, rows, learner.recipe.test_size) for rows in parts]
    queries, gallery = (torch.nn.functional.normalize(part, dim=1).numpy() for part in vectors)
    labels = [[data.labels[row] for row in rows] for rows in parts]
    found = query_figures(queries, labels[0], gallery, labels[1])
    return {name: float(values.mean()) for name, values in found.values.items() if name in ("hit@1", "P@5", METRIC)}


def _silent(_: str) -> None:
    pass


def _counter(say: Say, what: str) -> Callable[[int, int | None], None]:
    """A callback that reports progress at most every ten seconds."""
    last = time.monotonic()

    def count(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"{what} {done:,} of {total:,}" if total else f"{what} {done:,}")

    return count
