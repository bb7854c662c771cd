"""The limits of connections, and the number of files that the process may open."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

try:
    import resource
except ImportError:  # Windows, where sockets are not counted as files
    resource = None  # type: ignore[assignment]

_OWN_FILES = 128  # of the artifact, the workers and the libraries
_FILES_EACH = 2  # a connection, and an upload or a picture that it reads or writes
_FEWEST = 16


@dataclass(frozen=True)
class ConnectionLimits:
    """Times in seconds, sizes in bytes."""

    most: int = 2000
    """Connections, if the process may open enough files."""

    share: float = 0.25
    """Part of them that one address may have; this machine and trusted proxies may have all."""

    head: float = 15.0
    """Time for the request line and headers, from the first byte, or from the connection for the first request."""

    idle: float = 75.0
    """Time for which a connection is kept for a next request; proxies expect at least 60."""

    grace: float = 30.0
    """Time over which the rate of a body, or of an answer, is measured, again and again."""

    rate: float = 2000.0
    """Bytes a second, at least, of a body that is sent and of an answer that waits to be read."""

    linger: float = 2.0
    """Time that a client has to read why it was refused."""

    unread: float = 5.0
    """Time for which the rest of a body is still read after its answer."""

    head_bytes: int = 2**15
    headers: int = 100

    @property
    def tick(self) -> float:
        """How often the times are looked at."""
        return min(0.5, self.head / 4, self.grace / 4)


def room_for(limits: ConnectionLimits) -> int:
    """How many connections there is room for, after the limit of open files was raised as far as they need."""
    if resource is None:
        return limits.most
    needed = limits.most * _FILES_EACH + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft == resource.RLIM_INFINITY:
        return limits.most
    return max(_FEWEST, min(limits.most, (soft - _OWN_FILES) // _FILES_EACH))
