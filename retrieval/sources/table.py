"""Datasets: parquet files, dataset folders and the Hub, read through `datasets`, streamed, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrieval.sources import columns
from retrieval.sources import datasets as origins
from retrieval.sources.base import RawImage, Source
from retrieval.sources.originals import original_in


def data_set(origin: origins.Origin, image_column: str | None, label_column: str | None, split: str | None) -> Source:
    """The rows of a dataset; the columns are those of `open_source`. Raises SourceError."""
    name, root = origin.name, origin.root
    streams = origins.streams(name, origin.builder, split)
    features = dict(next(iter(streams.values())).features or {})
    image = columns.image_column(name, features, image_column)
    label = columns.label_column(name, features, label_column)
    kept = columns.kept_columns({column: kind for column, kind in features.items() if column != image}, label)

    def rows(after: Any = None) -> Iterator[RawImage]:
        for position, row in _positions(name, streams, after):
            value = row[image] if isinstance(row[image], dict) else {"bytes": row[image]}
            numbered, data = f"{position['split']}/{position['number']}", value.get("bytes")
            path = _own_path(value.get("path"), root)
            yield RawImage(
                source=(value.get("path") or "").removeprefix(f"{root}/") or numbered,
                label=columns.label_text(row[label], features[label]) if label else None,
                attributes={
                    new: columns.attribute_value(row.get(column), kind) for new, (column, kind) in kept.items()
                },
                data=data,
                path=path,
                position=position,
                original=None if data else original_in(path, root),
            )

    fingerprint, total = (
        origins.fingerprint(origin.builder, split, image, label),
        origins.total(origin.builder, streams),
    )
    classes = tuple(getattr(features.get(label or ""), "names", None) or ())
    return Source(rows, columns.attribute_schema(kept), fingerprint, total, classes, origin.about)


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
