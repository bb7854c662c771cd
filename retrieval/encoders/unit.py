"""Validate the output of a network as embeddings, and normalise it to unit length."""

from __future__ import annotations

import numpy as np

from retrieval.arrays import Floats, Vectors
from retrieval.errors import EmbeddingError, EncoderError

_LEAST_LENGTH = 1e-6  # least norm of an embedding: anything shorter is float32 rounding, with a random direction


def check_shape(shape: tuple[int, ...], count: int, dim: int, name: str) -> None:
    """Raise EncoderError unless the features have shape (count, dim): one row per image or text."""
    if tuple(shape) != (count, dim):
        raise EncoderError(
            f"{name!r} returns an array of shape {tuple(shape)}, but ({count}, {dim}) was expected, one row "
            "per picture or text: its output is not pooled. Choose another model."
        )


def unit_rows(features: Floats, dim: int, name: str) -> Vectors:
    """Normalise (N, dim) features of the network `name` to (N, dim) float32 rows of unit length.

    Raises EncoderError for another shape or for numbers that are not finite, and EmbeddingError for a row too close to
    zero to have a direction.
    """
    check_shape(features.shape, len(features), dim, name)
    features = features.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # reported below
        lengths = np.linalg.norm(features, axis=1)
    if not np.isfinite(lengths).all():
        raise EncoderError(f"{name!r} returns values that are not finite: its weights are damaged.")
    if flat := np.flatnonzero(lengths < _LEAST_LENGTH).tolist():
        raise EmbeddingError(
            f"{name!r} cannot embed this picture or text: the embedding has length {float(lengths[flat[0]]):.1g}, too "
            "short to have a direction. Give another one; if this happens with all of them, the weights are damaged.",
            flat,
        )
    vectors: Vectors = features / lengths[:, None]
    return vectors
