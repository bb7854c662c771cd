"""Datasets: parquet files, dataset folders and the Hub, read through `datasets`, streamed, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import SourceError, short
from retrieval.sources import columns
from retrieval.sources import datasets as origins
from retrieval.sources.base import RawImage, Source

_OUTSIDE = "its path leads out of the dataset: put the file into the folder of the dataset, or store its bytes"


def data_set(origin: origins.Origin, image_column: str | None, label_column: str | None, split: str | None) -> Source:
    """The rows of a dataset; the columns are those of `open_source`. Raises SourceError."""
    name, root = origin.name, origin.root
    streams = origins.streams(name, origin.builder, split)
    features = _features(name, streams)
    image = columns.image_column(name, features, image_column)
    label = columns.label_column(name, features, label_column)
    kept = columns.kept_columns({column: kind for column, kind in features.items() if column != image}, label)

    def rows(after: Any = None) -> Iterator[RawImage]:
        for position, row in _positions(name, streams, after):
            value = row.get(image)
            value = value if isinstance(value, dict) else {"bytes": value}
            numbered = f"{position['split']}/{position['number']}"
            named, path = value.get("path") or "", _own_path(value.get("path"), root)
            outside = value.get("bytes") is None and named and not path
            yield RawImage(
                source=named.removeprefix(f"{root}/") or numbered,
                label=columns.label_text(row.get(label), features[label]) if label else None,
                attributes={
                    new: columns.attribute_value(row.get(column), kind) for new, (column, kind) in kept.items()
                },
                data=value.get("bytes"),
                path=path,
                problem=_OUTSIDE if outside else None,
                position=position,
            )

    fingerprint, total = (
        origins.fingerprint(origin.builder, split, image, label),
        origins.total(origin.builder, streams),
    )
    classes = tuple(getattr(features.get(label or ""), "names", None) or ())
    return Source(rows, columns.attribute_schema(kept), fingerprint, total, classes, origin.about)


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


def _own_path(path: str | None, root: str) -> str | None:
    """A row's path if it lies inside the dataset, else None: a row must not reach other files on this machine."""
    if not path:
        return None
    if root.startswith("hf://"):
        own = path.startswith(f"{root}/") and "::" not in path and ".." not in path.split("/")
        return path if own else None
    whole = Path(root, path).resolve()
    return str(whole) if whole.is_relative_to(Path(root).resolve()) else None
