"""Options and arguments shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="an artifact's folder", show_default=False)]
AnyArtifact = Annotated[
    str,
    typer.Argument(metavar="DIR", help="an artifact: its folder, or owner/name[@revision] on the Hub"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Private = Annotated[bool, typer.Option("--private", help="only for those who are given access")]

SourceName = Annotated[
    str, typer.Argument(metavar="SOURCE", help="a folder, a parquet file, or a data set's folder or Hub name")
]
ImageColumn = Annotated[
    str | None, typer.Option(metavar="C", help="the column of the images (default: the first that is one)")
]
LabelColumn = Annotated[str | None, typer.Option(metavar="C", help="the column of the labels (default: label)")]
Split = Annotated[str | None, typer.Option(metavar="S", help="one split (default: all)")]
Config = Annotated[str | None, typer.Option(metavar="NAME", help="the data set's configuration, where it has several")]
Revision = Annotated[
    str | None, typer.Option(metavar="REV", help="branch, tag or commit on the Hub; or SOURCE@REV (default: main)")
]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="stop after so many images")]
