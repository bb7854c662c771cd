"""What `list` shows of each image, and how it writes CSV."""

from __future__ import annotations

import csv as csv_files
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.errors import QueryError
from retrieval.files.storing import writing_csv
from retrieval.words import did_you_mean

if TYPE_CHECKING:
    from retrieval.arrays import Ids
    from retrieval.images.gallery import Gallery

_ALWAYS = ("id", "label", "source")


def chosen_attributes(gallery: Gallery, columns: str) -> list[str]:
    """The attributes in a comma-separated list; a name that contains a comma is in double quotes, as in CSV."""
    if columns == "*":
        return gallery.attributes
    named = [name.strip() for line in csv_files.reader([columns]) for name in line]
    chosen = [name for name in named if name not in _ALWAYS]
    for name in chosen:
        if name not in gallery.attributes:
            raise QueryError(f"the gallery has no attribute {name!r}; {did_you_mean(name, gallery.attributes)}")
    return chosen


def listed(image: dict[str, Any], chosen: list[str]) -> dict[str, Any]:
    """The id, label, source and chosen attributes of an image."""
    attributes = {name: image["attributes"][name] for name in chosen}
    return {**{name: image[name] for name in _ALWAYS}, "attributes": attributes}


def write_listed(file: str, gallery: Gallery, rows: Ids, chosen: list[str]) -> None:
    """Write a CSV of these rows; `-` is the standard output."""
    from retrieval.images.columns import as_texts
    from retrieval.untrusted.cells import disarmed

    names = [*_ALWAYS, *chosen]
    lines = map(disarmed, [names, *zip(*(as_texts(gallery, name, rows) for name in names), strict=True)])
    if file == "-":
        csv_files.writer(sys.stdout, lineterminator="\n").writerows(lines)
        return
    with writing_csv(Path(file)) as writer:
        writer.writerows(lines)
