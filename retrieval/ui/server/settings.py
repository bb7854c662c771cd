"""How the app is served, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrieval.ui.access.passwords import Accounts


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
