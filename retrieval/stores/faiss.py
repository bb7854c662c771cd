"""FAISS: the store of every artifact. Unit vectors and inner product, so that scores are cosines."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retrieval.errors import IntegrityError, StoreError
from retrieval.forking import Lock, in_child
from retrieval.stores.base import MISSING, Ids, Vectors, check_added, check_allowed, check_rows, check_search
from retrieval.stores.exact import search_rows

# The threads that FAISS computes with do not exist in a forked child, which would wait for them for ever.
in_child(lambda: faiss.omp_set_num_threads(1))

AUTO = "AUTO"  # in the place of a factory string: choose one by size
_EXACT_BELOW = 2_000  # allowed rows: so few are read back and compared one by one, which is exact and takes 2 ms
# What FAISS calls an index and keeps the promises of a store: scores are inner products with the vectors that it gives
# back; rows can be filtered, read back and added to an emptied copy. Not PCA (scores of centred vectors), LSH, PQ (its
# scores are off by tenths, and rows drift when they are added again), refined or mapped ones; a graph with less than 2
# links a node crashes FAISS.
_FACTORIES = re.compile(
    r"((IVF[1-9]\d{0,6}(_HNSW([2-9]|[1-9]\d\d?))?|HNSW([2-9]|[1-9]\d\d?)),)?(Flat|SQfp16|SQbf16|SQ8|SQ6)"
    r"|HNSW([2-9]|[1-9]\d\d?)"
)


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
        self._index = _made(dim, self.settings.factory) if index is None else index
        self._inverted = faiss.downcast_index(faiss.try_extract_index_ivf(self._index))
        self._places = Lock()
        self._graph = isinstance(faiss.downcast_index(self._index), faiss.IndexHNSW)

    @staticmethod
    def check_factory(factory: str, dim: int) -> None:
        """Raise StoreError where FAISS cannot make such an index, or it would break a promise of a store."""
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
        stated, found = _kind(_made(index.d, store.settings.factory)), _kind(index)
        if stated != found:
            raise IntegrityError(f"{path.name}: the manifest says {store.settings.factory} ({stated}), found {found}.")
        store._know_places()  # now, while no other thread searches
        return store

    def save(self, path: Path) -> None:
        """Write the index file."""
        self._forget_places()
        faiss.write_index(self._index, str(path))

    def train(self, vectors: Vectors) -> None:
        """Learn what the index needs to know of the vectors before they are added (clusters, ranges).

        Raises StoreError where there are too few of them.
        """
        if isinstance(self._inverted, faiss.IndexIVFScalarQuantizer):
            # Store the vectors themselves, not what is left after their list's centre: it costs half a percent of
            # recall, and a row that is read back and added again is then the same to the bit.
            self._inverted.by_residual = False
        if self._index.is_trained:
            return
        try:
            self._index.train(np.ascontiguousarray(vectors, np.float32))
        except RuntimeError as error:
            raise StoreError(
                f"an index {self.settings.factory!r} cannot be trained with {len(vectors)} vectors: it wants at least "
                f"as many as it has lists. {AUTO} chooses one that fits."
            ) from error

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See `Store.add`; raises StoreError before `train` where the index needs that."""
        vectors = check_added(ids, vectors, len(self), self.dim)
        if not self._index.is_trained:
            raise StoreError(f"an index {self.settings.factory!r} has to be trained before vectors are added.")
        self._index.add(vectors)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> tuple[Ids, Vectors]:
        """See `Store.search`; exact for a flat index, and for a filter that lets few rows through."""
        queries = check_search(queries, k, self.dim)
        if allowed is not None:
            allowed = check_allowed(allowed, len(self))
        rows = len(self) if allowed is None else len(allowed)
        if not rows or (allowed is not None and rows <= _EXACT_BELOW):
            few = np.arange(0) if allowed is None else allowed
            return search_rows(queries, self.vectors(few), few, k)
        ids, scores = self._search(queries, k, allowed, len(self) / rows)
        # Where it looked there were fewer: the filter's rows lie in other lists, lists are short, a graph has islands.
        short = np.flatnonzero(ids[:, min(k, rows) - 1] == MISSING)
        if len(short):
            ids[short], scores[short] = self._search(queries[short], k, allowed, math.inf)
        return ids, scores

    def vectors(self, ids: Ids) -> Vectors:
        """See `Store.vectors`."""
        ids = check_rows(ids, len(self))
        if not len(ids):
            return np.empty((0, self.dim), np.float32)
        self._know_places()
        return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(ids)), np.float32)

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
        pieces: list[int] = []
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(lambda piece: pieces.append(len(piece))))
        return sum(pieces)

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
        with self._places:
            if self._inverted is not None and self._inverted.direct_map.no():
                self._inverted.make_direct_map()

    def _forget_places(self) -> None:
        """The opposite: what can be made again in a moment is not written to disk."""
        if self._inverted is not None:
            self._inverted.set_direct_map_type(faiss.DirectMap.NoMap)

    def _search(self, queries: Vectors, k: int, allowed: Ids | None, widen: float) -> tuple[Ids, Vectors]:
        """One search of the index; `widen` is how many times more of it to look at because of a filter, inf: all."""
        # A graph loses its way where most of its nodes may not be found; its vectors are gone through one by one.
        index = self._index.storage if self._graph and (allowed is not None or math.isinf(widen)) else self._index
        scores, ids = index.search(queries, k, params=self._parameters(allowed, widen))
        return ids, np.where(ids == MISSING, -np.inf, scores).astype(np.float32)

    def _parameters(self, allowed: Ids | None, widen: float) -> Any:
        """Search parameters are made for each search: an index's own are shared by all threads."""
        selector = {} if allowed is None else {"sel": faiss.IDSelectorBitmap(_bitmap(allowed, len(self)))}
        if self._inverted is not None:
            nprobe = min(self.settings.search.get("nprobe", 1) * widen, self._inverted.nlist)
            return faiss.SearchParametersIVF(nprobe=math.ceil(nprobe), **selector)
        if self._graph and allowed is None and not math.isinf(widen):
            return faiss.SearchParametersHNSW(efSearch=self.settings.search.get("efSearch", 16))
        return faiss.SearchParameters(**selector) if selector else None


