"""Query: what is searched for: pictures, parts of them, images of the gallery and words, to one unit vector."""

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

from retrieval.errors import QueryError, short
from retrieval.images.open import Picture, Region, not_a_file
from retrieval.stores.base import Vectors

MAX_K = 1000
_NOTHING = 1e-4  # length of a sum of unit vectors: its direction would be one of rounding

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One thing that a query is made of: a picture, an image of the gallery, or words."""

    image: Picture | None = None
    """Whatever `open_image` takes."""
    row: int | None = None
    words: str = ""
    region: Region | None = None
    """The part of the picture that counts (see `crop`); None for all of it."""
    weight: float = 1.0
    """+1 for "like this", -1 for "unlike this"."""


@dataclass(frozen=True)
class Query:
    """What is searched for: a (D,) unit vector, and the rows that are not to be found, those of which it is made."""

    vector: Vector
    leave_out: tuple[int, ...] = ()
    single: bool = True
    """Whether it is one whole picture and nothing else: only of such is the match probability known."""
    by_text: bool = False
    """Whether the vector is one of the encoder that understands text."""


def combine(vectors: Vectors, weights: Sequence[float]) -> Vector:
    """(Q, D) unit vectors to the (D,) unit vector of their weighted sum, the sum over its length.

    The cosine to it is the weighted mean of the cosines to the parts, times a number that is the same for every image:
    "like" draws near and "unlike" pushes away, as in Rocchio's relevance feedback (1971). Raises QueryError where
    nothing is left of the sum, and for a weight that is not finite.
    """
    if not all(math.isfinite(weight) for weight in weights):
        raise QueryError(f"the weights of a query are finite numbers, not {list(weights)}.")
    total = np.asarray(weights, np.float32) @ vectors
    length = float(np.linalg.norm(total))
    if length < _NOTHING:
        raise QueryError("what is liked and what is not cancel each other out: take one of them away.")
    return np.asarray(total / length, np.float32)


def check_k(k: Any) -> int:
    """k as an int: anything with `__index__`, numpy's whole numbers too; raises QueryError for anything else."""
    try:
        if isinstance(k, bool | np.bool_):
            raise TypeError
        count = operator.index(k)
    except TypeError:
        raise QueryError(f"k is a whole number, how many hits to give, not {short(repr(k), 100)}.") from None
    if not 1 <= count <= MAX_K:
        raise QueryError(f"k is how many hits to give, from 1 to {MAX_K}; it is {count}.")
    return count


def check_score(score: Any) -> float:
    """A minimum score as a float in [-1, 1]; raises QueryError for anything else, NaN too."""
    number = isinstance(score, int | float | np.integer | np.floating) and not isinstance(score, bool)
    if not number or not -1 <= score <= 1:
        raise QueryError(f"the minimum score is a cosine, from -1 to 1; it is {short(repr(score), 100)}.")
    return float(score)


def check_picture(image: object) -> None:
    """Raise QueryError for what holds no picture: an address, a tensor; the message says what to give."""
    if not isinstance(image, np.ndarray | Image.Image) and (complaint := not_a_file(image)):
        raise QueryError(f"{complaint}.")


def key_of(part: Part) -> tuple[Any, ...] | None:
    """What two parts have in common whose vectors are the same, weight aside; None where that cannot be told soon."""
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
