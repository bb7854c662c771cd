"""FAISS: the store of every artifact. Unit vectors and inner product, so that scores are cosines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retrieval.errors import IntegrityError, StoreError
from retrieval.stores.base import MISSING, Ids, Vectors, check_added, check_search
from retrieval.stores.exact import search_rows

AUTO = "AUTO"  # in the place of a factory string: choose one by size
_EXACT_BELOW = 2_000  # allowed rows: so few are read back and compared one by one, which is exact and takes 2 ms


@dataclass(frozen=True)
class IndexSettings:
    """How an index was made and is searched; stands in the manifest, since FAISS keeps only a part of it."""

    factory: str = "Flat"
    chosen: str = AUTO
    """`AUTO` where the factory string was chosen by size, else `asked`."""
    search: Mapping[str, int] = field(default_factory=dict)
    """`nprobe` for an IVF index, `efSearch` for HNSW."""
    recall_at_10: float | None = None
    """Against exact search, on a sample of the rows; None before it was measured."""
    bytes_per_vector: float | None = None


@dataclass(frozen=True)
class Effort:
    """A search parameter, and the least and most that make sense."""

    name: str
    least: int
    most: int


class FaissStore:
    """A FAISS index made from a factory string; rows are its ids."""

    def __init__(self, dim: int, settings: IndexSettings | None = None, *, index: Any = None) -> None:
        self.dim = dim
        self.settings = settings or IndexSettings()
        if index is None:
            try:
                index = faiss.index_factory(dim, self.settings.factory, faiss.METRIC_INNER_PRODUCT)
            except RuntimeError as error:
                raise StoreError(
                    f"FAISS cannot make an index {self.settings.factory!r} for {dim} dimensions "
                    "(see its wiki, 'The index factory')."
                ) from error
        self._index = index
        self._inverted = faiss.try_extract_index_ivf(index)
        self._graph = isinstance(faiss.downcast_index(index), faiss.IndexHNSW)

    @staticmethod
    def check_factory(factory: str, dim: int) -> None:
        """Raise StoreError where FAISS cannot make such an index."""
        if factory != AUTO:
            FaissStore(dim, IndexSettings(factory))

    @classmethod
    def load(cls, path: Path, settings: Mapping[str, Any]) -> FaissStore:
        """Read an index file; raises IntegrityError where it is not one, or its metric is not the inner product."""
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise IntegrityError(f"{path.name} is not an index that FAISS can read.") from error
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise IntegrityError(
                f"{path.name}: metric inner product was expected, FAISS's number {index.metric_type} found."
            )
        store = cls(index.d, IndexSettings(**settings), index=index)
        store._know_places()  # now, while no other thread searches
        return store

    def save(self, path: Path) -> None:
        """Write the index file."""
        self._forget_places()
        faiss.write_index(self._index, str(path))

    def train(self, vectors: Vectors) -> None:
        """Learn what the index needs to know of the vectors before they are added (clusters, ranges)."""
        if isinstance(self._inverted, faiss.IndexIVFScalarQuantizer):
            # Store the vectors themselves, not what is left after their list's centre: it costs half a percent of
            # recall, and a row that is read back and added again is then the same to the bit.
            self._inverted.by_residual = False
        if not self._index.is_trained:
            self._index.train(np.ascontiguousarray(vectors, np.float32))

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `Store.add`; raises StoreError before `train` where the index needs that."""
        vectors = check_added(ids, vectors, len(self), self.dim)
        if not self._index.is_trained:
            raise StoreError(f"an index {self.settings.factory!r} has to be trained before vectors are added.")
        self._index.add(vectors)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> tuple[Ids, Vectors]:
        """See `Store.search`; exact for a flat index, and for a filter that lets few rows through."""
        queries = check_search(queries, k, self.dim)
        if allowed is None:
            return self._search(queries, k, None, 1.0)
        allowed = np.unique(allowed)
        if len(allowed) <= _EXACT_BELOW:
            return search_rows(queries, self.vectors(allowed), allowed, k)
        ids, scores = self._search(queries, k, allowed, len(self) / len(allowed))
        short = np.flatnonzero((ids == MISSING).any(axis=1))  # the filter's rows lay where the search did not look
        if len(short):
            ids[short], scores[short] = search_rows(queries[short], self.vectors(allowed), allowed, k)
        return ids, scores

    def vectors(self, ids: Ids) -> Vectors:
        """See `Store.vectors`."""
        self._know_places()
        if not len(ids):
            return np.empty((0, self.dim), np.float32)
        return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(ids, np.int64)), np.float32)

    @property
    def effort(self) -> Effort | None:
        """What can be turned up for more recall and more time; None for an index that looks at every vector."""
        if self._inverted is not None:
            return Effort("nprobe", 1, self._inverted.nlist)
        return Effort("efSearch", 16, 1024) if self._graph else None

    @property
    def lists(self) -> int:
        """How many lists an inverted file has; 0 for any other index."""
        return 0 if self._inverted is None else int(self._inverted.nlist)

    def size_in_bytes(self) -> int:
        """The size of the index file."""
        self._forget_places()
        return len(faiss.serialize_index(self._index))

    def emptied(self) -> FaissStore:
        """A store with the same settings and training and no vectors."""
        index = faiss.clone_index(self._index)
        index.reset()
        return FaissStore(self.dim, self.settings, index=index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def close(self) -> None:
        """See `Store.close`."""
        self._index.reset()

    def _know_places(self) -> None:
        """Have an inverted file know in which list each row lies, 8 bytes a row, so that rows can be read back."""
        if self._inverted is not None and self._inverted.direct_map.no():
            self._inverted.make_direct_map()

    def _forget_places(self) -> None:
        """The opposite: what can be made again in a moment is not written to disk."""
        if self._inverted is not None:
            self._inverted.set_direct_map_type(faiss.DirectMap.NoMap)

    def _search(self, queries: Vectors, k: int, allowed: Ids | None, widen: float) -> tuple[Ids, Vectors]:
        """One search of the index; `widen` is how many times more of it has to be looked at because of a filter."""
        # A graph loses its way where most of its nodes may not be found; its vectors are gone through one by one.
        index = self._index.storage if self._graph and allowed is not None else self._index
        scores, ids = index.search(queries, k, params=self._parameters(allowed, widen))
        return ids, np.where(ids == MISSING, -np.inf, scores).astype(np.float32)

    def _parameters(self, allowed: Ids | None, widen: float) -> Any:
        """Search parameters are made for each search: an index's own are shared by all threads."""
        selector = {} if allowed is None else {"sel": faiss.IDSelectorBitmap(_bitmap(allowed, len(self)))}
        if self._inverted is not None:
            nprobe = math.ceil(self.settings.search.get("nprobe", 1) * widen)
            return faiss.SearchParametersIVF(nprobe=min(nprobe, self._inverted.nlist), **selector)
        if self._graph and allowed is None:
            return faiss.SearchParametersHNSW(efSearch=self.settings.search.get("efSearch", 16))
        return faiss.SearchParameters(**selector) if selector else None


def _bitmap(allowed: Ids, size: int) -> Any:
    mask = np.zeros(size, bool)
    mask[allowed] = True
    return np.packbits(mask, bitorder="little")
