"""What a collection of a vector database has to be able to do; one contract test compares each with brute force.

A collection holds points: a key, a vector, and tags, numbers that stand for the values of a row. It knows nothing of
rows: a `PairedStore` translates keys to the rows of one gallery.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import StoreError, first_line, short

NO_KEY = 0
"""Padding where fewer than k points are found; no point has this key."""

Tags = Sequence[npt.NDArray[np.int64]]
"""The tags of each point."""


@dataclass(frozen=True)
class Tagged:
    """A condition: points that have any of these tags, or, if negated, none of them."""

    tags: tuple[int, ...]
    negated: bool = False


@dataclass(frozen=True)
class State:
    """What a collection says of itself."""

    encoder: str
    """The fingerprint of the encoder whose vectors it holds."""
    dim: int
    versions: Mapping[str, int]
    """SHA-256 of a manifest -> its rows: the artifacts all of whose points are there, the oldest first."""

    def facts(self) -> dict[str, Any]:
        """As JSON, for `of`; the versions are a list, as some databases do not keep the order of an object."""
        return {"encoder": self.encoder, "dim": self.dim, "versions": [[*each] for each in self.versions.items()]}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> State:
        """The state that `facts` told."""
        versions = {str(name): int(rows) for name, rows in facts["versions"]}
        return cls(str(facts["encoder"]), int(facts["dim"]), versions)


class Collection(Protocol):
    """Points in a database. All methods are thread-safe, and raise StoreError with a sentence if the database fails."""

    uri: str
    """Where it is, without secrets."""

    def state(self) -> State | None:
        """What it says of itself; None if it does not exist."""

    def create(self, state: State) -> None:
        """Make it, without points."""

    def set_versions(self, versions: Mapping[str, int]) -> None:
        """Change which artifacts it says it holds."""

    def keys(self) -> Ids:
        """The keys of all points, ascending, (M,) int64."""

    def upsert(self, keys: Ids, vectors: Vectors, tags: Tags) -> None:
        """Add points, or replace those with the same key; none of them is marked as leaving."""

    def mark_leaving(self, keys: Ids) -> None:
        """Mark points that the newest artifact does not have."""

    def delete_leaving(self) -> None:
        """Delete the points that are marked."""

    def finish(self) -> None:
        """After a change: wait until searches see it, and are fast."""

    def search(self, queries: Vectors, k: int, where: Sequence[Tagged] = ()) -> tuple[Ids, Floats]:
        """The k points with the largest inner products, best first, among those that pass all conditions.

        (Q, k) int64 keys and float32 products; NO_KEY and minus infinity where there are fewer. May be approximate.
        """

    def vectors(self, keys: Ids) -> Vectors:
        """The vectors of these points, (N, D) float32; raises StoreError if one is missing."""

    def close(self) -> None:
        """Give back connections and files."""


def in_order(uri: str, keys: Ids, found: Mapping[int, Any]) -> Vectors:
    """The vectors of these keys, (N, D) float32, of those that were found; raises StoreError if one is missing."""
    if missing := [key for key in keys.tolist() if key not in found]:
        raise StoreError(f"{uri} has lost {len(missing):,} of {len(keys):,} points: fill it again.")
    return np.array([found[key] for key in keys.tolist()], np.float32)


@contextmanager
def failing(uri: str, kinds: tuple[type[Exception], ...] = (Exception,)) -> Iterator[None]:
    """Raise what a client raises, of these kinds or of any, as a StoreError."""
    try:
        yield
    except StoreError:
        raise
    except kinds as error:
        raise StoreError(f"the store {uri} failed: {short(first_line(error) or type(error).__name__, 200)}.") from error
