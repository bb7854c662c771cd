"""Which image of each group of near-duplicates to keep, and the list of what to keep and remove."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from retrieval.errors import QueryError
from retrieval.evaluation.across import Copy
from retrieval.evaluation.duplicates import Group
from retrieval.files.storing import writing_csv
from retrieval.images.gallery import Gallery
from retrieval.images.open import open_image
from retrieval.untrusted.cells import disarmed

Rule = Literal["first", "largest", "oldest"]


def kept_rows(groups: Sequence[Group], rule: Rule, gallery: Gallery, originals: Path | None = None) -> list[int]:
    """The row of each group to keep: the first, the largest in pixels, or the one whose file is the oldest.

    Of equal ones, the first is kept. An artifact knows neither the size nor the time of an original, so `largest` and
    `oldest` read them from the files in the folder `originals`, under the `source` of each row. Raises QueryError
    without that folder or if one of the files is missing, and ImageError if one cannot be read.
    """
    if rule == "first":
        return [group.rows[0] for group in groups]
    if originals is None:
        raise QueryError(
            f"--keep {rule} compares the original files, and an artifact has only thumbnails of them: add "
            "--originals with the folder that it was built from, or use --keep first."
        )
    best: Callable[[Path], float] = _pixels if rule == "largest" else lambda file: -file.stat().st_mtime
    return [max(group.rows, key=lambda row: best(_file_of(gallery, row, originals))) for group in groups]


def removed_rows(groups: Sequence[Group], kept: Sequence[int]) -> list[int]:
    """The other rows of the groups, ascending."""
    return sorted({row for group in groups for row in group.rows} - set(kept))


def write_csv(groups: Sequence[Group], gallery: Gallery, file: Path, kept: Sequence[int] | None = None) -> None:
    """Write one CSV line per row: group number (from 1), group size, `keep` or `remove`, id, label, source, similarity.

    `kept` is the row of each group to keep, by default its first.
    """
    with writing_csv(file) as writer:
        writer.writerows(lines_of(groups, gallery, kept))


def lines_of(groups: Sequence[Group], gallery: Gallery, kept: Sequence[int] | None = None) -> Iterator[list[Any]]:
    """The lines that `write_csv` writes, with the names of the columns first."""
    kept = [group.rows[0] for group in groups] if kept is None else kept
    yield ["group", "size", "action", "id", "label", "source", "cosine"]
    for number, (group, best) in enumerate(zip(groups, kept, strict=True), 1):
        for row, image, score in zip(group.rows, gallery.take(group.rows), group.scores, strict=True):
            action = "keep" if row == best else "remove"
            named = disarmed([image.id, image.label, image.source])
            yield [number, len(group.rows), action, *named, f"{score:.4f}"]


def write_copies(copies: Sequence[Copy], gallery: Gallery, reference: Gallery, file: Path) -> None:
    """Write one CSV line per pair: id, label and source of both images, and their similarity."""
    with writing_csv(file) as writer:
        names = ["id", "label", "source"]
        writer.writerow([*names, *(f"reference_{name}" for name in names), "cosine"])
        mine = gallery.take([copy.row for copy in copies])
        theirs = reference.take([copy.other for copy in copies])
        for one, other, copy in zip(mine, theirs, copies, strict=True):
            named = disarmed([one.id, one.label, one.source, other.id, other.label, other.source])
            writer.writerow([*named, f"{copy.score:.4f}"])


def _file_of(gallery: Gallery, row: int, originals: Path) -> Path:
    source = gallery.take([row])[0].source
    file = originals / source
    if not file.is_file():
        raise QueryError(
            f"{originals} has no file {source!r}, the source of image {gallery.ids[row]}: give --originals the folder "
            "that the artifact was built from, or use --keep first."
        )
    return file


def _pixels(file: Path) -> int:
    picture = open_image(file)
    return picture.width * picture.height
