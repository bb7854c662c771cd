"""Publish: build the artifact of a finished run from its best checkpoint, with metrics, plots and card."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval.artifact.metrics import key_of
from retrieval.artifact.sections import (
    AuditSection,
    CalibrationSection,
    Checkpoint,
    NearDuplicate,
    Skipped,
    TrainingData,
    TrainingSection,
)
from retrieval.build.build import building
from retrieval.build.write import Draft
from retrieval.console import Progress, say
from retrieval.encoders.engines.base import Precision
from retrieval.errors import PrecisionError
from retrieval.evaluation.calibration import Queries, calibrate
from retrieval.images.open import open_image
from retrieval.stores.faiss import FaissStore
from training.data.audit import Pair
from training.data.dataset import Data, open_splits
from training.data.pixels import Pixels
from training.loop.trainer import METRIC
from training.model.learner import Learner, at_size, embed_rows
from training.recipe import Recipe, without_places
from training.results.evaluate import evaluate, evaluate_index

_LISTED = 1000  # at most so many near-duplicate pairs are listed, the most similar first
_BATCH = 64
_VERSIONS = ("torch", "timm", "transformers", "accelerate", "pytorch-metric-learning", "datasets", "faiss-cpu", "numpy")


@dataclass(frozen=True)
class Run:
    """A finished training run: everything that its artifact is built from."""

    recipe: Recipe
    data: Data
    pixels: Pixels
    learner: Learner
    pairs: list[Pair]
    state: Any  # transformers' TrainerState
    finished: dict[str, float]  # validation metrics with the final head
    seconds: float | None  # None for a resumed run


def publish(run: Run, out: Path, progress: Progress | None = None) -> None:
    """Write the artifact `out`: all images of the gallery splits, embedded by the trained network.

    If int8 costs too much, it is in float32.
    """
    try:
        _publish(run, out, progress, run.recipe.precision)
    except PrecisionError as error:
        say(f"The artifact is written in float32 instead: {error}")
        _publish(run, out, progress, "float32")


def _publish(run: Run, out: Path, progress: Progress | None, precision: Precision) -> None:
    encoder = at_size(run.learner.network, run.recipe.test_size, run.learner.weights)
    source = open_splits(run.recipe, run.data.pinned, run.data.splits, run.data.gallery_split)
    options: dict[str, Any] = {"factory": run.recipe.index, "progress": progress, "precision": precision}

    with building(source, out, encoder, **options) as (draft, _):
        draft.sections.update(
            training=training_section(run),
            audit=audit_section(run),
            **figures(run, draft),
            calibration=calibration_section(run, draft),
        )


def figures(run: Run, draft: Draft) -> dict[str, Any]:
    """The sections `evaluation` and `index`.

    Queries are the test images of seen classes, which the gallery leaves out, and all images of unseen classes,
    each excluded from its own results.
    """
    data, gallery = run.data, draft.gallery
    hashes = gallery.table["sha256"].to_pylist()
    seen, unseen = data.seen("test").tolist(), data.unseen.tolist()
    other = {run.pixels.sha256[int(row)] for part in ("train", "validation") for row in data.parts[part]}
    tested = {run.pixels.sha256[row] for row in seen} - other
    kept = np.array([row for row, sha in enumerate(hashes) if sha not in tested], np.int64)
    place = {int(row): number for number, row in enumerate(kept)}
    queries = [*seen, *unseen]
    vectors, at = _embedded(run, draft, queries)
    # A query still in the gallery is of an unseen class or identical to a training file. Exclude the former from its
    # own results; keep the latter, which the leak audit counts.
    own = [place.get(int(row), -1) if number >= len(seen) else -1 for number, row in enumerate(at)]
    leaked = {pair.held_out for pair in run.pairs}
    evaluation = evaluate(
        vectors,
        [data.labels[row] for row in queries],
        draft.vectors[kept],
        [gallery.labels[row] for row in kept],
        train_counts=Counter(data.labels[row] for row in data.train),
        split=data.described,
        gallery_name=f"{len(kept):,} images of {data.gallery_split}",
        unseen=data.held_out,
        near_duplicate=np.array([row in leaked for row in queries], bool),
        correct=_classified(run, queries),
        own_row=np.array(own, np.int64),
    )
    return {"evaluation": evaluation, "index": evaluate_index(draft.store, draft.vectors, vectors, at)}


def calibration_section(run: Run, draft: Draft) -> CalibrationSection | None:
    """The section `calibration`: fitted on validation queries, checked on test queries, with both out of the gallery.

    Training images would bias it: the encoder matches them better than new images.
    """
    held_out = [run.data.seen(part).tolist() for part in ("validation", "test")]
    hashes = {run.pixels.sha256[row] for rows in held_out for row in rows}
    kept = [row for row, sha in enumerate(draft.gallery.table["sha256"].to_pylist()) if sha not in hashes]
    store = FaissStore(draft.encoder.dim)
    store.add(draft.vectors[kept])
    labels = [draft.gallery.labels[row] for row in kept]
    queries, check = (
        Queries(_embedded(run, draft, rows)[0], [run.data.labels[row] for row in rows]) for rows in held_out
    )
    return calibrate(store, labels, queries, check)


def _embedded(run: Run, draft: Draft, rows: list[int]) -> tuple[Any, Any]:
    """Embeddings (N, D) of data rows, and their gallery rows (N,) int64, -1 if not in the gallery."""
    row_of = {sha: row for row, sha in enumerate(draft.gallery.table["sha256"].to_pylist())}
    at = np.array([row_of.get(run.pixels.sha256[row], -1) for row in rows], np.int64)
    vectors = draft.vectors[at]
    if (apart := np.flatnonzero(at < 0)).size:  # a test split of the source is not in the gallery
        vectors[apart] = _embed(run, draft, [rows[number] for number in apart])
    return vectors, at


def _embed(run: Run, draft: Draft, rows: list[int]) -> Any:
    """Embeddings (N, D) of images outside the gallery, in batches."""
    chunks = (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
    images = ([open_image(run.data.raw(row).read()) for row in chunk] for chunk in chunks)
    return np.concatenate([draft.encoder.embed_images(chunk) for chunk in images])


def _classified(run: Run, queries: list[int]) -> Any:
    """Whether the classifier predicts the correct class, (Q,) bool; None for a recipe without a softmax."""
    if run.recipe.softmax == "none" or not run.recipe.epochs:
        return None
    logits = run.learner.objective.logits(embed_rows(run.learner, run.pixels, queries, run.recipe.test_size))
    assert logits is not None
    named = [run.data.classes[int(number)] for number in logits.argmax(dim=1)]
    return np.array([name == run.data.labels[row] for name, row in zip(named, queries, strict=True)], bool)


def training_section(run: Run) -> TrainingSection:
    """The section `training`: everything needed to reproduce the run, and its history."""
    state, data, settings = run.state, run.data, without_places(run.recipe.settings())
    versions = {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _VERSIONS}}
    return TrainingSection(
        recipe=run.recipe.name,
        settings=settings,
        data=TrainingData(
            source=settings["data"],
            about=dict(data.about),
            split_sizes={part: len(rows) for part, rows in data.parts.items()},
            classes=len(data.classes),
            held_out=list(data.held_out),
            left_out=list(data.left_out),
            skipped=[Skipped(image=image, reason=reason) for image, reason in data.skipped],
        ),
        seed=run.recipe.seed,
        seconds=None if run.seconds is None else round(run.seconds, 1),
        steps=state.global_step,
        best=Checkpoint(step=state.best_global_step, metric=_key(f"eval_{METRIC}"), value=state.best_metric)
        if state.best_global_step
        else None,
        finished={key_of(name): value for name, value in run.finished.items()},
        versions={key_of(name): version for name, version in versions.items()},
        threads=torch.get_num_threads(),
        history=[
            {_key(name): value if math.isfinite(value) else None for name, value in entry.items() if name != "epoch"}
            for entry in state.log_history
            if "loss" in entry or f"eval_{METRIC}" in entry
        ],
    )


def _key(name: str) -> str:
    """The key in `history` for a metric that the Trainer logs as `name`."""
    return key_of(name.replace("eval_", "validation "))


def audit_section(run: Run) -> AuditSection:
    """The section `audit`: count and list of near-duplicates between held-out and other images."""
    images, labels = run.data.images, run.data.labels
    listed = [
        NearDuplicate(
            held_out=images[pair.held_out]["source"],
            label=labels[pair.held_out],
            other=images[pair.other]["source"],
            other_label=labels[pair.other],
            similarity=pair.similarity,
        )
        for pair in sorted(run.pairs, key=lambda pair: -pair.similarity)[:_LISTED]
    ]
    return AuditSection(
        queries=len(run.pairs),
        audited=len(run.data.seen("test")) + len(run.data.unseen),
        across_classes=sum(labels[pair.held_out] != labels[pair.other] for pair in run.pairs),
        listed=listed,
    )
