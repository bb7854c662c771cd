"""The FAISS store, used by every artifact: unit vectors with inner products, so scores are cosines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import IntegrityError, StoreError
from retrieval.forking import Lock, in_child, threads_in_child
from retrieval.stores.base import MISSING, check_added, check_allowed, check_rows, check_search
from retrieval.stores.faiss.kinds import AUTO, Effort, IndexSettings, in_memory, kind_of, made, without_rows
from retrieval.stores.faiss.mapped import CAN_MAP, Codes, read_mapped
from retrieval.stores.faiss.narrow import EXACT_UP_TO, Filters, Narrow
from retrieval.stores.index_file import Header, check_index, read_index, write_index
from retrieval.stores.stated import check_settings

# FAISS's worker threads do not exist in a forked child, which would wait for them forever.
in_child(lambda: faiss.omp_set_num_threads(threads_in_child()))


class FaissStore:
    """A FAISS index built from a factory string; its ids are row numbers."""

    def __init__(self, dim: int, settings: IndexSettings | None = None, *, index: Any = None) -> None:
        self.dim = dim
        self.settings = settings or IndexSettings()
        self._index = made(dim, self.settings.factory) if index is None else index
        self._inverted = faiss.downcast_index(faiss.try_extract_index_ivf(self._index))
        self._places = Lock()
        self._filters = Filters()
        self._codes: Codes | None = None  # of an inverted file that is mapped from disk
        self._graph = isinstance(faiss.downcast_index(self._index), faiss.IndexHNSW)

    @staticmethod
    def check_factory(factory: str, dim: int) -> None:
        """Raise StoreError if FAISS cannot build this index, or if it would violate the store interface."""
        if factory != AUTO:
            made(dim, factory)

    @classmethod
    def load(cls, path: Path, settings: Mapping[str, Any]) -> Self:
        """Read an index file; raises IntegrityError unless it is an inner-product index that matches the settings.

        FAISS reads only what `check_index` has found to be whole. The lists of an inverted file are not read: they are
        mapped, and the file must not change.
        """
        header = check_index(path)
        if header.metric != faiss.METRIC_INNER_PRODUCT:
            raise IntegrityError(
                f"{path.name}: the metric must be the inner product, found FAISS's metric number {header.metric}."
            )
        check_settings(path.name, settings, header)
        try:
            index = read_mapped(path) if CAN_MAP and header.lists and header.rows else read_index(path)
        except RuntimeError as error:
            raise IntegrityError(f"{path.name} is not a readable FAISS index.") from error
        store = cls(index.d, IndexSettings(**settings), index=index)
        stated, found = kind_of(made(index.d, store.settings.factory)), kind_of(index)
        if stated != found:
            raise IntegrityError(f"{path.name}: the manifest says {store.settings.factory} ({stated}), found {found}.")
        store._opened(path, header)
        return store

    def _opened(self, path: Path, header: Header) -> None:
        """Prepare what was read from a file for searching, while no other thread does."""
        if self._inverted is None:
            return
        if getattr(self._inverted, "by_residual", False):  # not as this project writes it: rows are not codes alone
            self._index = in_memory(self._inverted)
            self._inverted = self._index
        if self._is_mapped() and header.places is not None:
            self._codes = Codes(path, header.places, self._inverted)
        self._know_places()

    def _is_mapped(self) -> bool:
        lists = None if self._inverted is None else faiss.downcast_InvertedLists(self._inverted.invlists)
        return lists is not None and not isinstance(lists, faiss.ArrayInvertedLists)

    def save(self, path: Path) -> None:
        """Write the index file."""
        self._forget_places()
        write_index(in_memory(self._inverted) if self._is_mapped() else self._index, path)

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
        if self._is_mapped():
            self._index = self._inverted = in_memory(self._inverted)
            self._codes = None
        self._index.add(vectors)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """See `Store.search`; exact for a flat index, and for a filter that accepts few rows."""
        queries = check_search(queries, k, self.dim)
        if allowed is not None:
            given = np.asarray(allowed, np.int64)
            narrow = self._filters.get(given)
            if narrow is None:
                allowed = check_allowed(given, len(self))
                if len(allowed) <= EXACT_UP_TO:
                    narrow = self._narrow(allowed)
                    self._filters.put(given, narrow, narrow.size)
            if narrow is not None:
                found: tuple[Ids, Floats] = narrow.search(queries, k)
                return found
        rows = len(self) if allowed is None else len(allowed)
        if not rows:
            return Narrow(np.arange(0), self._index).search(queries, k)
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
        if self._codes is not None:
            return self._codes.vectors(ids)
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
        if self._codes is not None:
            return self._codes.size
        self._forget_places()
        pieces: list[int] = []
        faiss.write_index(self._index, faiss.PyCallbackIOWriter(lambda piece: pieces.append(len(piece))))
        return sum(pieces)

    def emptied(self) -> FaissStore:
        """A store with the same settings and training, but without vectors."""
        index = faiss.clone_index(self._index) if self._inverted is None else without_rows(self._inverted)
        index.reset()
        return FaissStore(self.dim, self.settings, index=index)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def _know_places(self) -> None:
        """Build an inverted file's map from row to list (8 bytes per row), which reading rows back requires."""
        with self._places:
            if self._inverted is not None and self._codes is None and self._inverted.direct_map.no():
                self._inverted.make_direct_map()

    def _forget_places(self) -> None:
        """Drop that map: it is rebuilt in a moment, so it is not written to disk."""
        if self._inverted is not None and not self._is_mapped():
            self._inverted.set_direct_map_type(faiss.DirectMap.NoMap)

    def _narrow(self, rows: Ids) -> Narrow:
        """A small index of these rows alone."""
        if self._codes is not None:
            return Narrow(rows, self._codes.small(rows))
        index = faiss.IndexFlatIP(self.dim)
        index.add(self.vectors(rows))
        return Narrow(rows, index)

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


def _bitmap(allowed: Ids, size: int) -> Any:
    mask = np.zeros(size, bool)
    mask[allowed] = True
    return np.packbits(mask, bitorder="little")
