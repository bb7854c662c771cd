"""The metrics of all processes as one: counts and sizes are added up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_Key = tuple[str, tuple[tuple[str, str], ...]]
# Of times the first one counts, and of limits the least.
_LEAST = ("_created", "process_start_time_seconds", "process_max_fds")
_LASTING = ("counter", "histogram")


class Counts(Collector):
    """Adds up what processes say; counts never go down, although a process that has ended says nothing any more."""

    def __init__(self) -> None:
        self._ended: list[Metric] = []
        self._now: list[Metric] = []

    def end(self, text: str) -> None:
        """Keep what a process that has ended has counted, as it said at last."""
        families = [one for one in text_string_to_metric_families(text) if one.type in _LASTING]
        self._ended = list(_added(self._ended + families))

    def text(self, texts: Sequence[str], workers: int) -> bytes:
        """The sum, and the number of workers, in the text format of Prometheus."""
        self._now = [one for text in texts for one in text_string_to_metric_families(text)]
        self._now.append(GaugeMetricFamily("lookalike_workers", "Processes that answer requests", value=workers))
        return bytes(generate_latest(self))

    def collect(self) -> Iterator[Metric]:
        """The sum, as prometheus_client asks for it."""
        yield from _added(self._ended + self._now)


def _added(families: Iterable[Metric]) -> Iterator[Metric]:
    totals: dict[str, tuple[Metric, dict[_Key, float]]] = {}
    for family in families:
        _, values = totals.setdefault(family.name, (family, {}))
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            if key not in values:
                values[key] = sample.value
            elif sample.name.endswith(_LEAST):
                values[key] = min(values[key], sample.value)
            else:
                values[key] += sample.value
    for name, (family, values) in totals.items():
        total = Metric(name, family.documentation, family.type)
        for (sample_name, labels), value in values.items():
            total.add_sample(sample_name, dict(labels), value)
        yield total
