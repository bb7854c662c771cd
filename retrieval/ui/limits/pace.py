"""How fast something may be done, for each of any number of visitors."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

_MOST = 20_000  # of which a pace is remembered: 5 MB


class Pace:
    """`burst` at once, and `rate` a second after that, for each key (a leaky bucket as a meter, "GCRA").

    Of keys beyond 20,000, those that were not used for the longest time are forgotten, as if they had never been here.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._step, self._slack, self._clock = 1.0 / rate, burst / rate, clock
        self._full: OrderedDict[Hashable, float] = OrderedDict()  # key -> when all of its burst is there again

    def wait(self, key: Hashable) -> float:
        """Seconds until the next one may be done; 0 for at once."""
        now = self._clock()
        return max(0.0, max(self._full.get(key, now), now) + self._step - self._slack - now)

    def count(self, key: Hashable) -> None:
        """Count one that is done, or that will be done after its wait."""
        now = self._clock()
        self._full[key] = max(self._full.get(key, now), now) + self._step
        self._full.move_to_end(key)
        if len(self._full) > _MOST:
            self._full.popitem(last=False)

    def take(self, key: Hashable, longest: float = 0.0) -> float | None:
        """Count one and return its wait in seconds; None, and it is not counted, if that is over `longest`."""
        wait = self.wait(key)
        if wait > longest:
            return None
        self.count(key)
        return wait

    def retry_after(self, key: Hashable) -> int:
        """Whole seconds after which to try again, at least 1."""
        return max(1, math.ceil(self.wait(key)))
