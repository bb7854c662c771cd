"""Columns of a dataset: which one holds the images, which one the labels, and what the others become in the gallery."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.errors import SourceError
from retrieval.images.gallery import RESERVED
from retrieval.images.scalars import as_written
from retrieval.sources.lists import names

_NARROW: dict[pa.DataType, type[np.floating[Any]]] = {pa.float16(): np.float16, pa.float32(): np.float32}


@dataclass(frozen=True)
class Kind:
    """What a column holds."""

    type: pa.DataType
    """Its type in Arrow."""
    feature: str = ""
    """What its values are, if `datasets` says more than the type: `Image`, `ClassLabel` and others."""
    names: tuple[str, ...] = ()
    """The names of classes, which are stored as numbers; also those of a list of classes."""

    @property
    def is_image(self) -> bool:
        """Whether `datasets` says that this column holds images."""
        return self.feature == "Image"

    @property
    def is_class(self) -> bool:
        """Whether this column holds classes, as numbers."""
        return self.feature == "ClassLabel"

    @property
    def is_text(self) -> bool:
        """Whether this column holds text."""
        return not self.feature and _is_text(self.type)

    @property
    def holds_bytes(self) -> bool:
        """Whether this column may hold the bytes of images, as they are or in a struct."""
        if pa.types.is_struct(self.type) and not self.feature:
            return bool(self.type.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(self.type) or pa.types.is_large_binary(self.type))


Kinds = Mapping[str, Kind]
"""Column -> what it holds."""
Kept = dict[str, tuple[str, Kind]]
"""Attribute in the gallery -> (source column, what it holds)."""


def kinds_of(types: Mapping[str, pa.DataType]) -> dict[str, Kind]:
    """Column -> what it holds, from its type alone."""
    return {column: Kind(kind) for column, kind in types.items()}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Whether a type holds bytes at any depth (images, audio, masks). Such a column cannot be an attribute."""
    return "binary" in str(kind) if not kind.num_fields else any(is_binary(inner) for inner in _inside(kind))


def image_column(name: str, kinds: Kinds, asked: str | None) -> str:
    """The column that holds the images: an Image feature, raw bytes, or a struct of bytes and path.

    Otherwise a column of text that names them: the requested one, or one with such a name (`lists.names`). Raises
    SourceError if there is none, or if the requested column holds no images.
    """
    found = [column for column, kind in kinds.items() if kind.is_image]
    raw = [column for column, kind in kinds.items() if kind.holds_bytes]
    if asked is None and (found or raw):
        return found[0] if found else names.find(raw) or raw[0]
    found += raw
    texts = [column for column, kind in kinds.items() if kind.is_text]
    if asked in (*found, *texts):
        return str(asked)
    if asked is None and (named := names.find(texts)):
        return named
    what = "no image column" if asked is None else f"no image column {asked!r}"
    raise SourceError(f"{name} has {what}; its columns are {', '.join(kinds)} (choose one with --image-column).")


def is_label(column: str) -> bool:
    """Whether a column is named `label`, in any capitals."""
    return column.strip().lower() == "label"


def label_column(name: str, kinds: Kinds, asked: str | None) -> str | None:
    """The requested column; otherwise `label`; otherwise the only ClassLabel column, or `Label` with any capitals.

    None if there is none of these.

    Raises SourceError if the requested column does not exist or holds bytes.
    """
    if asked is not None and asked not in kinds:
        raise SourceError(f"{name} has no column {asked!r}; its columns are {', '.join(kinds) or 'none'}.")
    if asked is not None and is_binary(kinds[asked].type):
        raise SourceError(f"the column {asked!r} of {name} contains images or other bytes, not labels.")
    if asked is not None or "label" in kinds:
        return asked or "label"
    classes = [column for column, kind in kinds.items() if kind.is_class]
    if len(classes) != 1:
        classes = [column for column in kinds if is_label(column) and not is_binary(kinds[column].type)]
    return classes[0] if len(classes) == 1 else None