def _made(dim: int, factory: str) -> Any:
    """An empty FAISS index; StoreError where it cannot be a store, or FAISS cannot make it for so many dimensions."""
    if not _FACTORIES.fullmatch(factory):
        raise StoreError(
            f"an index {factory!r} cannot be a store, whose scores are inner products and whose rows can be filtered "
            "and read back. These can: Flat, SQ6, SQ8, SQbf16, SQfp16, alone or after 'IVF1024,' or 'HNSW32,'."
        )
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise StoreError(
            f"FAISS cannot make an index {factory!r} for {dim} dimensions (see its wiki, 'The index factory')."
        ) from error


def _kind(index: Any) -> str:
    """The classes that an index is made of, with lists and bits: what its factory string says, read off itself."""
    # Under another name: the wrapper given owns the memory, and has to live as long as the one of the right class.
    kind = faiss.downcast_index(index)
    name = "IndexFlat" if isinstance(kind, faiss.IndexFlat) else type(kind).__name__
    if hasattr(kind, "sq"):
        name += f" of type {kind.sq.qtype}"
    if isinstance(kind, faiss.IndexIVF):
        lists = type(faiss.downcast_InvertedLists(kind.invlists)).__name__
        return f"{name} with {kind.nlist} {lists} over {_kind(kind.quantizer)}"
    return f"{name} over {_kind(kind.storage)}" if isinstance(kind, faiss.IndexHNSW) else name


def _bitmap(allowed: Ids, size: int) -> Any:
    mask = np.zeros(size, bool)
    mask[allowed] = True
    return np.packbits(mask, bitorder="little")
