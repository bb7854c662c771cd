"""Commands that search an artifact, and find its near-duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retrieval.commands import options
from retrieval.commands.finding.batch import files_in, hits_as_json, print_searches
from retrieval.commands.paths import check_artifact
from retrieval.commands.printing import print_json
from retrieval.console import say
from retrieval.errors import QueryError

if TYPE_CHECKING:
    from retrieval.images.regions import Region
    from retrieval.search import Hit

commands = typer.Typer()
PartOfImage = Annotated[
    str | None,
    typer.Option(
        metavar="L,T,R,B", help="the part of IMAGE to search with: left, top, right, bottom, each from 0 to 1"
    ),
]
Words = Annotated[
    str | None, typer.Option(metavar="WORDS", help="words to search for; needs an artifact with a text model")
]
Like = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="id of a gallery image to be similar to; may be repeated")
]
Unlike = Annotated[
    list[str] | None, typer.Option(metavar="ID", help="id of a gallery image to be dissimilar to; may be repeated")
]
Also = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="changed copies to find too: mirrored, rotated, grey, border, crop"),
]
Against = Annotated[
    str | None, typer.Option(metavar="DIR2", help="instead, find copies of the images of an artifact or any SOURCE")
]
Keep = Annotated[
    Literal["first", "largest", "oldest"],
    typer.Option(help="the image of each group to keep; largest and oldest need --originals"),
]
Originals = Annotated[Path | None, typer.Option(metavar="FOLDER", help="the folder that DIR was built from")]


@commands.command()
def search(
    artifact: options.AnyArtifact,
    image: Annotated[str | None, typer.Argument(metavar="IMAGE", help="an image file")] = None,
    region: PartOfImage = None,
    text: Words = None,
    like: Like = None,
    unlike: Unlike = None,
    fold: Annotated[bool, typer.Option("--fold", help="fold near-duplicates into one hit")] = False,
    k: Annotated[int, typer.Option("-k", metavar="K", help="number of hits")] = 5,
    min_score: Annotated[float, typer.Option(metavar="COSINE", help="lowest cosine similarity; -1: all")] = -1.0,
    where: options.WhereConditions = None,
    group_by: Annotated[str | None, typer.Option(metavar="COLUMN", help="show each value of a column once")] = None,
    as_json: options.AsJson = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="search with every image of the folder IMAGE")] = False,
    sha256: options.Sha256 = None,
    store: options.StoreAt = None,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Find images similar to a picture, other images, or words."""
    check_artifact(artifact)
    box = _region(region, image)
    from retrieval.images.filters import parse_where

    wanted = parse_where(where or [])
    files = files_in(image) if jsonl else []
    _check_image(None if jsonl else image)
    from retrieval.search import Searcher

    searcher = Searcher.open(artifact, sha256=sha256)
    find = partial(
        searcher.search, k=k, words=text or "", like=like or [], unlike=unlike or [], region=box, where=wanted,
        fold=fold, group_by=group_by, min_score=min_score,
    )  # fmt: skip
    if image and jsonl:
        searcher.gallery.rows_where(wanted)  # fail before the first line
        print_searches(image, files, find, searcher.gallery)
    elif as_json:
        print_json(hits_as_json(find(image), searcher.gallery))
    else:
        _print_hits(find(image))


@commands.command()
def duplicates(
    artifact: options.AnyArtifact,
    threshold: Annotated[float, typer.Option(metavar="COSINE", help="lowest cosine similarity, from 0.6 to 1")] = 0.6,
    also: Also = None,
    against: Against = None,
    keep: Keep = "first",
    originals: Originals = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="write all groups or pairs to this file")] = None,
    remove: Annotated[
        bool, typer.Option("--remove-from-artifact", help="remove them from DIR; files are never deleted")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="with --remove-from-artifact: only say what it would do")
    ] = False,
    as_json: options.AsJson = False,
    sha256: options.Sha256 = None,
    engine: options.Engine = None,
    device: options.Device = None,
) -> None:
    """Find groups of near-duplicates."""
    check_artifact(artifact)
    kinds = [kind.strip() for kind in (also or "").split(",") if kind.strip()]
    from retrieval.commands.finding.duplicates import Wanted, find_and_print

    find_and_print(Wanted(artifact, threshold, kinds, against, keep, originals, csv, remove, dry_run, as_json, sha256))


def _check_image(image: str | None) -> None:
    """Raise QueryError or ImageError unless an image is a file, before torch is imported, which takes seconds."""
    if not image:
        return
    if Path(image).is_dir():
        raise QueryError(f"{image} is a folder; add --jsonl to search with every image in it.")
    from retrieval.images.door.files import read_bytes

    read_bytes(image)


def _print_hits(hits: Sequence[Hit]) -> None:
    for line in lines_of(hits):
        print(line)
    if hits and hits[0].confident is False:
        say("no confident match: showing the closest images anyway")


def lines_of(hits: Sequence[Hit]) -> Iterator[str]:
    """One line per hit: cosine, match probability if known, id, label, source, and the number of folded duplicates."""
    from retrieval.evaluation.confidence import percent

    known = any(hit.chance is not None for hit in hits)
    for hit in hits:
        chance = "-" if hit.chance is None else f"{percent(hit.chance)}%"
        alike = [f"+{len(hit.alike)} alike"] if hit.alike else []
        numbers = [f"{hit.score:.4f}", *([f"{chance:>3}"] if known else [])]
        yield "  ".join([*numbers, hit.id, f"{hit.label or '-':<20}", hit.source, *alike])


def _region(text: str | None, image: str | None) -> Region | None:
    if text is None:
        return None
    if not image:
        raise QueryError("--region selects a part of IMAGE, but no IMAGE was given.")
    from retrieval.images.regions import as_region

    try:
        return as_region([float(share) for share in text.split(",")])
    except ValueError as error:
        raise QueryError(f"a region is LEFT,TOP,RIGHT,BOTTOM, each from 0 to 1, not {text!r}.") from error
