"""How the app is served, as one value."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from retrieval.ui.access.passwords import Accounts
from retrieval.ui.server.connections.limits import ConnectionLimits


@dataclass(frozen=True)
class ServerSettings:
    """What `launch` and every middleware need to know. A new option is one more field here."""

    host: str | None = None
    """Address to listen on; None for GRADIO_SERVER_NAME, or else 127.0.0.1."""

    port: int | None = None
    """None for GRADIO_SERVER_PORT, or else the first free port from 7860."""

    share: bool = False
    """Also open a public address through Gradio's servers."""

    root_path: str | None = None
    """Prefix under which a proxy offers the app, such as /lookalike, or a whole URL; None for GRADIO_ROOT_PATH."""

    uploads: int = 2**30
    """Bytes of all pictures together that visitors have uploaded; the oldest ones are deleted when there are more."""

    accounts: Accounts | None = None
    """Users and their passwords, one of which everything that is served then needs; None for no login."""

    allowed_hosts: tuple[str, ...] = ()
    """Host names that the server answers to, besides those that no other site can have; `*` for all."""

    allowed_origins: tuple[str, ...] = ()
    """Other sites whose pages may use the server, such as https://shop.example; `*` for all, without passwords."""

    log_format: Literal["json", "text"] | None = None
    """Write a line to standard error for each request; None for none."""

    trusted_proxies: tuple[str, ...] | None = None
    """Addresses and networks of proxies whose X-Forwarded-For says who a visitor is; `*` for every sender. None for
    FORWARDED_ALLOW_IPS, or else this machine's own."""

    queue_size: int = 128
    """Searches that may wait for their turn; and events of each other kind. One more is told to try again later."""

    visitor_searches: int = 32
    """Searches that one visitor may have waiting or running, and requests with which a visitor may be sending."""

    visitor_rate: float = 20.0
    """Requests a second that one visitor may send, other than to read; faster ones are slowed down, then refused."""

    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    """How many connections there may be, and how slow they may be."""

    @property
    def prefix(self) -> str:
        """What `root_path` comes to: empty for none."""
        return os.environ.get("GRADIO_ROOT_PATH", "") if self.root_path is None else self.root_path

    @property
    def forwarders(self) -> list[str] | None:
        """Whose X-Forwarded-For and -Proto uvicorn takes; None for what it does by itself."""
        if self.trusted_proxies is None:
            return None
        return ["*"] if "*" in self.trusted_proxies else ["127.0.0.1", "::1", *self.trusted_proxies]
