"""Commands that bring an artifact elsewhere: to the Hub and back, into a Space, into a vector database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrieval.commands import options
from retrieval.commands.paths import check_artifact, check_folder
from retrieval.commands.printing import Bar
from retrieval.console import command
from retrieval.words import counted

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


@commands.command()
def index(
    artifact: options.AnyArtifact,
    to: Annotated[str, typer.Option("--to", metavar="URI", help="the vector database, such as qdrant+http://HOST")],
    sha256: options.Sha256 = None,
) -> None:
    """Bring the vectors of an artifact into a vector database, by difference to the version that it has."""
    check_artifact(artifact)
    from retrieval.artifact.pairing import fill
    from retrieval.hub.pull import open_artifact

    opened = open_artifact(artifact, sha256=sha256)
    with Bar() as bar:
        filled = fill(opened, to, bar)
    print(
        f"{counted(filled.rows, 'image')} of {artifact} can be searched there: {filled.added:,} added, "
        f"{filled.leaving:,} kept for the version before"
    )
