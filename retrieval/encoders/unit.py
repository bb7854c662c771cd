"""Unit: what a network gives, held against what an embedding has to be, and brought to unit length."""

from __future__ import annotations

import torch

from retrieval.arrays import Vectors
from retrieval.errors import EmbeddingError, EncoderError

_LEAST_LENGTH = 1e-6  # of an embedding: what is shorter is the rounding of float32, and its direction is chance


def check_shape(features: torch.Tensor, count: int, dim: int, name: str) -> None:
    """Raise EncoderError unless the features are (count, dim): one row of numbers for each picture or text."""
    if tuple(features.shape) != (count, dim):
        raise EncoderError(
            f"{name!r} gives numbers of shape {tuple(features.shape)} where ({count}, {dim}) were expected, one row "
            "for each picture or text: what comes out of it is not pooled. Choose another model."
        )


def unit_rows(features: torch.Tensor, dim: int, name: str) -> Vectors:
    """(N, dim) features of the network `name` to (N, dim) float32 rows of unit length.

    Raises EncoderError for another shape or numbers that are not finite, and EmbeddingError where a row is so near to
    zero that it has no direction.
    """
    check_shape(features, len(features), dim, name)
    features = features.float()
    lengths = features.norm(dim=1)
    if not torch.isfinite(lengths).all():
        raise EncoderError(f"the weights of {name!r} give numbers that are not finite; they are damaged.")
    if flat := (lengths < _LEAST_LENGTH).nonzero().flatten().tolist():
        raise EmbeddingError(
            f"{name!r} sees nothing here: the embedding has the length {float(lengths[flat[0]]):.1g}, and so no "
            "direction to compare. Give another picture or text; where all are like that, the weights are damaged.",
            flat,
        )
    vectors: Vectors = torch.nn.functional.normalize(features, dim=1).numpy()
    return vectors
