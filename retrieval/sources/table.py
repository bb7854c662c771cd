"""Datasets: parquet files, dataset folders and the Hub, read through `datasets`, streamed, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
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

    files = _Files(name, origin.builder, streams)
    classes = columns.class_names(kinds.get(label or ""))
    # A column of another kind was chosen by its type or its name: it may be the wrong one.
    notes = () if kinds[image].is_image else (f"{name}: the pictures are those of the column {image!r}",)
    fingerprint, listing = (of(origin.builder, split, image, label) for of in (origins.fingerprint, origins.listing))
    known: dict[str, Any] = {"notes": notes, "listing": listing, "seek": files.before, "count": files.total}
    return Source(rows, columns.attribute_schema(kept), fingerprint, files.stated(), classes, origin.about, **known)


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


class _Files:
    """The files of the splits of a dataset, which its `builder` of `datasets` names, and the `streams` of its rows."""

    def __init__(self, name: str, builder: Any, streams: Mapping[str, Any]) -> None:
        self._name, self._streams = name, streams
        self._known = builder.info.splits or {}
        data_files = builder.config.data_files or {}
        self._files = {split: [str(file) for file in data_files.get(split, [])] for split in streams}

    def stated(self) -> int | None:
        """Number of rows in the splits, from the dataset card or from local parquet footers; None if unknown."""
        if all(split in self._known and self._known[split].num_examples for split in self._files):
            return int(sum(self._known[split].num_examples for split in self._files))
        local = all(Path(file).is_file() for files in self._files.values() for file in files)
        return self.total() if local and self._files else None

    def total(self) -> int | None:
        """The same from the footers of the files, wherever they are: on the Hub, each is read. None if unknown."""
        return sum(map(sum, self._rows.values())) if self._rows else None

    def before(self, row: int) -> tuple[Any, int]:
        """The position at the start of the file with this row, and how many rows come between; see `Source.seek`."""
        left = row
        for split, counts in (self._rows or {}).items():
            number = 0
            for file, count in enumerate(counts):
                if left < count:
                    state = self._state_at(split, file)
                    return ({"split": split, "number": number - 1, "state": state}, left) if state else (None, row)
                number, left = number + count, left - count
        return None, row

    @cached_property
    def _rows(self) -> dict[str, list[int]] | None:
        """Split -> the number of rows of each file; None unless all are parquet files."""
        files = self._files.values()
        if not all(found and all(file.endswith(".parquet") for file in found) for found in files):
            return None
        try:
            return {split: [_rows_of(file) for file in found] for split, found in self._files.items()}
        except Exception as error:  # the network and a damaged file each raise their own
            raise origins.source_error(self._name, error) from error

    def _state_at(self, split: str, file: int) -> Any:
        """The state from `datasets` at the start of a file; None if it has a form that is not known."""
        stream = self._streams[split]
        stream.load_state_dict(None)
        next(origins.read(self._name, stream), None)  # before the first row there is no state
        state = stream.state_dict()
        batches = state.get("examples_iterable") or {}
        start = {**(batches.get("examples_iterable") or {}), "shard_idx": file, "shard_example_idx": 0}
        if start.get("type") != "ArrowExamplesIterable" or not {"previous_state", "batch_idx"} <= batches.keys():
            return None
        at = {"examples_iterable": start, "previous_state": start, "batch_idx": 0, "num_chunks_since_previous_state": 0}
        return {**state, "examples_iterable": {**batches, **at, "cropped_chunk_length": 0}}


def _rows_of(file: str) -> int:
    if "://" not in file:
        return int(pq.read_metadata(file).num_rows)
    from datasets.utils.file_utils import xopen

    with xopen(file, "rb") as opened:
        return int(pq.read_metadata(opened).num_rows)
