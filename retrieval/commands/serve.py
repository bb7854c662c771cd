"""Command that serves an artifact: the page in the browser, and the endpoints."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval.commands import options
from retrieval.commands.paths import check_artifact
from retrieval.console import say
from retrieval.errors import LookalikeError
from retrieval.hub.references import is_reference, parse_reference

if TYPE_CHECKING:
    from retrieval.ui.serving import Live

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
Host = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="address to listen on (default: 127.0.0.1; 0.0.0.0 for the network)"),
]
Port = Annotated[
    int | None, typer.Option(metavar="PORT", max=65535, help="port (default: the first free one from 7860)")
]
Share = Annotated[
    bool, typer.Option("--share", help="create a public link, valid for a week, through Gradio's servers")
]
Refresh = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        min=0.01,
        help="ask the Hub every MINUTES for a newer commit of the artifact (default: never)",
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
    host: Host = None,
    port: Port = None,
    originals: OriginalsIn = None,
    share: Share = False,
    refresh: Refresh = None,
    sha256: options.Sha256 = None,
) -> None:
    """Serve an artifact in the browser, until interrupted."""
    check_artifact(artifact)
    if refresh:
        check_refresh(artifact)
    if port:
        check_port(host or "127.0.0.1", port)
    from retrieval.search import Searcher

    searcher = Searcher.open(artifact, sha256=sha256)
    from retrieval.ui import create_app, launch
    from retrieval.ui.originals import Originals
    from retrieval.ui.reload import reloading
    from retrieval.ui.serving import Live

    _exit_on_sigterm()
    live = Live(searcher, Originals(originals or ()))
    app = create_app(live)
    _check_originals(live, originals or [])
    try:
        with reloading(live, artifact, refresh, sha256):
            launch(app, host=host, port=port, share=share)
    except (OSError, ValueError) as error:  # invalid GRADIO_SERVER_NAME or GRADIO_SERVER_PORT
        raise LookalikeError(f"cannot listen on {host or 'this machine'}: {error}") from error


def _exit_on_sigterm() -> None:
    """SIGTERM stops a Space or a container; a normal exit deletes temporary files."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def _check_originals(live: Live, folders: list[Path]) -> None:
    """Say so if the folders are probably the wrong ones."""
    if live.originals.misplaced(live.now.searcher.gallery):
        listed = ", ".join(map(str, folders))
        say(f"note: no original was found in {listed}: give the folder that the artifact was built from.")


def check_refresh(artifact: str) -> None:
    """Raise LookalikeError unless the artifact may change on the Hub: `owner/name`, or with a branch."""
    if not is_reference(artifact) or Path(artifact).is_dir():
        raise LookalikeError(
            f"--refresh is for artifacts on the Hub; changes of the folder {artifact} are always seen."
        )
    if parse_reference(artifact).pinned:
        raise LookalikeError(f"--refresh needs a branch, but {artifact} is one commit, which never changes.")


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
