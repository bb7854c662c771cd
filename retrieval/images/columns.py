"""Columns of a gallery: what they contain, and their values as text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.arrays import Ids
from retrieval.images.gallery import Gallery
from retrieval.images.stored.columns import is_list

_EXAMPLES = 3


@dataclass(frozen=True)
class Column:
    """What a column of a gallery contains."""

    name: str
    type: str
    """The Arrow type, such as `string`, `int64` or `double`."""
    values: int
    """Number of distinct values; of a list, its members count."""
    missing: int
    """Number of rows without a value."""
    examples: list[Any]
    """Up to three values, the most common first."""


def describe_columns(gallery: Gallery) -> list[Column]:
    """Describe the id, the label, the source and each attribute, in this order."""
    return [_described(name, gallery.table[name]) for name in ["id", "label", "source", *gallery.attributes]]


def as_texts(gallery: Gallery, name: str, rows: Ids) -> list[str]:
    """The values of a column in these rows, as a filter spells them; a missing value is an empty text."""
    column = gallery.taken(rows)[name]
    try:
        texts = column.cast(pa.string()).to_pylist()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # Arrow prints no lists
        texts = [None if value is None else to_json(value) for value in column.to_pylist()]
    return ["" if text is None else text for text in texts]


def texts_of(value: Any) -> list[str]:
    """The texts of one value, as a filter spells them: one for each member of a list, none for a missing value."""
    if isinstance(value, list):
        return [text for member in value for text in texts_of(member)]
    if value is None or value == "":
        return []
    try:
        return [pa.scalar(value).cast(pa.string()).as_py()]
    except (pa.ArrowException, OverflowError, UnicodeError):  # a number or text that Arrow cannot represent
        return [str(value)]


def to_json(value: Any) -> str:
    """A value of a column as JSON in one line; a date as text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _described(name: str, column: pa.ChunkedArray) -> Column:
    there = column.drop_null()
    counted = pc.value_counts(pc.list_flatten(there) if is_list(column.type) else there)
    values, counts = counted.field(0), counted.field(1).to_numpy()
    common = np.argsort(-counts, kind="stable")[:_EXAMPLES]
    examples = cast("list[Any]", values.take(pa.array(common)).to_pylist())
    return Column(name, str(column.type), len(values), column.null_count, examples)
