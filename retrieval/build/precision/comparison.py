"""int8 compared with float32: how well both find images of the same class, on thumbnails of the gallery."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.arrays import Vectors
from retrieval.artifact.metrics import key_of
from retrieval.encoders.image import Encoder
from retrieval.errors import EmbeddingError, PrecisionError, QueryError
from retrieval.evaluation.markdown import table
from retrieval.evaluation.metrics import leave_one_out
from retrieval.images.gallery import Gallery
from retrieval.images.open import open_image

MOST_LOSS = 0.005
"""By this much mAP may fall, unless more is accepted."""
_MOST = 2_000  # images compared
_FIGURES = ("hit@1", "P@5", "mAP")
_NEIGHBOURS = 10
_AT_ONCE = 32  # thumbnails decoded at a time
_INT8 = """
The vectors come from `onnx/model.onnx`, which computes in int8, and are those of the engine `{engine}`: use
`retrieval.Encoder.load`. timm loads `model.safetensors`, the same network in float32, which gives other vectors.
"""


def compared(float32: Encoder, int8: Encoder, gallery: Gallery) -> dict[str, Any]:
    """Both encoders on up to 2,000 thumbnails of the gallery, those with a label if two share one.

    Returns JSON values: `images`, their number; `overlap_at_10`, the mean share of the ten nearest that both find; and,
    with labels, `float32` and `int8`: hit@1, P@5 and mAP, leave-one-out.
    """
    labels = gallery.labels
    rows = np.array([row for row, label in enumerate(labels) if label is not None] or range(len(labels)), np.int64)
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MOST, replace=False))
    vectors, kept = _both(float32, int8, gallery, rows)
    found: dict[str, Any] = {"images": len(kept), "overlap_at_10": round(_overlap(*vectors), 4)}
    try:
        for name, own in zip(("float32", "int8"), vectors, strict=True):
            figures = leave_one_out(own, [labels[row] for row in kept])
            found[name] = {key_of(figure): round(float(figures[figure]), 4) for figure in _FIGURES}
    except QueryError:  # no two images share a label
        pass
    return found


def check_loss(found: dict[str, Any], *, accept: bool) -> None:
    """Raise PrecisionError if mAP falls by more than 0.005 in int8, unless that is accepted."""
    if accept or "int8" not in found:
        return
    before, after = found["float32"]["map"], found["int8"]["map"]
    if before - after > MOST_LOSS:
        raise PrecisionError(
            f"int8 costs too much here: mAP falls from {before:.4f} to {after:.4f} on {found['images']:,} images, by "
            f"more than {MOST_LOSS}. `build --accept-loss` accepts it, and continues from the images embedded so far; "
            "without --precision int8, the build is in float32."
        )


def use_lines(encoder: Encoder) -> str:
    """What the card says of the files of an encoder in int8."""
    return _INT8.format(engine=encoder.engine.name)


def precision_lines(section: dict[str, Any]) -> list[list[str]]:
    """What the card says of int8: a sentence, and a table of the figures if there are labels."""
    on = f"{section['images']:,} thumbnails of the gallery"
    overlap = f"{section['overlap_at_10']:.1%}"
    text = f"The encoder computes in int8. On {on}, int8 finds {overlap} of the ten nearest images of float32"
    if "int8" not in section:
        return [[f"{text}."]]
    rows = [[name, *(f"{section[name][key_of(figure)]:.3f}" for figure in _FIGURES)] for name in ("float32", "int8")]
    return [[f"{text}. The leave-one-out figures of both:"], table(["", *_FIGURES], rows)]


def _both(float32: Encoder, int8: Encoder, gallery: Gallery, rows: Any) -> tuple[tuple[Vectors, Vectors], list[int]]:
    """The vectors of both encoders, (N, D) each, and their N rows: without images that one of them cannot embed."""
    ours, theirs, kept = [], [], []
    for start in range(0, len(rows), _AT_ONCE):
        batch = [int(row) for row in rows[start : start + _AT_ONCE]]
        pixels = [float32.preprocess(open_image(gallery.thumbnail(row))) for row in batch]
        try:
            one, other = float32.embed_tensors(pixels), int8.embed_tensors(pixels)
        except EmbeddingError:
            continue
        ours.append(one)
        theirs.append(other)
        kept += batch
    if not kept:
        return (np.empty((0, float32.dim), np.float32), np.empty((0, int8.dim), np.float32)), kept
    return (np.concatenate(ours), np.concatenate(theirs)), kept


def _overlap(one: Vectors, other: Vectors) -> float:
    """The mean share of the nearest ten, or as many as there are, that are the same; 1 if there are no others."""
    count = min(_NEIGHBOURS, len(one) - 1)
    if count < 1:
        return 1.0
    nearest = []
    for vectors in (one, other):
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -np.inf)
        nearest.append(np.argpartition(-scores, count - 1, axis=1)[:, :count])
    both = [len(np.intersect1d(*pair)) for pair in zip(*nearest, strict=True)]
    return float(np.mean(both)) / count
