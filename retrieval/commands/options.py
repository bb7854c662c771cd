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
Private = Annotated[bool, typer.Option("--private", help="make it private: visible only to those with access")]

SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="a folder, a list (CSV, TSV, JSONL), a parquet file, or a dataset's folder or Hub name"
    ),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(metavar="C", help="the image column (default: the first column that contains images, or is named so)"),
]
LabelColumn = Annotated[str | None, typer.Option(metavar="C", help="the label column (default: label)")]
LabelLevel = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="the folder that is the label, counted from SOURCE (default: the innermost)"),
]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private", help="also fetch addresses in private networks, such as localhost")
]
Split = Annotated[
    str | None, typer.Option(metavar="S", help="one split, or several as train+validation (default: all)")
]
Config = Annotated[str | None, typer.Option(metavar="NAME", help="the dataset's configuration, if it has several")]
Revision = Annotated[
    str | None,
    typer.Option(metavar="REV", help="branch, tag or commit on the Hub (default: main); the same as SOURCE@REV"),
]
Originals = Annotated[
    bool, typer.Option("--originals", help="keep where each original lies, for `serve --originals` and links to them")
]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="stop after N images")]
WhereConditions = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="filter, such as 'colour=red', 'colour!=red', 'price<=50'; may be repeated (docs/filters.md)",
    ),
]
