"""Benchmark the engines that can run an artifact's encoder, in turn, so that their ratios hold on a busy machine."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval.artifact.load import Artifact, load_artifact
from retrieval.artifact.parts.exported import EXPORTED
from retrieval.bench.throughput import build_throughput
from retrieval.console import command
from retrieval.encoders.engines.choose import ENGINES
from retrieval.encoders.image import Encoder
from retrieval.errors import QueryError
from retrieval.images.gallery import spread_rows
from retrieval.images.open import open_image
from retrieval.stores.recall import Figures, latency

_IMAGES = 256
_QUERIES = 50
_ROUNDS = 5
_K = 10
_PLAIN = "torch, channels first"
_PACKAGES = {"onnx": "onnxruntime"}


def bench_engines(folder: Path) -> Figures:
    """One image alone (ms), the steps of a build (images/s) and the answers, for every engine that is installed.

    Images are the artifact's own thumbnails. Each figure is the median of five rounds, in each of which all engines
    take their turn. Answers are compared with those of torch. Raises QueryError for an artifact without the exported
    network, whose only engine is torch.
    """
    artifact = load_artifact(folder)
    if artifact.encoder.precision != "float32":
        raise QueryError(f"{folder} is in int8, and only {artifact.encoder.engine.name} gives its vectors.")
    if EXPORTED not in artifact.manifest:
        raise QueryError(f"{folder} has only one engine: `{command(f'export-encoder {folder}')}` adds others.")
    encoders = _encoders(folder)
    rows = spread_rows(len(artifact.gallery), _IMAGES)
    pictures = [artifact.gallery.thumbnail(row) for row in rows]
    images = [open_image(picture) for picture in pictures]
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in encoders}
    for encoder in encoders.values():
        encoder.embed_images(images[:8])  # memory is mapped, and kernels are chosen
    for _ in range(_ROUNDS):
        for name, encoder in encoders.items():
            rounds[name].append((_alone(encoder, images[:_QUERIES]), build_throughput(encoder, pictures)))
    medians = {name: np.median(np.array(found), axis=0) for name, found in rounds.items()}
    figures: Figures = {"encoder": artifact.encoder.name, "images": len(rows)}
    for name, (alone, throughput) in medians.items():
        figures[f"{name}: one image, p50 ms"] = float(alone)
        figures[f"{name}: build, images/s"] = float(throughput)
    if "torch" in medians:
        for name in [name for name in medians if name != "torch"]:
            figures[f"{name}: one image, times as fast as torch"] = float(medians["torch"][0] / medians[name][0])
            figures[f"{name}: build, times as fast as torch"] = float(medians[name][1] / medians["torch"][1])
        figures |= _agreement(artifact, encoders, images)
    return figures


def _alone(encoder: Encoder, images: list[Image.Image]) -> float:
    return latency(lambda image: encoder.embed_images([image]), images)[0]


def _encoders(folder: Path) -> dict[str, Encoder]:
    names = [name for name in ENGINES if importlib.util.find_spec(_PACKAGES.get(name, name))]
    encoders = {name: Encoder.load(folder, engine=name) for name in names}
    if "torch" in encoders:
        encoders[_PLAIN] = Encoder.of(copy.deepcopy(encoders["torch"].model), channels_last=False)
    return encoders


def _agreement(artifact: Artifact, encoders: Mapping[str, Encoder], images: Sequence[Image.Image]) -> Figures:
    """Share of images whose first ten hits are torch's, in the same order, and the largest difference of a score."""
    k = min(_K, len(artifact.store))
    ids, expected = artifact.store.search(encoders["torch"].embed_images(images), k)
    figures: Figures = {}
    for name in [name for name in encoders if not name.startswith("torch")]:
        found, scores = artifact.store.search(encoders[name].embed_images(images), k)
        figures[f"{name}: images with the same first {k} hits"] = float((found == ids).all(axis=1).mean())
        figures[f"{name}: largest difference of a score"] = float(np.abs(scores - expected).max())
    return figures
