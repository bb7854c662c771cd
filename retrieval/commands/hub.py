"""Commands for the Hub: push an artifact, pull one, serve one in a Space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval.commands import options
from retrieval.commands.paths import check_folder
from retrieval.console import command

commands = typer.Typer()
_REMOTE = "an artifact on the Hub, optionally with a branch, tag or commit (default: main)"


@commands.command()
def push(
    artifact: options.Folder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="a repository; created if it does not exist")],
    private: options.Private = False,
    message: Annotated[str | None, typer.Option(metavar="M", help="commit message")] = None,
) -> None:
    """Verify an artifact and upload it to the Hub in one commit."""
    check_folder(artifact)
    from retrieval.hub.push import push

    print(push(artifact, repository, private=private, message=message))


@commands.command()
def pull(
    artifact: Annotated[str, typer.Argument(metavar="OWNER/NAME[@REVISION]", help=_REMOTE)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="the folder to write to")],
    sha256: options.Sha256 = None,
) -> None:
    """Download an artifact from the Hub and verify it."""
    from retrieval.hub.pull import pull

    pulled = pull(artifact, out, sha256=sha256)
    print(f"{pulled.name}, {pulled.state}, is in {out}; serve it: {command(f'serve --artifact {out}')}")


@commands.command()
def deploy(
    space: Annotated[str, typer.Argument(metavar="OWNER/SPACE", help="a Space; created if it does not exist")],
    artifact: Annotated[str, typer.Option(metavar="OWNER/NAME[@REVISION]", help=_REMOTE)],
    private: options.Private = False,
    hardware: Annotated[
        str | None,
        typer.Option(metavar="H", help="hardware that the Hub offers, e.g. cpu-upgrade (default: cpu-basic)"),
    ] = None,
    sha256: options.Sha256 = None,
) -> None:
    """Create or update a Space that serves an artifact."""
    from retrieval.hub.deploy import deploy

    print(deploy(space, artifact, private=private, hardware=hardware, sha256=sha256))
