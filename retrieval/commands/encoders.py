"""Commands about encoders."""

from __future__ import annotations

import typer

from retrieval.commands import options
from retrieval.commands.paths import check_folder

commands = typer.Typer()


@commands.command("export-encoder")
def export_encoder(artifact: options.Folder) -> None:
    """Add the exported encoder to an artifact of an earlier version, so that serving it needs no torch."""
    check_folder(artifact)
    from retrieval.artifact.parts.exported import EXPORTED
    from retrieval.build import change

    exported = change.export_encoder(artifact)
    if exported.encoder.precision != "float32":
        typer.echo(f"{artifact} has the exported encoder, in {exported.encoder.precision}")
        return
    told = exported.manifest[EXPORTED]
    typer.echo(
        f"{artifact} has the exported encoder: a score differs from torch's by at most {told['largest_difference']:.0e}"
    )
