"""Datasets: parquet files, dataset folders and the Hub, read through `datasets`, streamed, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from retrieval.errors import SourceError, short
from retrieval.sources import columns
from retrieval.sources import datasets as origins
from retrieval.sources.base import RawImage, Source
from retrieval.sources.features import kinds_of_features
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
    total = _total(origin.builder, streams)
    classes = columns.class_names(kinds.get(label or ""))
    # A column of another kind was chosen by its type or its name: it may be the wrong one.
    notes = () if kinds[image].is_image else (f"{name}: the pictures are those of the column {image!r}",)
    listing = origins.listing(origin.builder, split, image, label)
    counts = _rows_of_files(origin.builder, streams)
    seek = partial(_before, name, streams, counts) if counts else None
    schema, about = columns.attribute_schema(kept), origin.about
    return Source(rows, schema, fingerprint, total, classes, about, notes=notes, listing=listing, seek=seek)


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


def _rows_of_files(builder: Any, names: Iterable[str]) -> dict[str, list[int]] | None:
    """Split -> the number of rows of each of its files, if all are parquet files on this disk; None otherwise."""
    files = {name: [Path(file) for file in (builder.config.data_files or {}).get(name, [])] for name in names}
    if not all(found and all(f.suffix == ".parquet" and f.is_file() for f in found) for found in files.values()):
        return None
    return {name: [pq.read_metadata(file).num_rows for file in found] for name, found in files.items()}


def _total(builder: Any, names: Iterable[str]) -> int | None:
    """Number of rows in the splits, from the dataset card or from local parquet footers; None if unknown."""
    known, splits = builder.info.splits or {}, list(names)
    if all(name in known and known[name].num_examples for name in splits):
        return int(sum(known[name].num_examples for name in splits))
    rows = _rows_of_files(builder, splits)
    return sum(sum(counts) for counts in rows.values()) if rows else None


def _before(name: str, streams: Mapping[str, Any], counts: Mapping[str, list[int]], row: int) -> tuple[Any, int]:
    """The position at the start of the file with this row, and how many rows come between; see `Source.seek`."""
    left = row
    for split, files in counts.items():
        number = 0
        for file, count in enumerate(files):
            if left < count:
                state = _at_file(name, streams[split], file)
                return ({"split": split, "number": number - 1, "state": state}, left) if state else (None, row)
            number, left = number + count, left - count
    return None, row


def _at_file(name: str, stream: Any, file: int) -> Any:
    """The state from `datasets` at the start of a file of a stream; None if it has a form that is not known."""
    stream.load_state_dict(None)
    next(origins.read(name, stream), None)  # before the first row there is no state
    state = stream.state_dict()
    batches = state.get("examples_iterable") or {}
    start = {**(batches.get("examples_iterable") or {}), "shard_idx": file, "shard_example_idx": 0}
    if start.get("type") != "ArrowExamplesIterable" or not {"previous_state", "batch_idx"} <= batches.keys():
        return None
    at = {"examples_iterable": start, "previous_state": start, "batch_idx": 0, "num_chunks_since_previous_state": 0}
    return {**state, "examples_iterable": {**batches, **at, "cropped_chunk_length": 0}}


def _with_picture(raw: RawImage, cell: Any, place: Place) -> RawImage:
    """The row with the picture of its cell: bytes, a struct of bytes and path, or text."""
    value = cell if isinstance(cell, dict) else {"path" if isinstance(cell, str) else "bytes": cell}
    path, data = value.get("path"), value.get("bytes")
    if data is not None:
        return replace(raw, source=(path or "").removeprefix(f"{place.root}/") or raw.source, data=data)
    if not path:
        return raw
    return place.resolve(path, replace(raw, row=f"row {raw.position['number'] + 1}"))
