"""Columns: which of a data set's holds the images, which the labels, and what the others become in the gallery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import datasets
import pyarrow as pa

from retrieval.errors import SourceError
from retrieval.images.gallery import RESERVED

Features = Mapping[str, Any]
"""Column -> feature, as `datasets` has them."""
Kept = dict[str, tuple[str, Any]]
"""Attribute in the gallery -> column of the source and its feature."""


def is_image(kind: Any) -> bool:
    """Whether a feature is one of images."""
    return isinstance(kind, datasets.Image)


def is_binary(kind: Any) -> bool:
    """Whether a feature holds bytes at any depth: pictures, sound, masks. Such a column is no attribute."""
    if isinstance(kind, dict):
        return any(is_binary(inner) for inner in kind.values())
    if isinstance(kind, list | tuple):
        return any(is_binary(inner) for inner in kind)
    if isinstance(kind, datasets.Image | datasets.Audio | datasets.Video):
        return True
    inner = getattr(kind, "feature", None)
    return is_binary(inner) if inner is not None else "binary" in str(getattr(kind, "dtype", ""))


def image_column(name: str, features: Features, asked: str | None) -> str:
    """The column that holds the images: an Image feature, or plain bytes, or a struct of bytes and path."""

    def holds_bytes(kind: Any) -> bool:
        return "bytes" in kind if isinstance(kind, dict) else getattr(kind, "dtype", "") in {"binary", "large_binary"}

    found = [column for column, kind in features.items() if is_image(kind)]
    found += [column for column, kind in features.items() if holds_bytes(kind)]
    if asked is None and found:
        return found[0]
    if asked in found:
        return str(asked)
    what = "no column of images" if asked is None else f"no column of images called {asked!r}"
    raise SourceError(f"{name} has {what}; its columns are {', '.join(features)} (--image-column names one).")


def label_column(name: str, features: Features, asked: str | None) -> str | None:
    """The column asked for; else `label`; else the only one that is a ClassLabel; else none."""
    if asked is not None and asked not in features:
        raise SourceError(f"{name} has no column {asked!r}; its columns are {', '.join(features) or 'none'}.")
    if asked is not None and is_binary(features[asked]):
        raise SourceError(f"{name} has no labels in its column {asked!r}, but images or other bytes.")
    if asked is not None or "label" in features:
        return asked or "label"
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    return classes[0] if len(classes) == 1 else None


def kept_columns(features: Features, label: str | None) -> Kept:
    """The columns that become attributes: all but pictures, other bytes, and a label that is called so anyway.

    An attribute is called as its column is, with underscores where the gallery uses that name itself.
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
    """The types that the attributes have in the gallery."""
    return pa.schema([(new, _arrow_type(kind)) for new, (_, kind) in kept.items()])


def attribute_value(value: Any, kind: Any) -> Any:
    """A plain value for the gallery: class names for class numbers, numbers, text; JSON for what is nested."""
    if value is None or isinstance(kind, datasets.ClassLabel):
        return label_text(value, kind)
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value) if pa.types.is_string(_arrow_type(kind)) else value


def label_text(value: Any, kind: Any) -> str | None:
    """A label as text: the class name of a class number; None where there is none."""
    if isinstance(kind, datasets.ClassLabel) and isinstance(value, int):
        return str(kind.int2str(value)) if value >= 0 else None  # -1 stands for "no label" in datasets
    missing = value is None or value != value  # NaN, which numpy and pandas write for it
    return None if missing else str(value)


def _arrow_type(kind: Any) -> pa.DataType:
    """The gallery's type for a feature: int64, float64, bool, or string for all the rest."""
    dtype = "string" if isinstance(kind, datasets.ClassLabel) else str(getattr(kind, "dtype", "string"))
    if dtype == "uint64":  # hashes, which can be above what int64 holds
        return pa.uint64()
    if dtype.startswith(("int", "uint")):
        return pa.int64()
    if dtype.startswith("float"):
        return pa.float64()
    return pa.bool_() if dtype == "bool" else pa.string()
