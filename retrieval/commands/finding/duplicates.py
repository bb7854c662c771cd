"""What `duplicates` does once its options are read: find, print, write a list, remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from retrieval.artifact.layout import LAYOUT
from retrieval.commands.paths import check_artifact, check_source
from retrieval.commands.printing import Bar, noted, one_line, print_json
from retrieval.console import say
from retrieval.errors import QueryError
from retrieval.hub.references import is_reference
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.artifact.load import Artifact
    from retrieval.evaluation.across import Copy
    from retrieval.evaluation.duplicates import Group
    from retrieval.images.gallery import Gallery, Row

_LARGEST = 10  # most groups printed, and most images of each
_PAIRS = 100  # most pairs printed


@dataclass(frozen=True)
class Wanted:
    """The options of the command."""

    artifact: str
    threshold: float
    also: Sequence[str]
    against: str | None
    keep: Literal["first", "largest", "oldest"]
    originals: Path | None
    csv: Path | None
    remove: bool
    dry_run: bool
    as_json: bool
    sha256: str | None


def find_and_print(wanted: Wanted) -> None:
    """Find near-duplicates, print or write them, and remove them from the artifact if asked."""
    _check(wanted)
    from retrieval.hub.pull import open_artifact

    opened = open_artifact(wanted.artifact, sha256=wanted.sha256)
    gone = _across(wanted, opened) if wanted.against else _within(wanted, opened)
    if wanted.remove:
        _remove(wanted, opened, gone)


def _check(wanted: Wanted) -> None:
    """Raise QueryError or SourceError for options that cannot work, before anything slow."""
    from retrieval.evaluation.duplicates import check_threshold
    from retrieval.evaluation.variants import check_kinds

    check_threshold(wanted.threshold)
    check_kinds(wanted.also)
    if wanted.dry_run and not wanted.remove:
        raise QueryError("--dry-run only has a meaning with --remove-from-artifact.")
    if wanted.remove and is_reference(wanted.artifact):
        raise QueryError(
            f"--remove-from-artifact changes a local folder, and {wanted.artifact} is on the Hub: pull it."
        )
    if wanted.against and wanted.keep != "first":
        raise QueryError("--keep chooses one image of each group; with --against, there are pairs instead of groups.")
    if wanted.originals and not wanted.originals.is_dir():
        raise QueryError(f"--originals takes a folder, and {wanted.originals} is none.")
    if wanted.against:
        (check_artifact if _is_artifact(wanted.against) else check_source)(wanted.against)


def _is_artifact(name: str) -> bool:
    folder = Path(name).expanduser()
    return (folder / LAYOUT.manifest).is_file() and bool(LAYOUT.gallery_in(folder))


def _within(wanted: Wanted, opened: Artifact) -> list[int]:
    """Groups of near-duplicates; returns the rows to remove."""
    from retrieval.evaluation.keep import kept_rows, removed_rows, write_csv
    from retrieval.search import find_duplicates

    _announce(wanted, len(opened.gallery))
    with Bar() as bar:
        groups = find_duplicates(opened, wanted.threshold, bar, also=wanted.also)
    kept = kept_rows(groups, wanted.keep, opened.gallery, wanted.originals)
    if wanted.csv:
        write_csv(groups, opened.gallery, wanted.csv, kept)
    if wanted.as_json:
        print_json([_listed(group, best, opened.gallery) for group, best in zip(groups, kept, strict=True)])
    else:
        _print_groups(groups, kept, opened.gallery)
    return removed_rows(groups, kept)


def _announce(wanted: Wanted, images: int) -> None:
    """Say what `--also` compares: it takes long for many images."""
    from retrieval.evaluation.variants import versions

    if wanted.also:
        say(f"comparing {counted(images, 'image')} with {counted(versions(wanted.also), 'changed version')} each")


def _print_groups(groups: Sequence[Group], kept: Sequence[int], gallery: Gallery) -> None:
    more = sum(len(group.rows) - 1 for group in groups)
    found = f"{counted(len(gallery), 'image')}, {counted(len(groups), 'group')} of near-duplicates"
    print(f"{found}, {counted(more, 'image')} beyond the first of each group")
    for number, (group, best) in enumerate(zip(groups[:_LARGEST], kept, strict=False), 1):
        print(f"\ngroup {number}, {len(group.rows)} images")
        for image in _listed(group, best, gallery)["images"][:_LARGEST]:
            named = f"{image['id']}  {image['label'] or '-':<20}  {image['source']}"
            print(one_line(f"{image['action']:<6}  {image['cosine']:.4f}  {named}"))


def _listed(group: Group, best: int, gallery: Gallery) -> dict[str, Any]:
    """A group as JSON, its first image first."""
    images = [
        {**_named(image), "cosine": round(score, 4), "action": "keep" if row == best else "remove"}
        for row, image, score in zip(group.rows, gallery.take(group.rows), group.scores, strict=True)
    ]
    return {"size": len(images), "images": images}


def _named(image: Row) -> dict[str, Any]:
    return {"id": image.id, "label": image.label, "source": image.source}


def _across(wanted: Wanted, opened: Artifact) -> list[int]:
    """Pairs with a reference; returns the rows that have one."""
    from retrieval.build.reference import embedded
    from retrieval.hub.pull import open_artifact
    from retrieval.search import find_copies
    from retrieval.sources.open import open_source

    name = str(wanted.against)
    _announce(wanted, len(opened.gallery))
    if _is_artifact(name):
        reference = open_artifact(name)
        with Bar() as bar:
            copies = find_copies(opened, reference, wanted.threshold, bar, also=wanted.also)
        _print_copies(wanted, copies, opened.gallery, reference.gallery)
        return sorted({copy.row for copy in copies})
    source = noted(open_source(name))
    say(f"embedding {name} with {opened.encoder.name}")
    with Bar() as bar, embedded(source, opened.encoder, bar) as made:
        for skipped, reason in made.report.skipped:
            say(one_line(f"skipped {skipped}: {reason}"))
        copies = find_copies(opened, made, wanted.threshold, also=wanted.also)
        _print_copies(wanted, copies, opened.gallery, made.gallery)
    return sorted({copy.row for copy in copies})


def _print_copies(wanted: Wanted, copies: Sequence[Copy], gallery: Gallery, reference: Gallery) -> None:
    from retrieval.evaluation.keep import write_copies

    if wanted.csv:
        write_copies(copies, gallery, reference, wanted.csv)
    mine, theirs = gallery.take([copy.row for copy in copies]), reference.take([copy.other for copy in copies])
    pairs = list(zip(mine, theirs, copies, strict=True))
    if wanted.as_json:
        print_json([{**_named(a), "reference": _named(b), "cosine": round(c.score, 4)} for a, b, c in pairs])
        return
    rows = len({copy.row for copy in copies})
    print(f"{rows:,} of {counted(len(gallery), 'image')} are near-duplicates of the reference's {len(reference):,}")
    for one, other, copy in pairs[:_PAIRS]:
        print(one_line(f"{copy.score:.4f}  {one.id}  {one.label or '-':<20}  {one.source}  =  {other.source}"))
    if len(pairs) > _PAIRS:
        print(f"and {counted(len(pairs) - _PAIRS, 'pair')} more; --csv FILE writes all of them")


def _remove(wanted: Wanted, opened: Artifact, rows: Sequence[int]) -> None:
    say_it = say if wanted.as_json else print
    if not rows:
        say_it("there is nothing to remove")
    elif len(rows) == len(opened.gallery):
        raise QueryError(f"this would remove all {len(rows):,} images; an artifact must keep at least one.")
    elif wanted.dry_run:
        say_it(f"would remove {len(rows):,} of {counted(len(opened.gallery), 'image')} from {wanted.artifact}")
    else:
        from retrieval.build.change import remove_images

        left = remove_images(wanted.artifact, [opened.gallery.ids[row] for row in rows])
        count = f"{counted(len(rows), 'image')} removed from {wanted.artifact}, {len(left.gallery):,} left"
        say_it(f"{count}; no file was deleted")
