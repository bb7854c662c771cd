"""The store of a large gallery: an inverted file over codes of one bit, both it and the vectors mapped from disk.

A search goes through the lists near the query (a graph over the centres finds them), estimates scores from codes of one
bit a number (RaBitQ), and compares the best rows with their vectors. FAISS keeps the codes, `Rows` the vectors.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import IntegrityError, StoreError
from retrieval.stores.base import MISSING, check_added, check_allowed, check_rows, check_search
from retrieval.stores.faiss import FaissStore, IndexSettings
from retrieval.stores.faiss.kinds import AUTO, in_memory, without_rows
from retrieval.stores.faiss.narrow import EXACT_UP_TO, Narrow, half_index
from retrieval.stores.index_file import Header, write_index
from retrieval.stores.large.cells import AT_ONCE, Cells
from retrieval.stores.large.rows import Lists, Rows, lists_type, read_rows, size_of_rows, write_rows
from retrieval.stores.large.wide import Wide

REFINED = 6  # rows compared exactly for each list that is visited
_LEAST_REFINED = 4  # rows compared exactly for each hit that is wanted
_QUERY_BITS = 4
_AT_ONCE = 2_000  # rows compared with a query: a mebibyte of 256 numbers, which the processor's cache holds
_LONGEST = 1.02  # a vector with 16-bit numbers; a longer one is damaged


def rows_file(path: Path) -> Path:
    """Where the vectors of a large index are: beside the index file."""
    return path.with_suffix(".safetensors")


class LargeStore(FaissStore):
    """A store whose index is `IVF...,RaBitQ`; its vectors are in a second file, 16-bit floats."""

    def __init__(self, dim: int, settings: IndexSettings | None = None, *, index: Any = None) -> None:
        super().__init__(dim, settings, index=index)
        self._rows = Rows(np.zeros(dim, np.float32))
        self._lists: Lists = np.zeros(0, lists_type(self.lists))
        self._cells: Cells | None = None
        self._scratch = threading.local()
        self._size = 0  # of the index file, if it is mapped

    def save(self, path: Path) -> None:
        """Write the index file, and the file of the vectors beside it."""
        write_index(in_memory(self._inverted) if self._is_mapped() else self._index, path)
        write_rows(rows_file(path), self._rows, self._lists)

    def train(self, vectors: Vectors) -> None:
        """See `FaissStore.train`: the centres of the lists, and the mean that is taken off."""
        if self._index.is_trained:
            return
        if len(vectors) < self.lists:
            raise StoreError(
                f"an index {self.settings.factory!r} cannot be trained with {len(vectors)} vectors: it needs at least "
                f"one per list. {AUTO} chooses one that fits."
            )
        vectors = np.ascontiguousarray(vectors, np.float32)
        self._rows = Rows(vectors.mean(axis=0, dtype=np.float64).astype(np.float32))
        self._cells = Cells.trained(vectors, self.lists)
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)  # the links of a graph depend on the order in which they are made
        try:
            self._inverted.quantizer.add(np.ascontiguousarray(self._cells.centres))
        finally:
            faiss.omp_set_num_threads(threads)
        self._inverted.is_trained = True

    def add(self, vectors: Vectors) -> None:
        """See `Store.add`; vectors that are mapped from disk are read again when the store is saved."""
        given, vectors = vectors, check_added(vectors, self.dim)
        if not self._index.is_trained:
            raise StoreError(f"an index {self.settings.factory!r} must be trained before vectors are added.")
        if self._is_mapped():
            self._index = self._inverted = in_memory(self._inverted)
        if self._cells is None:
            self._cells = Cells.of(self._centres().copy())  # shared with stores that outlive this one
        lists = np.empty(len(vectors), self._lists.dtype)
        first = len(self)
        for at in range(0, len(vectors), AT_ONCE):
            some = np.ascontiguousarray(vectors[at : at + AT_ONCE])
            near = self._cells.nearest(some)
            ids = np.arange(first + at, first + at + len(some))
            self._inverted.add_core(len(some), *map(faiss.swig_ptr, (some, ids, near)))
            lists[at : at + len(some)] = near
        if len(vectors):
            self._rows.append(given if given.dtype == np.float32 else vectors)
            self._lists = np.concatenate([self._lists, lists])

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """See `Store.search`; exact for a filter that accepts few rows."""
        queries = check_search(queries, k, self.dim)
        if allowed is None:
            ids, scores = self._refined(queries, k)
        else:
            given = np.asarray(allowed, np.int64)
            made = self._filters.get(given)
            if made is None:
                rows = check_allowed(given, len(self))
                wide = len(rows) > EXACT_UP_TO
                made = Wide(rows, self._lists, self._centres, self._compared) if wide else self._narrow(rows)
                self._filters.put(given, made, made.size)
            ids, scores = made.search(queries, k)
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        wrong = (scores > _LONGEST * lengths + 1e-3) | np.isnan(scores)
        if wrong.any():
            raise IntegrityError(
                f"the vector of row {ids[wrong][0]:,} is not of unit length: the index is damaged, build the artifact "
                "again."
            )
        return ids, scores

    def vectors(self, ids: Ids) -> Vectors:
        """See `Store.vectors`."""
        rows = check_rows(ids, len(self))
        return self._rows.vectors(rows) if len(rows) else np.empty((0, self.dim), np.float32)

    def size_in_bytes(self) -> int:
        """Size of both files in bytes."""
        beside = size_of_rows(len(self), self.dim, self.lists)
        return beside + (self._size if self._is_mapped() else super().size_in_bytes())

    def emptied(self) -> Self:
        """See `FaissStore.emptied`."""
        store = type(self)(self.dim, self.settings, index=without_rows(self._inverted))
        store._rows, store._cells = Rows(self._rows.mean), self._cells
        return store

    def _opened(self, path: Path, header: Header) -> None:
        if header.sizes is None:
            raise IntegrityError(f"{path.name} has no lists. Build the artifact again.")
        self._size = path.stat().st_size
        self._rows, self._lists = read_rows(rows_file(path), header.rows, header.dim, header.sizes)

    def _refined(self, queries: Vectors, k: int) -> tuple[Ids, Floats]:
        """The k best rows of the lists near each query, compared exactly."""
        ids = np.full((len(queries), k), MISSING, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        least = min(k, len(self))
        if not least or not len(queries):
            return ids, scores
        nprobe = min(self.settings.search.get("nprobe", 1), self.lists)
        wanted = min(max(self.settings.search.get("refine", 1), _LEAST_REFINED * k), len(self))
        found = self._index.search(queries, wanted, params=self._probing(nprobe))[1]
        for number, query in enumerate(queries):
            rows = found[number][found[number] >= 0]
            if len(rows) < least:  # the lists visited are too short
                rows = self._index.search(query[None], wanted, params=self._probing(self.lists))[1][0]
                rows = rows[rows >= 0]
            if len(rows) and rows.max() >= len(self):  # row numbers are not read before
                raise IntegrityError(f"the index has row {rows.max():,}, but {len(self):,} rows: build it again.")
            ids[number], scores[number] = (each[0] for each in self._narrow(rows).search(query[None], k))
        return ids, scores

    def _probing(self, nprobe: int) -> Any:
        graph = isinstance(faiss.downcast_index(self._inverted.quantizer), faiss.IndexHNSW)
        more = {"quantizer_params": faiss.SearchParametersHNSW(efSearch=2 * nprobe)} if graph else {}
        return faiss.IVFRaBitQSearchParameters(nprobe=nprobe, qb=_QUERY_BITS, centered=False, **more)

    def _narrow(self, rows: Ids) -> Narrow:
        return Narrow(rows, half_index(self.dim, self._rows.codes(rows) if len(rows) else None), self._rows.mean)

    def _compared(self, rows: Ids, query: Vectors, k: int) -> tuple[Ids, Floats]:
        """The k best of many rows, some at a time in memory that each thread uses again: new memory takes longer."""
        own = self._scratch
        if not hasattr(own, "index"):
            own.index, own.halves = half_index(self.dim, None), np.empty((_AT_ONCE, self.dim), np.float16)
        ids, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        for at in range(0, len(rows), _AT_ONCE):
            some = rows[at : at + _AT_ONCE]
            halves = own.halves[: len(some)]
            self._rows.halves_into(some, halves)
            own.index.reset()
            own.index.add_sa_codes(halves.view(np.uint8))
            found, best = Narrow(some, own.index, self._rows.mean).search(query[None], k)
            ids, scores = np.append(ids, found[0]), np.append(scores, best[0])
        order = np.argsort(-scores, kind="stable")[:k]
        return ids[order], scores[order]

    def _centres(self) -> Vectors:
        """The centres of the lists, (L, D) float32: FAISS's own memory."""
        quantizer = faiss.downcast_index(self._inverted.quantizer)
        flat = faiss.downcast_index(quantizer.storage) if isinstance(quantizer, faiss.IndexHNSW) else quantizer
        found: Vectors = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * self.dim).reshape(-1, self.dim)
        return found