def kept_columns(kinds: Kinds, label: str | None) -> Kept:
    """The columns that become attributes: all except images, other bytes, and a label column named `label` or `Label`.

    An attribute keeps its column's name; underscores are appended where the gallery reserves that name.
    """
    kept: Kept = {}
    for column, kind in kinds.items():
        if is_binary(kind.type) or (column == label and is_label(column)):
            continue
        new = column
        while new in RESERVED or (new != column and new in kinds):
            new += "_"
        kept[new] = (column, kind)
    return kept


def attribute_schema(kept: Kept) -> pa.Schema:
    """Arrow types of the attributes in the gallery."""
    return pa.schema([(new, _arrow_type(kind)) for new, (_, kind) in kept.items()])


def attribute_value(value: Any, kind: Kind) -> Any:
    """Convert a value for the gallery: class numbers to class names, nested values to JSON, the rest to plain types.

    Lists of text, numbers or booleans stay lists. A float32 becomes the number that it is written as: 0.1, not
    0.10000000149011612. NaN, which numpy and pandas write for a missing value, becomes None.
    """
    if value is None or kind.is_class:
        return label_text(value, kind)
    if isinstance(value, float) and value != value:
        return None
    if (member := _member(kind)) is not None:
        return [attribute_value(one, member) for one in value]
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, float) and (narrow := _NARROW.get(kind.type)):
        return as_written(narrow(value))
    return _text(value) if pa.types.is_string(_arrow_type(kind)) else value


def label_text(value: Any, kind: Kind) -> str | None:
    """A label as text (the class name for a class number); None if there is no label."""
    if kind.is_class and isinstance(value, int):
        return _text(_name(value, kind.names)) if value >= 0 else None  # `datasets` writes -1 for "no label"
    missing = value in (None, "") or value != value  # NaN, which numpy and pandas write for a missing value
    return None if missing else _text(value)


def _name(number: int, names: tuple[str, ...]) -> str:
    if number >= len(names):
        raise ValueError(f"there is no class {number}, as {len(names)} are named")
    return names[number]


def class_names(kind: Kind | None) -> tuple[str, ...]:
    """The labels that a column of classes declares, as `label_text` writes them."""
    return tuple(dict.fromkeys(map(_text, kind.names))) if kind and kind.is_class else ()


def _text(value: Any) -> str:
    """A value as text in NFC: letters that look alike are the same, whichever system wrote them."""
    return unicodedata.normalize("NFC", str(value))


def holds_map(kind: pa.DataType) -> bool:
    """Whether a type is a map, or has one inside; `datasets` has no feature for it."""
    return bool(pa.types.is_map(kind)) or any(map(holds_map, _inside(kind)))


def _inside(kind: pa.DataType) -> list[pa.DataType]:
    return [kind.field(place).type for place in range(kind.num_fields)]


def _member(kind: Kind) -> Kind | None:
    """What the members of a list of text, numbers, booleans or classes are; None for anything else."""
    if not any(of(kind.type) for of in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        return None
    inner = kind.type.value_type
    if inner.num_fields or isinstance(inner, pa.BaseExtensionType):
        return None
    return Kind(inner, "ClassLabel" if kind.names else "", kind.names)


def _arrow_type(kind: Kind) -> pa.DataType:
    """The gallery's Arrow type for a column: int64, uint64, float64, bool, lists of these, or string for the rest."""
    if (member := _member(kind)) is not None:
        return pa.list_(_arrow_type(member))
    if kind.feature:
        return pa.string()
    if kind.type == pa.uint64():  # hashes may exceed the range of int64
        return pa.uint64()
    if pa.types.is_integer(kind.type):
        return pa.int64()
    if pa.types.is_floating(kind.type):
        return pa.float64()
    return pa.bool_() if pa.types.is_boolean(kind.type) else pa.string()
