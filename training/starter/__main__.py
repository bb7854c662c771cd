"""The starter artifact: draw the catalogue, train a small encoder on it, build, all on a laptop in some minutes.

    python -m training.starter --out retrieval/starter

The encoder is trained on fresh drawings, never on gallery images. One embedding serves four classification tasks
(article, colour, pattern, and all three combined), so items that differ in one attribute stay close: a striped red
shirt finds striped red shirts first, then other red or striped ones.
"""

from __future__ import annotations

import argparse
import io
import math
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pytorch_metric_learning import losses, miners
from torchvision.transforms import v2

from retrieval.build.build import build_artifact
from retrieval.encoders.image import Encoder
from retrieval.evaluation.metrics import leave_one_out
from retrieval.files.held import temporary_folder
from retrieval.sources.open import open_source
from training.starter.catalogue import ARTICLES, COLOURS, PATTERNS, Item, catalogue, draw
from training.starter.nothing import KINDS as NOTHINGS
from training.starter.nothing import draw_nothing

GALLERY_SIDE = 160  # pixels of gallery images: small enough for the repository
TRAIN_SIDE = 160  # pixels of training images, before the crop to INPUT_SIDE
INPUT_SIDE = 144
RENDERINGS = 6  # training drawings per article, colour, pattern and view
GROUPS, MEMBERS = 24, 4  # batch: number of (article, colour, pattern) classes x drawings of each
ABOUT = {
    "name": "drawings of the project's own",
    "license": "apache-2.0",
    "made": "Drawn, trained and built by python -m training.starter; the encoder learned from other drawings.",
}
FIRST_SEED = 1_000_000  # disjoint from the gallery's seeds, which are positions in the catalogue


@dataclass(frozen=True)
class Drawings:
    """Images (N, 3, TRAIN_SIDE, TRAIN_SIDE) uint8, and their article, colour and pattern (N, 3) int64."""

    pictures: torch.Tensor
    kinds: torch.Tensor


