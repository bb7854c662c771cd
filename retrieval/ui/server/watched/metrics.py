"""What Prometheus is told: requests, stages of a search, the queue, pictures, and the process.

Every label has few values: a route is the template that matched (`/gradio_api/call/{api_name}`), never a path.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from retrieval.errors import ImageError

if TYPE_CHECKING:
    import gradio as gr

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DECODE = "decode"
# What an error about a picture says -> why it was refused.
_REASONS = {
    "memory": "memory",
    "takes too long": "time",
    "too many other": "busy",
    "pixels": "pixels",
    "too long and thin": "shape",
    "too large": "bytes",
    "empty": "empty",
    "truncated": "truncated",
    "not a readable": "format",
    "format": "format",
    "no such file": "missing",
}


class Metrics:
    """The counts of this process; one is enough, as Prometheus itself has one registry a process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, processor time, open files
        self.queues: WeakSet[Any] = WeakSet()
        self._registry.register(_Queues(self.queues))
        self.requests = Counter(
            "lookalike_requests", "Answered requests", ["method", "route", "status"], registry=self._registry
        )
        self.request_seconds = self._histogram("lookalike_request_seconds", "Time to the end of an answer", "route")
        self.stage_seconds = self._histogram("lookalike_stage_seconds", "Time of one stage of a search", "stage")
        self.wait_seconds = self._histogram("lookalike_queue_wait_seconds", "Time that an event waited to begin")
        self.pictures = Counter(
            "lookalike_pictures", "Pictures of queries, by what became of them", ["outcome"], registry=self._registry
        )

        self.refused = Counter(
            "lookalike_refused", "Requests and searches that were one too many", ["reason"], registry=self._registry
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage of a search: decode, embed, search or render."""
        start, outcome = time.perf_counter(), "decoded"
        try:
            yield
        except ImageError as error:
            outcome = _reason(str(error))
            raise
        except BaseException:
            outcome = ""
            raise
        finally:
            self.stage_seconds.labels(name).observe(time.perf_counter() - start)
            if name == _DECODE and outcome:
                self.pictures.labels(outcome).inc()

    def follow(self, app: gr.Blocks) -> None:
        """Count the events that wait in the queue of an app, and how long each one waited."""
        queue = app._queue
        if queue in self.queues:
            return
        self.queues.add(queue)
        process = queue.process_events

        @wraps(process)
        def begun(events: list[Any], *arguments: Any, **options: Any) -> Any:
            for event in events:
                self.wait_seconds.observe(max(0.0, time.monotonic() - event.enqueue_time))
            return process(events, *arguments, **options)

        queue.process_events = begun

    def text(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return bytes(generate_latest(self._registry))

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        return Histogram(name, about, labels, buckets=_FAST, registry=self._registry)


class _Queues(Collector):
    """The length of the queue, counted when it is asked for."""

    def __init__(self, queues: WeakSet[Any]) -> None:
        self._queues = queues

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Events that wait, and events that are computed."""
        queues = list(self._queues)
        waiting = sum(map(len, queues))
        running = sum(queue.get_active_worker_count() for queue in queues)
        yield GaugeMetricFamily("lookalike_queue_length", "Events that wait to begin", value=waiting)
        yield GaugeMetricFamily("lookalike_queue_running", "Events that are computed now", value=running)


def _reason(message: str) -> str:
    """Why a picture was refused, in one of a few words: the message itself may hold a name."""
    return f"refused_{next((reason for words, reason in _REASONS.items() if words in message), 'other')}"


METRICS = Metrics()
