"""Listen on an address, and serve the page there until told to stop."""

from __future__ import annotations

import secrets
import socket
import sys
import threading
from dataclasses import replace
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio import networking
from gradio.tunneling import CURRENT_TUNNELS
from gradio.utils import get_space
from gradio_client import Client

from retrieval.console import Stopping
from retrieval.ui import strings
from retrieval.ui.access.login import INSIDE
from retrieval.ui.access.passwords import Accounts
from retrieval.ui.intake.blocks import PageBlocks
from retrieval.ui.server.asgi import wrapped
from retrieval.ui.server.connections.guard import guarded
from retrieval.ui.server.connections.log import keep_log_short
from retrieval.ui.server.gradio_app import mount_page
from retrieval.ui.server.listen import UVICORN, address_of, listen, wait_until_up
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.several.behind import Behind
from retrieval.ui.server.stop import finish, tell
from retrieval.ui.server.surroundings import open_uploads, reach_this_machine
from retrieval.ui.server.watched.front import Front
from retrieval.ui.server.watched.metrics import METRICS


def launch(
    app: gr.Blocks,
    settings: ServerSettings | None = None,
    *,
    prevent_thread_lock: bool = False,
    quiet: bool = False,
    **options: Any,
) -> tuple[Any, str, str | None]:
    """Serve the app until SIGTERM or Ctrl-C; `options` are fields of `ServerSettings`.

    With `prevent_thread_lock`, returns (Gradio's app, local address, public address) at once, and `app.close()` stops
    serving. With `quiet`, addresses are not printed.

    Raises LookalikeError if the address cannot be listened on, or uploads cannot be written.
    """
    server = Server(replace(settings or ServerSettings(), **options))
    server.start()
    page = server.show(app, quiet=quiet)
    if not prevent_thread_lock:
        server.wait()
    return page, app.local_url, app.share_url


class Server:
    """Listens at once, and shows the page when there is one; until then `/ready` answers 503.

    `Blocks.close` calls `close`, as it would that of Gradio's own server.
    """

    def __init__(
        self,
        settings: ServerSettings,
        stopping: Stopping | None = None,
        behind: Behind | None = None,
    ) -> None:
        """`stopping` handles the signals already. With `behind`, it is a worker of several behind one address, and
        listens on a port of its own, without limits: whoever connects there is the one that listens for all.

        Raises LookalikeError if the address cannot be listened on, or uploads cannot be written.
        """
        self._stopping = stopping or Stopping()
        reach_this_machine()
        self._settings, self._behind = settings, behind
        self._listener = behind.listen() if behind else listen(settings)
        self._uploads = open_uploads(settings.uploads)
        self.address = address_of(self._listener)
        self.front = Front(METRICS.text)
        self._blocks: gr.Blocks | None = None
        served = wrapped(self.front, settings)
        options = {"forwarded_allow_ips": settings.forwarders, **UVICORN, **(behind.options if behind else {})}
        config = uvicorn.Config(behind.around(served) if behind else served, **options)
        if behind is None:
            self._listener = guarded(self._listener, config, settings.connections)
        else:
            keep_log_short()
        self._uvicorn = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._uvicorn.run, args=([self._listener],), daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Answer from now on. Raises LookalikeError if the server does not come up."""
        self._thread.start()
        wait_until_up(self._uvicorn, self._thread, self._listener)

    def show(self, app: gr.Blocks, *, quiet: bool = False) -> Any:
        """Serve the page; returns Gradio's app. Raises LookalikeError if it cannot be started."""
        inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        mount_page(inner, app, "/", self._settings, self._uploads)
        self._blocks, app.server = app, self
        METRICS.follow(app)
        _note_address(app, self._listener, self.address)
        _let_in(app, self._settings.accounts, self._behind.own_header if self._behind else {})
        self.front.show(inner)
        if not quiet:
            tell(strings.RUNNING.format(address=self.address), to=sys.stdout)
        if self._settings.share and not self._behind:
            app.share_url = open_tunnel(app.server_name, app.server_port)
            app.share = app.share_url is not None
        if app.mcp_server and not quiet:
            tell(strings.RUNNING_TOOLS.format(address=app.share_url or self.address), to=sys.stdout)
        return app.app

    def wait(self) -> bool:
        """Serve until a signal, then finish what has begun, and stop; False if the server ended by itself."""
        with self._stopping as stopping:
            stopping.serving(self.clean, "" if self._behind else strings.STOPPING_NOW)
            asked = stopping.asked
            while self._thread.is_alive() and not asked.wait(0.5):
                pass
            if self._blocks is not None:
                finish(self.front, self._blocks)
                self._blocks.close(verbose=False)
            self.close()
            close_tunnels()
            if asked.is_set():
                self.clean()
        return asked.is_set()

    def close(self) -> None:
        """Stop serving."""
        self._uvicorn.should_exit = True
        self._thread.join(timeout=5)
        self._uploads.close()

    def clean(self) -> None:
        """Remove uploads and thumbnails, for an end that does not wait for Python's own."""
        self._uploads.close()
        if isinstance(self._blocks, PageBlocks):
            self._blocks.pictures.close()


def _let_in(app: gr.Blocks, accounts: Accounts | None, own: dict[str, str]) -> None:
    """Give Gradio's MCP server, which calls its own endpoints over HTTP, what lets it in: a token, the `own` header."""
    tools = app.mcp_server_obj
    if tools is None or (accounts is None and not own):
        return
    headers = {"x-gradio-user": "mcp", **own}
    if accounts is not None:
        headers[INSIDE] = accounts.token(lifetime=10**9)

    def client() -> Client:
        if tools._client_instance is None:
            options = {"verbose": False, "download_files": False, "analytics_enabled": False, "_skip_components": False}
            tools._client_instance = Client(app.local_url, headers=headers, **options)
        return tools._client_instance

    tools._get_or_create_client = client


def _note_address(app: gr.Blocks, listener: socket.socket, address: str) -> None:
    """Tell Gradio where it is served: its MCP server calls its own endpoints there."""
    app.server_name, app.server_port = listener.getsockname()[:2]
    app.protocol, app.local_url, app.local_api_url = "http", f"{address}/", f"{address}/gradio_api/"
    if app.mcp_server_obj:
        app.mcp_server_obj._local_url = app.local_url


def open_tunnel(host: str, port: int) -> str | None:
    """Open a public address, and say which; None if that fails, which is said too: the local one works."""
    if get_space():
        tell(strings.NO_SHARE_ON_SPACE, to=sys.stdout)
        return None
    try:
        tunnel = networking.setup_tunnel(host, port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # Gradio raises almost anything here
        tell(strings.NO_SHARE.format(why=error), to=sys.stdout)
        return None
    address: str = urlunsplit(("https", *urlsplit(tunnel)[1:]))
    tell(strings.SHARED.format(address=address), to=sys.stdout)
    return address


def close_tunnels() -> None:
    """Close all public addresses."""
    for tunnel in CURRENT_TUNNELS:
        tunnel.kill()