def main() -> None:
    """Draw, train, build."""
    parser = argparse.ArgumentParser(prog="python -m training.starter", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("retrieval/starter"), help="folder of the artifact")
    parser.add_argument("--backbone", default="mobilenetv2_035", help="a small timm model")
    parser.add_argument("--embedding-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    drawings = with_nothing(render(RENDERINGS, FIRST_SEED))
    print(f"{len(drawings.pictures)} pictures drawn")
    encoder = new_encoder(arguments.backbone, arguments.embedding_size)
    encoder = train(encoder, drawings, epochs=arguments.epochs, seed=arguments.seed)
    print(f"on drawings not used in training: {evaluate(encoder, render(1, 2 * FIRST_SEED))}")
    with temporary_folder() as folder:
        pictures = folder / "catalogue.parquet"
        write_catalogue(pictures)
        source = replace(open_source(str(pictures)), about=ABOUT)
        report = build_artifact(source, arguments.out, encoder)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: {report.indexed} pictures, {size / 1e6:.2f} MB")


def new_encoder(backbone: str, embedding_size: int) -> Encoder:
    """A small encoder with random weights; its preprocessing is a plain resize to INPUT_SIDE."""
    encoder = Encoder.create(backbone, pretrained=False, embedding_size=embedding_size)
    encoder.model.pretrained_cfg = {
        **encoder.model.pretrained_cfg,
        "input_size": (3, INPUT_SIDE, INPUT_SIDE),
        "pool_size": None,
        "crop_pct": 1.0,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "interpolation": "bicubic",
        "tag": "starter",
        "license": "apache-2.0",
    }
    return Encoder.of(encoder.model)


def _pixels(item: Item) -> npt.NDArray[np.uint8]:
    return np.asarray(draw(item, TRAIN_SIDE)).transpose(2, 0, 1)


def render(renderings: int, first_seed: int) -> Drawings:
    """Draw every item of the catalogue `renderings` times, with seeds from `first_seed` on."""
    items = [replace(item, seed=first_seed + i) for i, item in enumerate(catalogue() * renderings)]
    with ProcessPoolExecutor() as pool:
        pictures = torch.from_numpy(np.stack(list(pool.map(_pixels, items, chunksize=64))))
    orders = (ARTICLES, tuple(COLOURS), PATTERNS)
    kinds = [[order.index(v) for order, v in zip(orders, (i.article, i.colour, i.pattern), strict=True)] for i in items]
    return Drawings(pictures, torch.tensor(kinds))


def with_nothing(drawings: Drawings) -> Drawings:
    """Add images without an object, as an extra article and colour, with one extra pattern per kind; each kind gets
    2 * RENDERINGS images."""
    each = RENDERINGS * 2
    pictures = [
        np.asarray(draw_nothing(kind, TRAIN_SIDE, seed)).transpose(2, 0, 1)
        for kind in range(NOTHINGS)
        for seed in range(each)
    ]
    kinds = [(len(ARTICLES), len(COLOURS), len(PATTERNS) + kind) for kind in range(NOTHINGS) for _ in range(each)]
    together = torch.cat([drawings.pictures, torch.from_numpy(np.stack(pictures))])
    return Drawings(together, torch.cat([drawings.kinds, torch.tensor(kinds)]))


def questions(kinds: torch.Tensor) -> dict[str, torch.Tensor]:
    """The class numbers (N,) int64 of each task, from article, colour and pattern (N, 3) int64."""
    article, colour, pattern = kinds.unbind(1)
    together = (article * len(COLOURS) + colour) * len(PATTERNS) + pattern
    return {"article": article, "colour": colour, "pattern": pattern, "together": together}


def _augment() -> Any:
    """Augment framing, light, sharpness and grain, which the drawings do not vary; hue stays, as it is a label."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(INPUT_SIDE, scale=(0.6, 1.0), ratio=(0.85, 1.18), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.15),
            v2.RandomApply([v2.GaussianBlur(3, (0.1, 1.2))], p=0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([v2.GaussianNoise(sigma=0.03)], p=0.3),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )


def batches(together: torch.Tensor, rng: random.Random) -> Iterator[list[int]]:
    """An epoch of batches, each of GROUPS classes with MEMBERS pictures; every class comes once a pass."""
    members: dict[int, list[int]] = {}
    for row, kind in enumerate(together.tolist()):
        members.setdefault(kind, []).append(row)
    for _ in range(len(together) // (len(members) * MEMBERS)):
        kinds = rng.sample(sorted(members), len(members))
        for start in range(0, len(kinds) - GROUPS + 1, GROUPS):
            yield [row for kind in kinds[start : start + GROUPS] for row in rng.sample(members[kind], MEMBERS)]


def train(encoder: Encoder, drawings: Drawings, *, epochs: int, seed: int) -> Encoder:
    """Triplet loss with semi-hard mining, and a normalised softmax for each question.

    Returns the trained encoder, with a fingerprint of its own; the one given is not to be used any more.
    """
    rng, augment, model = random.Random(seed), _augment(), encoder.model.train()
    asked = questions(drawings.kinds)
    softmax = torch.nn.ModuleDict(
        {name: losses.NormalizedSoftmaxLoss(int(kind.max()) + 1, encoder.dim, 0.07) for name, kind in asked.items()}
    )
    triplet, miner = (
        losses.TripletMarginLoss(margin=0.2),
        miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard"),
    )
    weights = {"article": 1.2, "colour": 0.6, "pattern": 0.8, "together": 1.0}
    parameters = [*model.parameters(), *softmax.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.02)
    steps = epochs * sum(1 for _ in batches(asked["together"], random.Random(0)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(epochs):
        seen = []
        for rows in batches(asked["together"], rng):
            pictures = torch.cat([augment(part) for part in drawings.pictures[rows].split(MEMBERS)])
            embedding = model(pictures.contiguous(memory_format=torch.channels_last))
            here = {name: kind[rows] for name, kind in asked.items()}
            loss = triplet(embedding, here["together"], miner(embedding, here["together"]))
            loss = loss + sum(weights[name] * softmax[name](embedding, here[name]) for name in here)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            seen.append(float(loss.detach()))
        print(f"epoch {epoch + 1}/{epochs}: loss {math.fsum(seen) / len(seen):.3f}", flush=True)
    return Encoder.of(model)


def evaluate(encoder: Encoder, drawings: Drawings) -> dict[str, tuple[float, float]]:
    """Leave-one-out P@1 and P@5, in [0, 1], for each task; `drawings` must not be training images."""
    shrink = v2.Compose(
        [v2.Resize(INPUT_SIDE, antialias=True), v2.ToDtype(torch.float32, scale=True), _augment().transforms[-1]]
    )
    vectors = np.concatenate([encoder.embed_tensors(list(shrink(part))) for part in drawings.pictures.split(64)])
    figures = {}
    for name, kind in questions(drawings.kinds).items():
        result = leave_one_out(vectors, [str(k) for k in kind.tolist()])
        figures[name] = round(result["P@1"], 3), round(result["P@5"], 3)
    return figures


def write_catalogue(path: Path) -> None:
    """Write the gallery as a parquet file for `datasets`: image, label (the article), and the other attributes."""
    rows = []
    for item in catalogue():
        buffer = io.BytesIO()
        draw(item, GALLERY_SIDE).save(buffer, "PNG")
        name = f"{item.article}-{item.colour}-{item.pattern}-{item.view}.png"
        rows.append(
            {
                "image": {"bytes": buffer.getvalue(), "path": name},
                "label": item.article,
                "colour": item.colour,
                "pattern": item.pattern,
                "view": item.view,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)


if __name__ == "__main__":
    main()
