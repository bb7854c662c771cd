"""Query: combines pictures, picture regions, gallery images and text into one unit vector."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.arrays import Vectors
from retrieval.errors import QueryError, short_repr
from retrieval.images.door.files import not_a_file
from retrieval.images.open import Picture
from retrieval.images.regions import Region

MAX_K = 1000
_NOTHING = 1e-4  # norm of a weighted sum of unit vectors: below it, the direction is rounding error

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One part of a query: a picture, a gallery image, or text."""

    image: Picture | None = None
    """A picture in any form that `open_image` accepts."""
    row: int | None = None
    """A row of the gallery."""
    words: str = ""
    """A text description; needs a text model."""
    region: Region | None = None
    """The region of the picture to search for (see `crop`); None for the whole picture."""
    weight: float = 1.0
    """1 for "like this", -1 for "unlike this"; any finite number."""


@dataclass(frozen=True)
class Query:
    """A query: a (D,) float32 unit vector, and the gallery rows it was built from, which are excluded from the hits."""

    vector: Vector
    leave_out: tuple[int, ...] = ()
    single: bool = True
    """Whether the query is one whole picture and nothing else: only then is there a match probability."""
    by_text: bool = False
    """Whether the vector comes from the text model."""


def combine(vectors: Vectors, weights: Sequence[float]) -> Vector:
    """Combine (Q, D) unit vectors into one (D,) float32 unit vector: their weighted sum, normalized.

    Up to a constant factor, an image's cosine similarity to the result is the weighted mean of its similarities to the
    parts: "like" attracts and "unlike" repels, as in Rocchio's relevance feedback (1971). Raises QueryError if the sum
    is close to zero or a weight is not finite.
    """
    if not all(math.isfinite(weight) for weight in weights):
        raise QueryError(f"the weights of a query must be finite numbers, not {list(weights)}.")
    total = np.asarray(weights, np.float32) @ vectors
    length = float(np.linalg.norm(total))
    if length < _NOTHING:
        raise QueryError("the liked and disliked examples cancel each other out: remove one of them.")
    return np.asarray(total / length, np.float32)


def check_k(k: Any) -> int:
    """k as an int from 1 to MAX_K, from any integer type, including numpy's; raises QueryError for anything else."""
    try:
        if isinstance(k, bool | np.bool_):
            raise TypeError
        count = operator.index(k)
    except TypeError:
        raise QueryError(f"k, the number of hits, must be a whole number, not {short_repr(k, 100)}.") from None
    if not 1 <= count <= MAX_K:
        raise QueryError(f"k, the number of hits, must be from 1 to {MAX_K}, not {short_repr(count, 100)}.")
    return count


def check_score(score: Any) -> float:
    """A minimum score as a float in [-1, 1]; raises QueryError for anything else, including NaN."""
    number = isinstance(score, int | float | np.integer | np.floating) and not isinstance(score, bool)
    if not number or not -1 <= score <= 1:
        raise QueryError(f"the minimum score must be a cosine similarity from -1 to 1, not {short_repr(score, 100)}.")
    return float(score)


def check_picture(image: object) -> None:
    """Raise QueryError if `image` cannot be a picture, such as a URL or a tensor; the message says what is accepted."""
    if not isinstance(image, np.ndarray | Image.Image) and (complaint := not_a_file(image)):
        raise QueryError(f"{complaint}.")


def key_of(part: Part) -> tuple[Any, ...] | None:
    """A cache key for the vector of a part, ignoring its weight; None if there is no cheap key."""
    image = part.image
    if isinstance(image, str | os.PathLike):
        try:
            status = Path(image).stat()
        except (OSError, ValueError):
            return None
        return "file", str(image), status.st_ino, status.st_size, status.st_mtime_ns, part.region
    if isinstance(image, bytes):
        return "bytes", blake2b(image, digest_size=20).digest(), part.region
    return ("part", part.row, part.words, part.region) if image is None else None
