"""Benchmark an index of more vectors than there are images: what it costs to build, to hold and to ask.

Vectors are drawn into a file and the index is opened in a new process, so that more of them fit than memory holds.
Times are of the processor, in milliseconds for one query at a time on one core; waiting for the disk is not in them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.lib.format import open_memmap

from retrieval.arrays import Ids, Rows, Vectors
from retrieval.artifact.load import Artifact, load_artifact
from retrieval.bench.rows.memory import anonymous_peak, memory_of
from retrieval.bench.rows.synthetic import Cloud
from retrieval.errors import QueryError
from retrieval.files.held import temporary_folder
from retrieval.stores.choose import fit_index
from retrieval.stores.open import open_index
from retrieval.stores.recall import Figures, nearest_rows, recall_at_k

_QUERIES, _COLD, _TRUTH = 1_000, 100, 300
_FILTERS = 5  # of each kind
_SMALL_FILTERS = 50
_K = 10
_SHARE = 0.01


@dataclass(frozen=True)
class Drawn:
    """What a benchmark searches and asks."""

    vectors: Vectors
    queries: Vectors
    filters: Mapping[str, list[Ids]]
    """Name -> rows that are allowed, of several filters of one kind; those of 1% first, then the small ones."""


def bench_index(folder: Path, rows: int, dim: int) -> Figures:
    """Benchmark a search of `rows` synthetic vectors of dimension `dim`, drawn around the artifact's.

    They take 4 bytes a number in the folder for temporary files. Recall@10 is that of 300 other draws against exact
    search. Raises QueryError for an artifact with fewer than two images.
    """
    artifact = load_artifact(folder)
    if len(artifact.store) < 2:
        raise QueryError("bench --rows needs an artifact with at least two images; this one has one.")
    with temporary_folder() as work:
        vectors = open_memmap(str(work / "vectors.npy"), "w+", np.float32, (rows, dim))
        cloud = Cloud(artifact.store.vectors(np.arange(len(artifact.store))), dim)
        starts = cloud.draw_into(vectors, seed=1)
        vectors.flush()
        drawn = Drawn(vectors, cloud.draw(_QUERIES, seed=2), filters_of(artifact, starts))
        path = work / "index.faiss"
        with anonymous_peak() as peak:
            started = time.process_time()
            store = fit_index(vectors)
            store.save(path)
            seconds = time.process_time() - started
        settings = asdict(store.settings)
        del store
        figures: Figures = {"rows": rows, "dimension": dim, "index": settings["factory"], **settings["search"]}
        figures |= {"bytes per vector": settings["bytes_per_vector"], "build CPU s": seconds}
        figures |= {"build, anonymous MiB at most": peak[0] / 2**20} if peak else {}
        return figures | measured(path, settings, drawn)


def filters_of(artifact: Artifact, starts: Ids) -> dict[str, list[Ids]]:
    """Filters of about 1%: rows drawn at random, rows around few images, rows of one label; and of 0.01%."""
    rng = np.random.default_rng(3)
    rows, images = len(starts), len(artifact.gallery)
    labels = np.array([str(label) for label in artifact.gallery.labels])
    names, counts = np.unique(labels, return_counts=True)
    nearest = names[np.argsort(np.abs(counts - _SHARE * images), kind="stable")[:_FILTERS]]
    few = max(1, round(_SHARE * images))
    chosen = {
        "random": [_drawn(rng, rows, _SHARE) for _ in range(_FILTERS)],
        "clumps": [np.flatnonzero(np.isin(starts, rng.choice(images, few, replace=False))) for _ in range(_FILTERS)],
        "one label": [np.flatnonzero((labels == name)[starts]) for name in nearest],
        "0.01%": [_drawn(rng, rows, _SHARE / 100) for _ in range(_SMALL_FILTERS)],
    }
    return {name: [each for each in filters if len(each)] for name, filters in chosen.items()}


def measured(path: Path, settings: Mapping[str, Any], drawn: Drawn) -> Figures:
    """Open an index in a new process, ask it, and compare its answers with exact search."""
    for each in path.parent.glob(f"{path.stem}.*"):
        _forget(each)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        answers, figures = pool.apply(_asked, (path, settings, drawn.queries, drawn.filters))
    some = drawn.queries[:_TRUTH]
    found: dict[str, Any] = {"recall@10": recall_at_k(answers[""], nearest_rows(some, drawn.vectors, _K))}
    for name, filters in drawn.filters.items():
        pairs = [(answers[name][n], _exact(some, drawn.vectors, rows)) for n, rows in enumerate(filters)]
        if pairs:
            found[f"filter, {name}: recall@10"] = float(np.mean([recall_at_k(*pair) for pair in pairs]))
    order = [name for name in figures if not name.startswith("filter")]
    return {**found, **{name: figures[name] for name in order}, **figures}


def _asked(
    path: Path, settings: Mapping[str, Any], queries: Vectors, filters: Mapping[str, list[Ids]]
) -> tuple[dict[str, Any], Figures]:
    """In a process of its own: the answers without a filter and with each, and what they took."""
    faiss.omp_set_num_threads(1)
    before, started = memory_of(), time.perf_counter()
    store = open_index(path, settings)
    figures: Figures = {"open s": time.perf_counter() - started}
    cold = [_timed(lambda query=query: store.search(query[None], _K)) for query in queries[:_COLD]]
    figures["cold p50 CPU ms"], figures["cold p50 ms with the disk"] = (
        float(np.median([times[at] for times in cold])) for at in range(2)
    )
    for query in queries:
        store.search(query[None], _K)
    warm = [_timed(lambda query=query: store.search(query[None], _K))[0] for query in queries]
    figures["p50 CPU ms"], figures["p95 CPU ms"] = (float(np.percentile(warm, share)) for share in (50, 95))
    answers: dict[str, Any] = {"": store.search(queries[:_TRUTH], _K)[0]}
    if before:
        now = memory_of()
        figures["anonymous MiB of the index"] = (now["RssAnon"] - before["RssAnon"]) / 2**20
        figures["file cache MiB of the index"] = (now["RssFile"] - before["RssFile"]) / 2**20
    for name, of_kind in filters.items():
        first, later = [], []
        for rows in of_kind:
            first.append(_timed(lambda rows=rows: store.search(queries[:1], _K, rows))[0])
            some = queries[: _QUERIES // len(of_kind)]
            later += [_timed(lambda rows=rows, query=query: store.search(query[None], _K, rows))[0] for query in some]
            answers.setdefault(name, []).append(store.search(queries[:_TRUTH], _K, rows)[0])
        if of_kind:
            figures[f"filter, {name}: rows"] = int(np.median([len(rows) for rows in of_kind]))
            figures[f"filter, {name}: first query, CPU ms"] = float(np.median(first))
            figures[f"filter, {name}: again, p50 CPU ms"] = float(np.median(later))
    if before:
        figures["anonymous MiB with filters"] = (memory_of()["RssAnon"] - before["RssAnon"]) / 2**20
    return answers, figures


def _exact(queries: Vectors, vectors: Vectors, rows: Ids) -> Rows:
    return rows[nearest_rows(queries, vectors[rows], _K)]


def _drawn(rng: np.random.Generator, rows: int, share: float) -> Ids:
    return np.sort(rng.choice(rows, max(1, round(share * rows)), replace=False))


def _timed(call: Any) -> tuple[float, float]:
    """Milliseconds of the processor, and by the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    call()
    return 1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - clock)


def _forget(path: Path) -> None:
    """Write a file to disk and drop it from the file cache, where the system can."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
