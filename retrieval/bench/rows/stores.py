"""Benchmark vector databases beside exact search and FAISS, on the same drawn vectors in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import faiss
import numpy as np

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.artifact.load import load_artifact
from retrieval.bench.rows.synthetic import Cloud
from retrieval.console import say
from retrieval.errors import StoreError
from retrieval.stores.choose import fit_index
from retrieval.stores.exact import search_rows
from retrieval.stores.paired import PairedStore
from retrieval.stores.recall import Figures, recall_at_k
from retrieval.stores.servers.base import State, Tagged
from retrieval.stores.servers.open import hidden, open_collection, renamed

ROWS = 200_000
_QUERIES = 50
_K = 10
_BATCH = 1_000
_CLUMPS = 20

Search = Callable[[Vectors, "Ids | None", Sequence[Tagged]], tuple[Ids, Floats]]


@dataclass(frozen=True)
class _Set:
    """Rows that a filter lets through, which have a tag in common."""

    name: str
    tag: int
    rows: Ids


@dataclass(frozen=True)
class _Drawn:
    """What all stores are compared on."""

    vectors: Vectors
    queries: Vectors
    sets: list[_Set]

    def tags(self) -> list[Ids]:
        """The tags of each row: those of its sets, and one of ten."""
        of_row = [[100 + row % 10] for row in range(len(self.vectors))]
        for each in self.sets:
            for row in each.rows.tolist():
                of_row[row].append(each.tag)
        return [np.array(sorted(tags), np.int64) for tags in of_row]


def bench_stores(folder: Path, uris: Sequence[str], rows: int, dim: int) -> Figures:
    """Fill each database with `rows` vectors of dimension `dim`, drawn around the artifact's, and search them.

    Databases get a new collection, which is deleted in the end; so a file or a folder has to be a new one. Times are
    medians for one query at a time, of this process and by the clock: what a server computes is in the latter alone.
    """
    artifact = load_artifact(folder)
    cloud = Cloud(artifact.store.vectors(np.arange(len(artifact.store))), dim)
    vectors = cloud.draw(rows, seed=1)
    drawn = _Drawn(vectors, cloud.draw(_QUERIES, seed=2), _sets(vectors))
    figures: Figures = {"rows": rows, "dimension": dim}
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        every = np.arange(rows)
        exact: Search = lambda query, allowed, _: search_rows(  # noqa: E731
            query, vectors if allowed is None else vectors[allowed], every if allowed is None else allowed, _K
        )
        figures |= _measured("exact", exact, drawn, 0.0, vectors.nbytes / rows)
        started = time.perf_counter()
        index = fit_index(vectors)
        seconds = time.perf_counter() - started
        name = f"FAISS {index.settings.factory}"
        found: Search = lambda query, allowed, _: index.search(query, _K, allowed)  # noqa: E731
        figures |= _measured(name, found, drawn, seconds, index.settings.bytes_per_vector)
        for uri in uris:
            with _filled(uri, drawn) as (store, seconds, size):  # named as it was given
                there: Search = lambda query, allowed, where, own=store: own.search(query, _K, allowed, where)  # type: ignore[misc]  # noqa: E731
                figures |= _measured(hidden(uri), there, drawn, seconds, size)
    finally:
        faiss.omp_set_num_threads(threads)
    return figures


def _sets(vectors: Vectors) -> list[_Set]:
    """Rows at random, in clumps, and around one point: 1% of all, and 5% at random."""
    rng, few = np.random.default_rng(3), max(len(vectors) // 100, _K)
    middles = vectors[rng.choice(len(vectors), _CLUMPS, replace=False)]
    clumps = faiss.knn(middles, vectors, max(few // _CLUMPS, 1), faiss.METRIC_INNER_PRODUCT)[1]
    label = faiss.knn(middles[:1], vectors, few, faiss.METRIC_INNER_PRODUCT)[1]
    shuffled = rng.permutation(len(vectors))
    found = {
        "1% random": shuffled[:few],
        "1% in clumps": clumps,
        "1% of one label": label,
        "5% random": shuffled[-5 * few :],
    }
    return [_Set(name, tag, np.unique(rows).astype(np.int64)) for tag, (name, rows) in enumerate(found.items(), 1)]


@contextmanager
def _filled(uri: str, drawn: _Drawn) -> Iterator[tuple[PairedStore, float, float | None]]:
    """A new collection with all vectors: its store, the seconds it took, and its bytes a vector, if that is known."""
    rows, dim = drawn.vectors.shape
    uri, keys, tags = renamed(uri, f"bench_{token_hex(4)}"), np.arange(1, rows + 1), drawn.tags()
    with closing(open_collection(uri)) as collection:
        if collection.state() is not None:
            raise StoreError(f"{collection.uri} has a collection already: a benchmark needs a new file or folder.")
        say(f"filling {collection.uri}")
        started = time.perf_counter()
        collection.create(State("bench", dim, {}))
        try:
            for at in range(0, rows, _BATCH):
                part = slice(at, at + _BATCH)
                collection.upsert(keys[part], drawn.vectors[part], tags[part])
            collection.finish()
            seconds, size = time.perf_counter() - started, collection.size()
            yield PairedStore(uri, collection, keys, dim), seconds, size / rows if size else None
        finally:
            collection.drop()


def _measured(name: str, search: Search, drawn: _Drawn, seconds: float, size: float | None) -> Figures:
    figures: Figures = {}
    for each in [None, *drawn.sets]:
        rows = None if each is None else each.rows
        where = () if each is None else (Tagged((each.tag,)),)
        truth = _truth(drawn, rows)
        found, clock, own = _timed(drawn.queries, lambda query, rows=rows, where=where: search(query, rows, where))  # type: ignore[misc]
        of = "" if each is None else f" of {each.name}"
        figures[f"{name}: recall@10{of}"] = recall_at_k(found, truth)
        figures[f"{name}: p50 ms{of}"] = clock
        figures[f"{name}: CPU p50 ms{of}"] = own
    figures[f"{name}: bytes a vector"] = size
    figures[f"{name}: filling s"] = seconds
    return figures


def _truth(drawn: _Drawn, rows: Ids | None) -> Ids:
    vectors = drawn.vectors if rows is None else drawn.vectors[rows]
    best: Ids = faiss.knn(drawn.queries, vectors, _K, faiss.METRIC_INNER_PRODUCT)[1]
    return best if rows is None else rows[best]


def _timed(queries: Vectors, search: Callable[[Vectors], Any]) -> tuple[Ids, float, float]:
    """What is found, and the median milliseconds of a query: by the clock, and of this process."""
    for query in queries[:5]:
        search(query[None])
    found, clock, own = [], [], []
    for query in queries:
        started, computed = time.perf_counter(), time.process_time()
        found.append(search(query[None])[0][0])
        own.append(1_000 * (time.process_time() - computed))
        clock.append(1_000 * (time.perf_counter() - started))
    return np.array(found), float(np.median(clock)), float(np.median(own))
