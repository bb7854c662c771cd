"""How fast bytes come in or go out."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

_STALLED = 3.0  # seconds below the rate after which a connection may make room for another one
_ACKED = 120  # offset of tcpi_bytes_acked in Linux's struct tcp_info


class Rate:
    """Whether a count of bytes grows fast enough, in one period after the other."""

    def __init__(self, rate: float, period: float) -> None:
        self._rate, self._period = rate, period
        self._since: float | None = None
        self._counted = 0

    def reset(self) -> None:
        """Begin anew with the next count: nothing is expected now."""
        self._since = None

    def too_slow(self, now: float, count: int) -> bool:
        """Whether a whole period had fewer bytes than it should."""
        if self._since is None:
            self._since, self._counted = now, count
            return False
        if now - self._since < self._period:
            return False
        slow = self._below(now, count)
        self._since, self._counted = now, count
        return slow

    def behind(self, now: float, count: int) -> bool:
        """Whether it is on its way to being too slow."""
        return self._since is not None and now - self._since > _STALLED and self._below(now, count)

    def _below(self, now: float, count: int) -> bool:
        return count - self._counted < self._rate * (now - (self._since or now))


def acknowledged(connection: Any) -> int | None:
    """Bytes that the other side has received; None where the system does not tell."""
    if sys.platform == "linux":
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED + 8)
        except OSError:
            return None
        if len(info) == _ACKED + 8:
            return int(struct.unpack_from("Q", info, _ACKED)[0])
    return None
