"""Benchmark a large artifact: drawn vectors with tiny pictures, built, opened and served like any other."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from retrieval.arrays import Vectors
from retrieval.artifact.atomic import writing
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import check_target, load_artifact
from retrieval.artifact.report import Report
from retrieval.bench.artifact import ask_by_http, seconds_to_answer, serving
from retrieval.bench.rows.memory import anonymous_peak, memory_of
from retrieval.bench.rows.synthetic import Cloud
from retrieval.build.build import finishing
from retrieval.errors import QueryError
from retrieval.files.stacked import stacked
from retrieval.images.gallery import BASE_SCHEMA, ID_LENGTH, spread_rows
from retrieval.stores.faiss import AUTO
from retrieval.stores.recall import Figures, latency

_CHUNK = 32_768
_PICTURES = 4_096  # different ones, so that hardly any two hits show the same
_QUERIES = 50


class Drawn:
    """Embedded images of an artifact with drawn vectors: the labels are those of the real images they start at."""

    schema = BASE_SCHEMA

    def __init__(self, cloud: Cloud, labels: Sequence[str | None], rows: int, place: Path) -> None:
        self._cloud, self._labels, self._rows, self._place = cloud, labels, rows, place
        self._starts = np.empty(rows, np.int32)
        self.seconds: dict[str, float] = {"drawing": 0.0, "writing vectors": 0.0, "gallery": 0.0}

    def vectors(self, dim: int) -> Vectors:
        """See `Embedded`."""
        with self._timed("writing vectors"):
            return stacked(self._place, self._rows, dim, self._parts())

    def _parts(self) -> Iterator[Vectors]:
        at, pieces = 0, self._cloud.pieces(self._rows, seed=1)
        while at < self._rows:
            with self._timed("drawing", "writing vectors"):
                vectors, start = next(pieces)
            self._starts[at : at + len(start)] = start
            yield vectors
            at += len(vectors)

    def tables(self) -> Iterator[pa.Table]:
        """See `Embedded`."""
        with self._timed("gallery"):
            pictures = _pictures()
            labels = pa.array(self._labels, pa.string())
            for at in range(0, self._rows, _CHUNK):
                numbers = range(at, min(at + _CHUNK, self._rows))
                hashes = [hashlib.sha256(b"%d" % number).hexdigest() for number in numbers]
                columns = {
                    "id": [sha256[:ID_LENGTH] for sha256 in hashes],
                    "thumbnail": [pictures[number * 2_654_435_761 % _PICTURES] for number in numbers],
                    "label": labels.take(pa.array(self._starts[at : at + len(numbers)])),
                    "source": [f"drawn/{number // 1000:06d}/{number:09d}.jpg" for number in numbers],
                    "sha256": hashes,
                }
                yield pa.table(columns, schema=self.schema)

    @contextmanager
    def _timed(self, step: str, within: str | None = None) -> Iterator[None]:
        started = time.process_time()
        yield
        took = time.process_time() - started
        self.seconds[step] += took
        if within:
            self.seconds[within] -= took


def bench_drawn(folder: Path, rows: int, out: Path, factory: str = AUTO) -> Figures:
    """Write an artifact `out` of `rows` vectors drawn around those of an artifact, serve it, and search in it.

    It has the encoder, and so the dimension, of that artifact. Raises QueryError for one with fewer than two images,
    and the errors of `build_artifact`.
    """
    artifact = load_artifact(folder)
    if len(artifact.store) < 2:
        raise QueryError("bench --rows needs an artifact with at least two images; this one has one.")
    check_target(out)
    cloud = Cloud(artifact.store.vectors(np.arange(len(artifact.store))), artifact.store.dim)
    pictures = [artifact.gallery.thumbnail(row) for row in spread_rows(len(artifact.gallery), _QUERIES)]
    drawn = Drawn(cloud, artifact.gallery.labels, rows, out.resolve().parent)
    report, seconds = Report(found=rows, indexed=rows, duplicates=[], skipped=[]), drawn.seconds
    before = memory_of()["RssAnon"]
    with anonymous_peak() as peak, writing(out, LAYOUT.own()):
        started = time.process_time()
        with finishing(out, artifact.encoder, drawn, report, {"name": "drawn"}, factory):
            indexed, so_far = time.process_time(), peak[0]
        finished = time.process_time()
    return {
        "rows": rows,
        "dimension": artifact.store.dim,
        **{f"build, {step}, CPU s": took for step, took in seconds.items()},
        "build, index, CPU s": indexed - started - sum(seconds.values()),
        "build, metrics and checks, CPU s": finished - indexed,
        "anonymous memory before, with the encoder, MB": before / 1e6,
        "build, largest anonymous memory up to the index, MB": so_far / 1e6,
        "build, largest anonymous memory, MB": peak[0] / 1e6,
        "files, bytes a row": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / rows,
        **_served(out, pictures),
    }


def _served(out: Path, pictures: list[bytes]) -> Figures:
    """Start the app twice, as the second one need not hash again, and search over HTTP."""
    figures: Figures = {}
    for start in ("first", "second"):
        with serving(out) as (app, address), httpx.Client(base_url=f"{address}/gradio_api", timeout=300) as http:
            ask = partial(ask_by_http, http)
            figures[f"app, {start} start, s to an answer"] = seconds_to_answer(app, partial(ask, pictures[0]))
            figures[f"app, {start} start, CPU s"] = _processor_time(app.pid)
            if start == "second":
                figures["app, first answer: anonymous memory, MB"] = memory_of(app.pid)["RssAnon"] / 1e6
                before = _processor_time(app.pid)
                p50, p95 = latency(ask, pictures)
                took = _processor_time(app.pid) - before
                memory = memory_of(app.pid)
                figures |= {
                    "query over HTTP p50 ms": p50,
                    "query over HTTP p95 ms": p95,
                    "query over HTTP, CPU ms": 1000 * took / len(pictures),
                    "app, after the queries: anonymous memory, MB": memory["RssAnon"] / 1e6,
                    "app, after the queries: mapped files, MB": memory["RssFile"] / 1e6,
                }
    return figures


def _processor_time(process: int) -> float:
    return float(sum(psutil.Process(process).cpu_times()[:2]))


def _pictures() -> list[bytes]:
    """Tiny pictures that differ."""
    rng, found = np.random.default_rng(0), []
    for pixels in rng.integers(0, 256, (_PICTURES, 4, 4), np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=30, optimize=True)
        found.append(file.getvalue())
    return found
