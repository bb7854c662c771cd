"""The FAISS store, used by every artifact: unit vectors with inner products, so scores are cosines."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import IntegrityError, StoreError
from retrieval.forking import Lock, in_child, threads_in_child
from retrieval.stores.base import MISSING, check_added, check_allowed, check_rows, check_search
from retrieval.stores.exact import search_rows
from retrieval.stores.index_file import check_index, read_index, write_index
from retrieval.stores.stated import check_settings

# FAISS's worker threads do not exist in a forked child, which would wait for them forever.
in_child(lambda: faiss.omp_set_num_threads(threads_in_child()))

AUTO = "AUTO"  # instead of a factory string: choose one by size
_EXACT_BELOW = 2_000  # allowed rows: up to this many are searched by brute force, which is exact and takes 2 ms
# FAISS factory strings that satisfy the store interface: scores are inner products with the vectors that it returns;
# rows can be filtered, read back, and added to an emptied copy. Excluded: PCA (scores of centred vectors), LSH, PQ (its
# scores are off by tenths, and rows drift when added again), refined and mapped indexes. A graph with fewer than 2
# links per node crashes FAISS.
_FACTORIES = re.compile(
    r"((IVF[1-9]\d{0,6}(_HNSW([2-9]|[1-9]\d\d?))?|HNSW([2-9]|[1-9]\d\d?)),)?(Flat|SQfp16|SQbf16|SQ8|SQ6)"
    r"|HNSW([2-9]|[1-9]\d\d?)"
)


@dataclass(frozen=True)
class IndexSettings:
    """How an index was built and is searched; stored in the manifest, because FAISS keeps only part of it."""

    factory: str = "Flat"
    chosen: str = AUTO
    """`AUTO` if the factory string was chosen by size, else `asked`."""
    search: Mapping[str, int] = field(default_factory=dict)
    """`nprobe` for an IVF index, `efSearch` for HNSW."""
    recall_at_10: float | None = None
    """Measured against exact search on a sample of the rows, in [0, 1]; None if not measured yet."""
    bytes_per_vector: float | None = None


@dataclass(frozen=True)
class Effort:
    """A search parameter, with the smallest and largest useful value."""

    name: str
    least: int
    most: int


class FaissStore:
    """A FAISS index built from a factory string; its ids are row numbers."""

    def __init__(self, dim: int, settings: IndexSettings | None = None, *, index: Any = None) -> None:
        self.dim = dim
        self.settings = settings or IndexSettings()
        self._index = _made(dim, self.settings.factory) if index is None else index
        self._inverted = faiss.downcast_index(faiss.try_extract_index_ivf(self._index))
        self._places = Lock()
        self._graph = isinstance(faiss.downcast_index(self._index), faiss.IndexHNSW)

    @staticmethod
    def check_factory(factory: str, dim: int) -> None:
        """Raise StoreError if FAISS cannot build this index, or if it would violate the store interface."""
        if factory != AUTO:
            FaissStore(dim, IndexSettings(factory))

    @classmethod
    def load(cls, path: Path, settings: Mapping[str, Any]) -> FaissStore:
        """Read an index file; raises IntegrityError unless it is an inner-product index that matches the settings.

        FAISS reads only what `check_index` has found to be whole.
        """
        header = check_index(path)
        if header.metric != faiss.METRIC_INNER_PRODUCT:
            raise IntegrityError(
                f"{path.name}: the metric must be the inner product, found FAISS's metric number {header.metric}."
            )
        check_settings(path.name, settings, header)
        try:
            index = read_index(path)
        except RuntimeError as error:
            raise IntegrityError(f"{path.name} is not a readable FAISS index.") from error
        store = cls(index.d, IndexSettings(**settings), index=index)
        stated, found = _kind(_made(index.d, store.settings.factory)), _kind(index)
        if stated != found:
            raise IntegrityError(f"{path.name}: the manifest says {store.settings.factory} ({stated}), found {found}.")
        store._know_places()  # now, while no other thread is searching
        return store

    def save(self, path: Path) -> None:
        """Write the index file."""
        self._forget_places()
        write_index(self._index, path)

    def train(self, vectors: Vectors) -> None:
        """Train the index on vectors, (N, D) float32, before any are added (cluster centres, value ranges).

        Raises StoreError if there are too few of them.
        """
        if isinstance(self._inverted, faiss.IndexIVFScalarQuantizer):
            # Store the vectors themselves, not residuals to the list's centre: it costs half a percent of recall, but a
            # row that is read back and added again stays bit-identical.
            self._inverted.by_residual = False
        if self._index.is_trained:
            return
        try:
            self._index.train(np.ascontiguousarray(vectors, np.float32))
        except RuntimeError as error:
            raise StoreError(
                f"an index {self.settings.factory!r} cannot be trained with {len(vectors)} vectors: it needs at least "
                f"one per list. {AUTO} chooses one that fits."
            ) from error

    def add(self, vectors: Vectors) -> None:
        """See `Store.add`; raises StoreError if the index still has to be trained."""
        vectors = check_added(vectors, self.dim)
        if not self._index.is_trained:
            raise StoreError(f"an index {self.settings.factory!r} must be trained before vectors are added.")
        self._index.add(vectors)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """See `Store.search`; exact for a flat index, and for a filter that accepts few rows."""
        queries = check_search(queries, k, self.dim)
        if allowed is not None:
            allowed = check_allowed(allowed, len(self))
        rows = len(self) if allowed is None else len(allowed)
        if not rows or (allowed is not None and rows <= _EXACT_BELOW):
            few = np.arange(0) if allowed is None else allowed
            return search_rows(queries, self.vectors(few), few, k)
        ids, scores = self._search(queries, k, allowed, len(self) / rows)
        # Too few results in the lists visited: the allowed rows are in other lists, lists are short, or a graph is
        # disconnected.
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
        """The parameter that trades time for recall; None for an index that compares every vector."""
        if self._inverted is not None:
            return Effort("nprobe", 1, self._inverted.nlist)
        return Effort("efSearch", 16, 1024) if self._graph else None

    @property
    def lists(self) -> int:
        """Number of lists of an inverted file; 0 for any other index."""
        return 0 if self._inverted is None else int(self._inverted.nlist)

    def size_in_bytes(self) -> int:
        """Size of the index file in bytes."""
        self._forget_places()
        pieces: list[int] = []
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(lambda piece: pieces.append(len(piece))))
        return sum(pieces)

    def emptied(self) -> FaissStore:
        """A store with the same settings and training, but without vectors."""
        index = faiss.clone_index(self._index)
        index.reset()
        return FaissStore(self.dim, self.settings, index=index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def _know_places(self) -> None:
        """Build an inverted file's map from row to list (8 bytes per row), which reading rows back requires."""
        with self._places:
            if self._inverted is not None and self._inverted.direct_map.no():
                self._inverted.make_direct_map()

    def _forget_places(self) -> None:
        """Drop that map: it is rebuilt in a moment, so it is not written to disk."""
        if self._inverted is not None:
            self._inverted.set_direct_map_type(faiss.DirectMap.NoMap)

    def _search(self, queries: Vectors, k: int, allowed: Ids | None, widen: float) -> tuple[Ids, Floats]:
        """Search the index once; because of a filter, visit `widen` times more of it (infinity: all of it)."""
        # A graph search gets stuck if most nodes are excluded; its vectors are scanned instead.
        index = self._index.storage if self._graph and (allowed is not None or math.isinf(widen)) else self._index
        scores, ids = index.search(queries, k, params=self._parameters(allowed, widen))
        return ids, np.where(ids == MISSING, -np.inf, scores).astype(np.float32)

    def _parameters(self, allowed: Ids | None, widen: float) -> Any:
        """Search parameters, new for each search: an index's own parameters are shared by all threads."""
        selector = {} if allowed is None else {"sel": faiss.IDSelectorBitmap(_bitmap(allowed, len(self)))}
        if self._inverted is not None:
            nprobe = min(self.settings.search.get("nprobe", 1) * widen, self._inverted.nlist)
            return faiss.SearchParametersIVF(nprobe=math.ceil(nprobe), **selector)
        if self._graph and allowed is None and not math.isinf(widen):
            return faiss.SearchParametersHNSW(efSearch=self.settings.search.get("efSearch", 16))
        return faiss.SearchParameters(**selector) if selector else None


def _made(dim: int, factory: str) -> Any:
    """An empty FAISS index; raises StoreError if it cannot be a store, or not with this dimension."""
    if not _FACTORIES.fullmatch(factory):
        raise StoreError(
            f"an index {factory!r} is not supported: its scores must be inner products, and its rows must be "
            "filterable and readable. "
            "Supported: Flat, SQ6, SQ8, SQbf16, SQfp16, alone or after 'IVF1024,' or 'HNSW32,'."
        )
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise StoreError(
            f"FAISS cannot create an index {factory!r} for {dim} dimensions (see its wiki, 'The index factory')."
        ) from error


def _kind(index: Any) -> str:
    """Describe an index by its classes, lists and bits: what its factory string says, read from the index itself."""
    # A new name: the original wrapper owns the memory, and must live as long as the downcast one.
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
