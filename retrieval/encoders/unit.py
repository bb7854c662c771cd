"""Validate the output of a network as embeddings, and normalise it to unit length."""

from __future__ import annotations

import torch

from retrieval.arrays import Vectors
from retrieval.errors import EmbeddingError, EncoderError

_LEAST_LENGTH = 1e-6  # least norm of an embedding: anything shorter is float32 rounding, with a random direction


def check_shape(features: torch.Tensor, count: int, dim: int, name: str) -> None:
    """Raise EncoderError unless the features have shape (count, dim): one row per image or text."""
    if tuple(features.shape) != (count, dim):
        raise EncoderError(
            f"{name!r} returns an array of shape {tuple(features.shape)}, but ({count}, {dim}) was expected, one row "
            "per picture or text: its output is not pooled. Choose another model."
        )


def unit_rows(features: torch.Tensor, dim: int, name: str) -> Vectors:
    """Normalise (N, dim) features of the network `name` to (N, dim) float32 rows of unit length.

    Raises EncoderError for another shape or for numbers that are not finite, and EmbeddingError for a row too close to
    zero to have a direction.
    """
    check_shape(features, len(features), dim, name)
    features = features.float()
    lengths = features.norm(dim=1)
    if not torch.isfinite(lengths).all():
        raise EncoderError(f"{name!r} returns values that are not finite: its weights are damaged.")
    if flat := (lengths < _LEAST_LENGTH).nonzero().flatten().tolist():
        raise EmbeddingError(
            f"{name!r} cannot embed this picture or text: the embedding has length {float(lengths[flat[0]]):.1g}, too "
            "short to have a direction. Give another one; if this happens with all of them, the weights are damaged.",
            flat,
        )
    vectors: Vectors = torch.nn.functional.normalize(features, dim=1).numpy()
    return vectors
