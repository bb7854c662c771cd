"""Listen on an address, and serve the page there until told to stop."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio import networking
from gradio.tunneling import CURRENT_TUNNELS

from retrieval.ui import strings
from retrieval.ui.server.asgi import wrapped
from retrieval.ui.server.gradio_app import mount_page
from retrieval.ui.server.settings import ServerSettings

_FIRST_PORT, _PORTS = 7860, 100


def launch(
    app: gr.Blocks,
    settings: ServerSettings | None = None,
    *,
    prevent_thread_lock: bool = False,
    quiet: bool = False,
    **options: Any,
) -> tuple[Any, str, str | None]:
    """Serve the app until interrupted; `options` are fields of `ServerSettings`.

    With `prevent_thread_lock`, returns (Gradio's app, local address, public address) at once, and `app.close()` stops
    serving. With `quiet`, addresses are not printed.

    Raises OSError if the address cannot be listened on, ValueError for an invalid GRADIO_SERVER_PORT.
    """
    settings = replace(settings or ServerSettings(), **options)
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = mount_page(outer, app, "/", settings)
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    _note_address(app, host, port)
    app.server = Server(uvicorn.Config(wrapped(outer, settings), log_level="warning", ws="none"), listener)
    app.server.start()
    if not quiet:
        print(strings.RUNNING.format(address=app.local_url.rstrip("/")), flush=True)
    if settings.share:
        _share(app, host, port)
    if app.mcp_server and not quiet:
        print(strings.RUNNING_TOOLS.format(address=(app.share_url or app.local_url).rstrip("/")), flush=True)
    if not prevent_thread_lock:
        _wait(app)
    return page.app, app.local_url, app.share_url


class Server(uvicorn.Server):
    """Uvicorn in a thread of its own, on a socket that listens already."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener
        self.thread = threading.Thread(target=self.run, kwargs={"sockets": [listener]}, daemon=True)

    def start(self) -> None:
        """Return once the app has started. Raises OSError if it could not."""
        self.thread.start()
        while not self.started:
            self.thread.join(0.005)
            if not self.thread.is_alive():
                self._listener.close()
                raise OSError("the app could not be started; the reason is above.")

    def close(self) -> None:
        """Stop serving; `Blocks.close` calls it too."""
        self.should_exit = True
        self.thread.join(timeout=5)


def _listen(settings: ServerSettings) -> socket.socket:
    """A socket that listens on the address of the settings."""
    host = settings.host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    named = settings.port or int(os.environ.get("GRADIO_SERVER_PORT") or 0)
    ports = range(_FIRST_PORT, _FIRST_PORT + _PORTS) if not named else [named]
    for port in ports:
        with suppress(OSError):
            return socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
            )
    raise OSError(f"no free port from {ports[0]} to {ports[-1]}.")


def _note_address(app: gr.Blocks, host: str, port: int) -> None:
    """Tell Gradio where it is served: its MCP server calls its own endpoints there."""
    reached = "localhost" if ipaddress.ip_address(host).is_unspecified else f"[{host}]" if ":" in host else host
    app.server_name, app.server_port, app.protocol = host, port, "http"
    app.local_url = f"http://{reached}:{port}/"
    app.local_api_url = f"{app.local_url}gradio_api/"
    if app.mcp_server_obj:
        app.mcp_server_obj._local_url = app.local_url


def _share(app: gr.Blocks, host: str, port: int) -> None:
    """Open a public address; if that fails, say so, and serve the local one alone."""
    if app.space_id:
        print(strings.NO_SHARE_ON_SPACE, flush=True)
        return
    try:
        tunnel = networking.setup_tunnel(host, port, app.share_token, None, None)
    except Exception as error:  # Gradio raises almost anything here
        print(strings.NO_SHARE.format(why=error), flush=True)
        return
    app.share, app.share_url = True, urlunsplit(("https", *urlsplit(tunnel)[1:]))
    print(strings.SHARED.format(address=app.share_url), flush=True)


def _wait(app: gr.Blocks) -> None:
    """Until Ctrl-C, or until the server ends."""
    try:
        app.server.thread.join()
    except KeyboardInterrupt:
        app.close(verbose=False)
        for tunnel in CURRENT_TUNNELS:
            tunnel.kill()
