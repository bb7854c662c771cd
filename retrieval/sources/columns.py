"""Columns of a dataset: which one holds the images, which one the labels, and what the others become in the gallery."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.utils.file_utils import xopen

from retrieval.console import say
from retrieval.errors import SourceError
from retrieval.images.gallery import RESERVED
from retrieval.images.scalars import as_written
from retrieval.sources.lists import names

Features = Mapping[str, Any]
"""Column -> feature, as in `datasets`."""
Kept = dict[str, tuple[str, Any]]
"""Attribute in the gallery -> (source column, its feature)."""
_NARROW: dict[str, type[np.floating[Any]]] = {"float16": np.float16, "float32": np.float32}


def is_image(kind: Any) -> bool:
    """Whether a feature is `datasets.Image`."""
    return isinstance(kind, datasets.Image)


def is_text(kind: Any) -> bool:
    """Whether a feature holds text."""
    return isinstance(kind, datasets.Value) and "string" in kind.dtype


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

    Otherwise a column of text that names them: the requested one, or one with such a name (`lists.names`). Raises
    SourceError if there is none, or if the requested column holds no images.
    """

    def holds_bytes(kind: Any) -> bool:
        return "bytes" in kind if isinstance(kind, dict) else getattr(kind, "dtype", "") in {"binary", "large_binary"}

    found = [column for column, kind in features.items() if is_image(kind)]
    raw = [column for column, kind in features.items() if holds_bytes(kind)]
    if asked is None and (found or raw):
        return found[0] if found else names.find(raw) or raw[0]
    found += raw
    texts = [column for column, kind in features.items() if is_text(kind)]
    if asked in (*found, *texts):
        return str(asked)
    if asked is None and (named := names.find(texts)):
        return named
    what = "no image column" if asked is None else f"no image column {asked!r}"
    raise SourceError(f"{name} has {what}; its columns are {', '.join(features)} (choose one with --image-column).")


def is_label(column: str) -> bool:
    """Whether a column is named `label`, in any capitals."""
    return column.strip().lower() == "label"


def label_column(name: str, features: Features, asked: str | None) -> str | None:
    """The requested column; otherwise `label`; otherwise the only ClassLabel column, or `Label` with any capitals.

    None if there is none of these.

    Raises SourceError if the requested column does not exist or holds bytes.
    """
    if asked is not None and asked not in features:
        raise SourceError(f"{name} has no column {asked!r}; its columns are {', '.join(features) or 'none'}.")
    if asked is not None and is_binary(features[asked]):
        raise SourceError(f"the column {asked!r} of {name} contains images or other bytes, not labels.")
    if asked is not None or "label" in features:
        return asked or "label"
    classes = [column for column, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(classes) != 1:
        classes = [column for column in features if is_label(column) and not is_binary(features[column])]
    return classes[0] if len(classes) == 1 else None


def kept_columns(features: Features, label: str | None) -> Kept:
    """The columns that become attributes: all except images, other bytes, and a label column named `label` or `Label`.

    An attribute keeps its column's name; underscores are appended where the gallery reserves that name.
    """
    kept: Kept = {}
    for column, kind in features.items():
        if is_binary(kind) or (column == label and is_label(column)):
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
    """Convert a value for the gallery: class numbers to class names, nested values to JSON, the rest to plain types.

    Lists of text, numbers or booleans stay lists. A float32 becomes the number that it is written as: 0.1, not
    0.10000000149011612. NaN, which numpy and pandas write for a missing value, becomes None.
    """
    if value is None or isinstance(kind, datasets.ClassLabel):
        return label_text(value, kind)
    if isinstance(value, float) and value != value:
        return None
    if (member := _member(kind)) is not None:
        return [attribute_value(one, member) for one in value]
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, float) and (narrow := _NARROW.get(kind.dtype)):
        return as_written(narrow(value))
    return _text(value) if pa.types.is_string(_arrow_type(kind)) else value


def label_text(value: Any, kind: Any) -> str | None:
    """A label as text (the class name for a class number); None if there is no label."""
    if isinstance(kind, datasets.ClassLabel) and isinstance(value, int):
        return _text(kind.int2str(value)) if value >= 0 else None  # `datasets` writes -1 for "no label"
    missing = value in (None, "") or value != value  # NaN, which numpy and pandas write for a missing value
    return None if missing else _text(value)


def class_names(kind: Any) -> tuple[str, ...]:
    """The labels that a feature declares, as `label_text` writes them."""
    return tuple(dict.fromkeys(map(_text, getattr(kind, "names", None) or ())))


def _text(value: Any) -> str:
    """A value as text in NFC: letters that look alike are the same, whichever system wrote them."""
    return unicodedata.normalize("NFC", str(value))


def streaming(name: str, builder: Any) -> Any:
    """The splits of a builder of `datasets`, streamed; without columns of maps in parquet, which have no type.

    Says which columns are left out. Raises what `datasets` raises.
    """
    try:
        return builder.as_streaming_dataset()
    except ValueError as error:
        if "does not have a datasets dtype" not in str(error):
            raise
    first = next(file for files in builder.config.data_files.values() for file in files)
    with xopen(first, "rb") as file:
        schema = pq.read_schema(file)
    left = [item for item in schema if not holds_map(item.type)]
    for item in schema:
        if item not in left:
            say(f"{name}: the column {item.name!r} is left out: it holds a map, which cannot be read")
    builder.config.columns = [item.name for item in left]
    builder.info.features = datasets.Features.from_arrow_schema(pa.schema(left, metadata=schema.metadata))
    return builder.as_streaming_dataset()


def holds_map(kind: pa.DataType) -> bool:
    """Whether a type is a map, or has one inside; `datasets` has no feature for it."""
    inner = (kind.field(place).type for place in range(kind.num_fields))
    return bool(pa.types.is_map(kind)) or any(map(holds_map, inner))


def _member(kind: Any) -> Any:
    """The feature of the members of a list of text, numbers or booleans; None for anything else."""
    inner = kind.feature if isinstance(kind, datasets.List | datasets.LargeList) else None
    return inner if isinstance(inner, datasets.Value | datasets.ClassLabel) else None


def _arrow_type(kind: Any) -> pa.DataType:
    """The gallery's Arrow type for a feature: int64, uint64, float64, bool, lists of these, or string for the rest."""
    if (member := _member(kind)) is not None:
        return pa.list_(_arrow_type(member))
    dtype = str(kind.dtype) if isinstance(kind, datasets.Value) else "string"
    if dtype == "uint64":  # hashes may exceed the range of int64
        return pa.uint64()
    if dtype.startswith(("int", "uint")):
        return pa.int64()
    if dtype.startswith("float"):
        return pa.float64()
    return pa.bool_() if dtype == "bool" else pa.string()
