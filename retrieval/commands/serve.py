"""Command that serves an artifact: the page in the browser, and the endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from retrieval.commands import options
from retrieval.commands.paths import check_artifact
from retrieval.console import Stopping
from retrieval.errors import LookalikeError, first_line
from retrieval.hub.references import is_reference, parse_reference
from retrieval.ui.footprint import without_pandas
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.several.job import Shown

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
    int | None,
    typer.Option(
        metavar="PORT",
        min=0,
        max=65535,
        envvar="GRADIO_SERVER_PORT",
        show_envvar=False,
        help="port (default: the first free one from 7860)",
    ),
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
AllowPrivate = Annotated[
    bool,
    typer.Option(
        "--allow-private", help="fetch pictures that programs name by address from private networks, and by http, too"
    ),
]
RootPath = Annotated[
    str | None,
    typer.Option(
        metavar="PREFIX",
        help="prefix under which a proxy offers the app, such as /lookalike, or its whole address",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        max=64,
        envvar="LOOKALIKE_WORKERS",
        show_envvar=False,
        help="serve with N processes behind the one address, at most one for each processor",
    ),
]
Uploads = Annotated[int, typer.Option(metavar="MIB", min=64, help="room for the pictures that visitors upload, in MiB")]
LogFormat = Annotated[
    Literal["json", "text"] | None,
    typer.Option(metavar="json|text", help="write a line to standard error for each request (default: none)"),
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
    allow_private: AllowPrivate = False,
    sha256: options.Sha256 = None,
    store: options.StoreAt = None,
    uploads: Uploads = 1024,
    root_path: RootPath = None,
    workers: Workers = 1,
    log_format: LogFormat = None,
    allowed_host: options.AllowedHosts = None,
    allowed_origin: options.AllowedOrigins = None,
    auth: options.Auth = None,
    trusted_proxy: options.TrustedProxies = None,
    queue_size: options.QueueSize = 128,
    visitor_searches: options.VisitorSearches = 32,
    visitor_rate: options.VisitorRate = 20.0,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Serve an artifact in the browser, until interrupted."""
    check_artifact(artifact)
    check_refresh(artifact, refresh)
    settings: dict[str, Any] = {"host": host, "port": port, "queue_size": queue_size, "log_format": log_format}
    settings |= {"share": share, "root_path": root_path, "uploads": uploads * 2**20, "visitor_rate": visitor_rate}
    settings |= {"visitor_searches": visitor_searches, **_access(allowed_host, allowed_origin, auth, trusted_proxy)}
    with _in_one_sentence():
        shown = Shown(artifact, tuple(map(str, originals or ())), refresh, allow_private, sha256)
        _serve(shown, ServerSettings(**settings), workers)


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Make one sentence of whatever Gradio or another library raises."""
    try:
        yield
    except (LookalikeError, OSError):
        raise
    except Exception as error:
        raise LookalikeError(f"the page could not be started: {type(error).__name__}: {first_line(error)}") from error


def _access(
    hosts: list[str] | None, origins: list[str] | None, auth: str | None, proxies: list[str] | None
) -> dict[str, Any]:
    """Who may use the server, as settings. Raises LookalikeError for a wrong value."""
    from retrieval.ui.access.allowed import check_host, check_origin, check_proxy
    from retrieval.ui.access.passwords import Accounts, read_accounts

    return {
        "allowed_hosts": tuple(check_host(host) for host in hosts or ()),
        "allowed_origins": tuple(check_origin(origin) for origin in origins or ()),
        "trusted_proxies": tuple(check_proxy(proxy) for proxy in proxies) if proxies else None,
        "accounts": Accounts(read_accounts(auth)) if auth else None,
    }


def _serve(shown: Shown, settings: ServerSettings, workers: int) -> None:
    """Serve until stopped."""
    with Stopping() as stopping:
        stopped = _served(shown, settings, workers, stopping)
    if stopped:
        from retrieval.ui.server.stop import leave

        leave()


def _served(shown: Shown, settings: ServerSettings, workers: int, stopping: Stopping) -> bool:
    """Listen first, so that `/ready` can be asked while the artifact is loaded, then show the page.

    Returns whether a signal stopped it.
    """
    if workers > 1:
        from retrieval.ui.server.several.supervise import serve_several

        return serve_several(shown, settings, workers, stopping)
    without_pandas()
    from retrieval.ui.following import page_of
    from retrieval.ui.server.launch import Server

    with Server(settings, stopping) as server, page_of(shown) as app:
        server.show(app)
        return server.wait()


def check_refresh(artifact: str, refresh: float | None) -> None:
    """Raise LookalikeError for a refresh of an artifact that cannot change on the Hub: not `owner/name[@branch]`."""
    if refresh is None:
        return
    if not is_reference(artifact) or Path(artifact).is_dir():
        raise LookalikeError(
            f"--refresh is for artifacts on the Hub; changes of the folder {artifact} are always seen."
        )
    if parse_reference(artifact).pinned:
        raise LookalikeError(f"--refresh needs a branch, but {artifact} is one commit, which never changes.")
