"""Columns of a dataset: which one holds the images, which one the labels, and what the others become in the gallery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import datasets
import pyarrow as pa

from retrieval.errors import SourceError
from retrieval.images.gallery import RESERVED

Features = Mapping[str, Any]
"""Column -> feature, as in `datasets`."""
Kept = dict[str, tuple[str, Any]]
"""Attribute in the gallery -> (source column, its feature)."""


def is_image(kind: Any) -> bool:
    """Whether a feature is `datasets.Image`."""
    return isinstance(kind, datasets.Image)


def is_binary(kind: Any) -> bool:
    """Whether a feature holds bytes at any depth (images, audio, masks). Such a column cannot be an attribute."""
    if isinstance(kind, dict):
        return any(is_binary(inner) for inner in kind.values())
    if isinstance(kind, list | tuple):
        return any(is_binary(inner) for inner in kind)
    if isinstance(kind, datasets.Image | datasets.Audio | datasets.Video):
        return True
    inner = getattr(kind, "feature", None)
    return is_binary(inner) if inner is not None else "binary" in str(getattr(kind, "dtype", ""))


def image_column(name: str, features: Features, asked: str | None) -> str:
    """The column that holds the images: an Image feature, raw bytes, or a struct of bytes and path.

    Raises SourceError if there is none, or if the requested column holds no images.
    """

    def holds_bytes(kind: Any) -> bool:
        return "bytes" in kind if isinstance(kind, dict) else getattr(kind, "dtype", "") in {"binary", "large_binary"}

    found = [column for column, kind in features.items() if is_image(kind)]
    found += [column for column, kind in features.items() if holds_bytes(kind)]
    if asked is None and found:
        return found[0]
    if asked in found:
        return str(asked)
    what = "no image column" if asked is None else f"no image column {asked!r}"
    raise SourceError(f"{name} has {what}; its columns are {', '.join(features)} (choose one with --image-column).")


def label_column(name: str, features: Features, asked: str | None) -> str | None:
    """The requested column; otherwise `label`; otherwise the only ClassLabel column; otherwise None.

    Raises SourceError if the requested column does not exist or holds bytes.
    """
    if asked is not None and asked not in features:
        raise SourceError(f"{name} has no column {asked!r}; its columns are {', '.join(features) or 'none'}.")
    if asked is not None and is_binary(features[asked]):
        raise SourceError(f"the column {asked!r} of {name} contains images or other bytes, not labels.")
    if asked is not None or "label" in features:
        return asked or "label"
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    return classes[0] if len(classes) == 1 else None


def kept_columns(features: Features, label: str | None) -> Kept:
    """The columns that become attributes: all except images, other bytes, and a label column already named `label`.

    An attribute keeps its column's name; underscores are appended where the gallery reserves that name.
    """
    kept: Kept = {}
    for column, kind in features.items():
        if is_binary(kind) or column == label == "label":
            continue
        new = column
        while new in RESERVED or (new != column and new in features):
            new += "_"
        kept[new] = (column, kind)
    return kept


def attribute_schema(kept: Kept) -> pa.Schema:
    """Arrow types of the attributes in the gallery."""
    return pa.schema([(new, _arrow_type(kind)) for new, (_, kind) in kept.items()])


def attribute_value(value: Any, kind: Any) -> Any:
    """Convert a value for the gallery: class numbers to class names, nested values to JSON, the rest to plain types."""
    if value is None or isinstance(kind, datasets.ClassLabel):
        return label_text(value, kind)
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value) if pa.types.is_string(_arrow_type(kind)) else value


def label_text(value: Any, kind: Any) -> str | None:
    """A label as text (the class name for a class number); None if there is no label."""
    if isinstance(kind, datasets.ClassLabel) and isinstance(value, int):
        return str(kind.int2str(value)) if value >= 0 else None  # `datasets` writes -1 for "no label"
    missing = value is None or value != value  # NaN, which numpy and pandas write for a missing value
    return None if missing else str(value)


def _arrow_type(kind: Any) -> pa.DataType:
    """The gallery's Arrow type for a feature: int64, uint64, float64, bool, or string for everything else."""
    dtype = "string" if isinstance(kind, datasets.ClassLabel) else str(getattr(kind, "dtype", "string"))
    if dtype == "uint64":  # hashes may exceed the range of int64
        return pa.uint64()
    if dtype.startswith(("int", "uint")):
        return pa.int64()
    if dtype.startswith("float"):
        return pa.float64()
    return pa.bool_() if dtype == "bool" else pa.string()
