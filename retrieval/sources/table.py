"""Datasets: parquet files, dataset folders and the Hub, read through `datasets`, streamed, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from retrieval.errors import SourceError, short
from retrieval.sources import columns
from retrieval.sources import datasets as origins
from retrieval.sources.base import RawImage, Source
from retrieval.sources.features import kinds_of_features
from retrieval.sources.files import Files
from retrieval.sources.lists import names
from retrieval.sources.lists.cells import Place
from retrieval.sources.lists.fetch import Fetcher


def data_set(
    origin: origins.Origin,
    image_column: str | None,
    label_column: str | None,
    split: str | None,
    *,
    is_own: bool = False,
    allow_private: bool = False,
) -> Source:
    """The rows of a dataset; the columns are those of `open_source`. Raises SourceError.

    With `is_own`, a column of text may name any file: the user wrote it. A stranger's must not reach this machine's.
    """
    name, root = origin.name, origin.root
    streams = origins.streams(name, origin.builder, split)
    kinds = kinds_of_features(_features(name, streams))
    image = columns.image_column(name, kinds, image_column)
    label = columns.label_column(name, kinds, label_column)
    place = Place(root, Fetcher(allow_private), is_own and kinds[image].is_text, names.is_base64(image))
    kept = columns.kept_columns({column: kind for column, kind in kinds.items() if column != image}, label)

    def rows(after: Any = None) -> Iterator[RawImage]:
        for position, row in _positions(name, streams, after):
            raw = RawImage(
                source=f"{position['split']}/{position['number']}",
                label=columns.label_text(row.get(label), kinds[label]) if label else None,
                attributes={
                    new: columns.attribute_value(row.get(column), kind) for new, (column, kind) in kept.items()
                },
                position=position,
            )
            yield _with_picture(raw, row.get(image), place)

    fingerprint = origins.fingerprint(origin.builder, split, image, label)
    files = Files(name, origin.builder, streams)
    total = files.stated()
    classes = columns.class_names(kinds.get(label or ""))
    # A column of another kind was chosen by its type or its name: it may be the wrong one.
    notes = () if kinds[image].is_image else (f"{name}: the pictures are those of the column {image!r}",)
    listing = origins.listing(origin.builder, split, image, label)
    schema, about = columns.attribute_schema(kept), origin.about
    return Source(
        rows,
        schema,
        fingerprint,
        total,
        classes,
        about,
        notes=notes,
        listing=listing,
        seek=files.before,
        count=files.total,
    )


def _features(name: str, streams: Mapping[str, Any]) -> dict[str, Any]:
    """Column -> feature over all splits; raises SourceError if two splits disagree."""
    features: dict[str, Any] = {}
    first: dict[str, str] = {}
    for split, stream in streams.items():
        for column, kind in (stream.features or {}).items():
            if features.setdefault(column, kind) != kind:
                raise SourceError(
                    f"{name} cannot be read: the column {column!r} is {short(str(features[column]), 100)} in the split "
                    f"{first[column]} and {short(str(kind), 100)} in {split}. Choose one with --split."
                )
            first.setdefault(column, split)
    return features


def _positions(name: str, streams: Mapping[str, Any], after: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each row after a position, preceded by its own: split, number in the split, and the state from `datasets`."""
    splits = list(streams)
    for split in splits[splits.index(after["split"]) if after else 0 :]:
        number, state = (after["number"], after["state"]) if after and after["split"] == split else (-1, None)
        streams[split].load_state_dict(state)
        for row in origins.read(name, streams[split]):
            number += 1
            yield {"split": split, "number": number, "state": streams[split].state_dict()}, row


def _with_picture(raw: RawImage, cell: Any, place: Place) -> RawImage:
    """The row with the picture of its cell: bytes, a struct of bytes and path, or text."""
    value = cell if isinstance(cell, dict) else {"path" if isinstance(cell, str) else "bytes": cell}
    path, data = value.get("path"), value.get("bytes")
    if data is not None:
        return replace(raw, source=(path or "").removeprefix(f"{place.root}/") or raw.source, data=data)
    if not path:
        return raw
    return place.resolve(path, replace(raw, row=f"row {raw.position['number'] + 1}"))
