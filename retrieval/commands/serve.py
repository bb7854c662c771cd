"""Command that serves an artifact: the page in the browser, and the endpoints."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval.commands.paths import check_artifact
from retrieval.console import say
from retrieval.errors import LookalikeError

if TYPE_CHECKING:
    from retrieval.search import Searcher

STARTER = Path(__file__).parents[1] / "starter"
commands = typer.Typer()
OriginalsIn = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="serve the original files of the gallery's images from this folder; may be repeated",
    ),
]


@commands.command()
def serve(
    artifact: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            envvar="LOOKALIKE_ARTIFACT",
            show_default="the starter",
            help="an artifact: its folder, or owner/name[@revision] on the Hub",
        ),
    ] = str(STARTER),
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="address to listen on (default: 127.0.0.1; 0.0.0.0 for the network)"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", max=65535, help="port (default: the first free one from 7860)")
    ] = None,
    originals: OriginalsIn = None,
    share: Annotated[
        bool, typer.Option("--share", help="create a public link, valid for a week, through Gradio's servers")
    ] = False,
) -> None:
    """Serve an artifact in the browser, until interrupted."""
    check_artifact(artifact)
    if port:
        check_port(host or "127.0.0.1", port)
    from retrieval.search import Searcher

    searcher = Searcher.open(artifact)
    from retrieval.ui import create_app, launch

    # SIGTERM stops a Space or a container; a normal exit deletes temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = create_app(searcher, originals or ())
    _check_originals(searcher, originals or [])
    try:
        launch(app, host=host, port=port, share=share)
    except (OSError, ValueError) as error:  # invalid GRADIO_SERVER_NAME or GRADIO_SERVER_PORT
        raise LookalikeError(f"cannot listen on {host or 'this machine'}: {error}") from error


def _check_originals(searcher: Searcher, folders: list[Path]) -> None:
    """Say so if the folders are probably the wrong ones."""
    from retrieval.ui.originals import Originals

    if Originals(folders).misplaced(searcher.gallery):
        listed = ", ".join(map(str, folders))
        say(f"note: no original was found in {listed}: give the folder that the artifact was built from.")


def check_port(host: str, port: int) -> None:
    """Raise LookalikeError unless a server could listen on this port now; `host` is a name or an IP address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = f"port {port} is in use: choose another --port, or omit it to use the first free one from 7860."
            else:
                why = f"cannot listen on {host}, port {port}: {error.strerror}; choose another --host or --port."
            raise LookalikeError(why) from error
