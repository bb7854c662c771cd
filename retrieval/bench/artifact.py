"""Benchmarks of an artifact: what users wait for, and what it costs. Seconds depend on the machine, ratios hardly."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any

import httpx
import numpy as np
import psutil

from retrieval.artifact.load import load_artifact
from retrieval.bench.clients import bench_clients, best_throughput
from retrieval.bench.decoding import bench_decoding
from retrieval.bench.throughput import build_throughput
from retrieval.console import command
from retrieval.encoders.engines.device import build_batch
from retrieval.errors import LookalikeError
from retrieval.files.held import temporary_folder
from retrieval.images.gallery import spread_rows
from retrieval.images.open import open_image
from retrieval.stores.recall import Figures, latency

_ROOT = Path(__file__).parents[2]  # here `python -m retrieval` finds this package, installed or not
_PATIENCE = 300  # seconds for the app to start
_QUERIES = 50
_IMAGES = 256
_BATCHES = 16  # of a build, at least


def bench_artifact(folder: Path) -> Figures:
    """Benchmark an artifact: start-up, throughput, query latency (in this process and through the app), many
    clients at once, recall, memory.

    Latencies are in milliseconds, for one query at a time, with the artifact's own thumbnails as queries.
    """
    artifact = load_artifact(folder)
    engine = artifact.encoder.engine
    batch = build_batch(engine.device, artifact.encoder.data_config["input_size"][1])
    most = max(_IMAGES, _BATCHES * batch)
    pictures = [artifact.gallery.thumbnail(row) for row in spread_rows(len(artifact.gallery), most)]
    encoder = latency(lambda picture: artifact.encoder.embed_images([open_image(picture)]), pictures)
    vectors = artifact.store.vectors(np.array(spread_rows(len(artifact.gallery), _QUERIES)))
    store = latency(lambda vector: artifact.store.search(vector[None], 10), list(vectors))
    figures: Figures = {
        "images": len(artifact.gallery),
        "encoder": artifact.encoder.name,
        "engine": f"{engine.name} on {engine.device}",
        "pictures in a batch of a build": batch,
        "index": artifact.store.settings.factory,
        "index recall@10": artifact.store.settings.recall_at_10,
        "embedding images/s": build_throughput(artifact.encoder, pictures),
        "encoder, one image, p50 ms": encoder[0],
        "index, one query, p50 ms": store[0],
        "index, one query, p95 ms": store[1],
    }
    figures |= bench_decoding(pictures[0])
    figures.update(_bench_app(folder, pictures, best_throughput(artifact.encoder, pictures[:_QUERIES])))
    figures["HTTP p50 - encoder p50, ms"] = figures["query over HTTP p50 ms"] - encoder[0]
    figures["gradio_client p50 - its floor - encoder p50, ms"] = (
        figures["query by gradio_client p50 ms"] - figures["gradio_client floor p50 ms"] - encoder[0]
    )
    return figures


def _bench_app(folder: Path, pictures: list[bytes], images_per_second: float) -> Figures:
    """Start the app as a user would, and query it over HTTP and through gradio_client."""
    with serving(folder) as (app, address), httpx.Client(base_url=f"{address}/gradio_api", timeout=60) as http:
        first = seconds_to_answer(app, lambda: ask_by_http(http, pictures[0]))
        over_http = latency(lambda picture: ask_by_http(http, picture), pictures[:_QUERIES])
        client = _by_client(address, pictures[:_QUERIES])
        many = bench_clients(address, app.pid, pictures, images_per_second)
        memory = psutil.Process(app.pid).memory_info().rss / 2**20
    return {
        "start to first answer s": first,
        "query over HTTP p50 ms": over_http[0],
        "query over HTTP p95 ms": over_http[1],
        **client,
        **many,
        "resident memory MiB": memory,
    }


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `python -m retrieval serve` on an artifact in a new process for the block; yields the process and its URL."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--artifact", str(folder.resolve()), "--host", "127.0.0.1", "--port", str(port)]
    program = [sys.executable, "-m", "retrieval", "serve", *options]
    with subprocess.Popen(program, cwd=_ROOT, stdout=subprocess.DEVNULL) as app:
        try:
            yield app, f"http://127.0.0.1:{port}"
        finally:
            app.terminate()


def seconds_to_answer(app: subprocess.Popen[bytes], ask: Callable[[], Any]) -> float:
    """Seconds until `ask` succeeds; until the page is there, it raises httpx.HTTPError. Raises LookalikeError."""
    started = time.perf_counter()
    while app.poll() is None and time.perf_counter() - started < _PATIENCE:
        try:
            ask()
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return time.perf_counter() - started
    raise LookalikeError(f"the app ended, or did not answer within {_PATIENCE} s; run `{command('serve')}` to see why")


def ask_by_http(http: httpx.Client, picture: bytes) -> str:
    """One search as a client without Gradio's library makes it: upload, call, read the answer."""
    path = http.post("/upload", files={"files": ("query.jpg", picture)}).raise_for_status().json()[0]
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    event = http.post("/call/v2/search", json={"image": image}).raise_for_status().json()["event_id"]
    answer = http.get(f"/call/search/{event}").raise_for_status().text
    if "event: complete" not in answer:
        raise LookalikeError(f"the app answered {answer!r}")
    return answer


def _by_client(address: str, pictures: list[bytes]) -> Figures:
    """The same through gradio_client, with its floor: the upload, and a call that computes nothing."""
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False)
    with temporary_folder() as folder:
        files = []
        for number, picture in enumerate(pictures):
            files.append(folder / f"{number}.jpg")
            files[-1].write_bytes(picture)
        search = latency(lambda file: client.predict(handle_file(file), api_name="/search"), files)
        nothing = latency(lambda _: client.predict(api_name="/info"), files)
        upload = latency(lambda file: httpx.post(client.upload_url, files={"files": file.open("rb")}), files)
    return {
        "query by gradio_client p50 ms": search[0],
        "query by gradio_client p95 ms": search[1],
        "gradio_client floor p50 ms": nothing[0] + upload[0],
    }
