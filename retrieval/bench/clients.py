"""Benchmark many clients at once: queries per second over HTTP, beside the images per second of the encoder alone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import cycle, islice
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image

from retrieval.encoders.base import ImageEncoder
from retrieval.errors import LookalikeError
from retrieval.images.open import open_image
from retrieval.stores.recall import Figures

_CLIENTS = 64
_EACH = 6  # queries of each client, of which the first does not count
_BATCHES = (1, 2, 4, 8, 16)
_LIMIT = "next-part"  # separates the parts of an upload
_API = "/gradio_api"


def best_throughput(encoder: ImageEncoder, pictures: Sequence[bytes]) -> float:
    """Images per second of an encoder, without decoding, with the size of batch that suits it best."""
    images = [open_image(picture) for picture in pictures]
    return max(_throughput(encoder, images, batch) for batch in _BATCHES if batch <= len(images))


def bench_clients(address: str, server: int, pictures: Sequence[bytes], images_per_second: float) -> Figures:
    """Search with many clients at once, each of which sends its next picture when it has the answer to the last.

    `server` is the id of the server's process; what its children compute counts too. `images_per_second` is that of the
    encoder alone. All queries are different files, so that no cache knows any of them. The clients run on the same
    machine and take some of its time; the processor time of the server does not depend on that.
    """
    with ThreadPoolExecutor(_CLIENTS) as pool:
        many = islice(cycle(pictures), _CLIENTS * _EACH)
        queries = [picture + f" {number}".encode() for number, picture in enumerate(many)]  # after its end, no pixels
        shares = [queries[client::_CLIENTS] for client in range(_CLIENTS)]
        list(pool.map(lambda share: _search(address, share[:1]), shares))
        before, start = _processor_time(server), time.perf_counter()
        times = np.concatenate(list(pool.map(lambda share: _search(address, share[1:]), shares)))
        taken, cost = time.perf_counter() - start, _processor_time(server) - before
    name = f"{_CLIENTS} clients over HTTP"
    return {
        "encoder at its best batch, images/s": images_per_second,
        f"{name}, queries/s": len(times) / taken,
        f"{name}, queries/s / images/s": len(times) / taken / images_per_second,
        f"{name}, p50 ms": float(1000 * np.median(times)),
        f"{name}, p95 ms": float(1000 * np.quantile(times, 0.95)),
        f"{name}, processor time of the server, ms a query": 1000 * cost / len(times),
    }


def _throughput(encoder: ImageEncoder, images: Sequence[Image.Image], batch: int) -> float:
    def embed() -> float:
        start = time.perf_counter()
        for first in range(0, len(images), batch):
            encoder.embed_images(images[first : first + batch])
        return time.perf_counter() - start

    embed()
    return len(images) / min(embed() for _ in range(3))


def _search(address: str, pictures: Sequence[bytes]) -> list[float]:
    """The seconds that each search of one client takes; raises LookalikeError if one is not answered."""
    connection, times = HTTPConnection(urlsplit(address).netloc, timeout=120), []
    for picture in pictures:
        start = time.perf_counter()
        head = f'--{_LIMIT}\r\nContent-Disposition: form-data; name="files"; filename="query.jpg"\r\n\r\n'
        body = head.encode() + picture + f"\r\n--{_LIMIT}--\r\n".encode()
        path = json.loads(_ask(connection, "/upload", body, f"multipart/form-data; boundary={_LIMIT}"))[0]
        image = {"image": {"path": path, "meta": {"_type": "gradio.FileData"}}}
        event = json.loads(_ask(connection, "/call/v2/search", json.dumps(image).encode()))["event_id"]
        answer = _ask(connection, f"/call/search/{event}")
        if b"event: complete" not in answer:
            raise LookalikeError(f"the app answered {answer[:300]!r}")
        times.append(time.perf_counter() - start)
    connection.close()
    return times


def _ask(connection: HTTPConnection, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    connection.request("GET" if body is None else "POST", _API + path, body, {"Content-Type": kind} if body else {})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise LookalikeError(f"the app answered {path} with {response.status}: {answer[:300]!r}")
    return answer


def _processor_time(server: int) -> float:
    """Seconds that a process and its children have computed."""
    process = psutil.Process(server)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))
