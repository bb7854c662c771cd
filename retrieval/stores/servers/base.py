"""What a collection of a vector database has to be able to do; one contract test compares each with brute force.

A collection holds points: a key, a vector, and tags, numbers that stand for the values of a row. It knows nothing of
rows: a `PairedStore` translates keys to the rows of one gallery.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import StoreError, first_line, short, short_repr
from retrieval.stores.servers.lease import Check

NO_KEY = 0
"""Padding where fewer than k points are found; no point has this key."""

ANSWER = 20.0
"""Seconds for one answer: a search then ends with an error instead of waiting on."""
PATIENCE = 3_600.0
"""Seconds for work on a whole collection, such as its index."""

SECRETS = ("PGPASSWORD", "QDRANT_API_KEY", "MILVUS_TOKEN")
"""The environment variables that databases' passwords and keys are in."""

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
        """The state that `facts` told; raises StoreError if they are of something else."""
        try:
            versions = {str(name): int(rows) for name, rows in facts["versions"]}
            return cls(str(facts["encoder"]), int(facts["dim"]), versions)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"a collection says of itself {short_repr(facts, 60)}, which Lookalike did not write."
            ) from error


class Collection(Protocol):
    """Points in a database. All methods are thread-safe, and raise StoreError with a sentence if the database fails."""

    uri: str
    """Where it is, without secrets."""

    def alone(self) -> AbstractContextManager[Check]:
        """For filling it: raises StoreError if another process does. Yields what checks that it is still held."""

    def state(self) -> State | None:
        """What it says of itself; None if it does not exist."""

    def create(self, state: State) -> None:
        """Make it, without points; what is there of it stays. Raises StoreError if something else has its name."""

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

    def compare(self, queries: Vectors, keys: Ids, k: int) -> tuple[Ids, Floats]:
        """As `search`, exactly, among the points with these keys alone; raises StoreError if one is missing."""

    def vectors(self, keys: Ids) -> Vectors:
        """The vectors of these points, (N, D) float32; raises StoreError if one is missing."""

    def size(self) -> int | None:
        """The bytes that it takes on the disk of the database; None if that is not told."""

    def drop(self) -> None:
        """Delete it, with all its points."""

    def close(self) -> None:
        """Give back connections and files."""


def something_else(uri: str, name: str) -> StoreError:
    """The error for a collection, or a table, of this name that Lookalike did not make."""
    return StoreError(
        f"{uri}: {name} is something else, not a collection of Lookalike: give the address another collection."
    )


def check_lost(uri: str, keys: Ids, there: int) -> None:
    """Raise StoreError unless as many points are there as there are keys."""
    if lost := len(keys) - there:
        raise StoreError(f"{uri} has lost {lost:,} of {len(keys):,} points: fill it again.")


def no_answers(queries: Vectors, k: int) -> tuple[Ids, Floats]:
    """Answers to fill in: (Q, k) NO_KEY and minus infinity."""
    return np.full((len(queries), k), NO_KEY, np.int64), np.full((len(queries), k), -np.inf, np.float32)


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.stat().st_size for each in files if each.is_file())


def in_order(uri: str, keys: Ids, found: Mapping[int, Any]) -> Vectors:
    """The vectors of these keys, (N, D) float32, of those that were found; raises StoreError if one is missing."""
    check_lost(uri, keys, sum(key in found for key in keys.tolist()))
    return np.array([found[key] for key in keys.tolist()], np.float32)


@contextmanager
def failing(
    uri: str, kinds: tuple[type[Exception], ...] = (Exception,), said: Callable[[Exception], str] = first_line
) -> Iterator[None]:
    """Raise what a client raises, of these kinds or of any, as a StoreError with what `said` makes of it.

    A client may repeat what it was given, so what is secret in the environment is taken out.
    """
    try:
        yield
    except StoreError:
        raise
    except kinds as error:
        shown = without_secrets(" ".join(said(error).split()) or type(error).__name__)
        chain = "".join(traceback.format_exception(error))  # it is logged, too
        cause = error if without_secrets(chain) == chain else None
        raise StoreError(f"the store {uri} failed: {short(shown, 200).rstrip('.')}.") from cause


def without_secrets(text: str) -> str:
    """A text without the passwords and keys of databases that are in the environment."""
    for name in SECRETS:
        whole = os.environ.get(name, "")
        for secret in (whole, whole.partition(":")[2]):  # Milvus takes USER:PASSWORD
            text = text.replace(secret, "***") if secret else text
    return text
