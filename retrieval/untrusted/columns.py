"""Columns of a gallery from a stranger: names and types are checked before reading, values before they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import IntegrityError, first_line, short

_LONGEST_NAME = 1_000  # characters
_LONGEST_ID = 200
_MEND = "build the artifact again."


def check_schema(file: str, schema: pa.Schema, required: pa.Schema, optional: Mapping[str, pa.DataType]) -> None:
    """Raise IntegrityError unless the columns are those of a gallery.

    `required` and `optional` have exactly these types. Any other column holds text, numbers, booleans, dates, or lists
    of these, and no name occurs twice.
    """
    for name, count in Counter(schema.names).items():
        if count > 1:
            raise IntegrityError(f"{file} has {count} columns named {short(repr(name), 60)}: {_MEND}")
        if len(name) > _LONGEST_NAME:
            raise IntegrityError(f"{file} has a column whose name is {len(name):,} characters long: {_MEND}")
    for column in required:
        if column.name not in schema.names:
            raise IntegrityError(f"{file} has no column {column.name!r}: {_MEND}")
    wanted = {**optional, **dict(zip(required.names, required.types, strict=True))}
    for column in schema:
        found, type_ = short(str(column.type), 60), wanted.get(column.name)
        if type_ is not None and column.type != type_:
            raise IntegrityError(f"{file}: the column {column.name!r} must have type {type_}, found {found}: {_MEND}")
        if type_ is None and not _is_attribute(column.type):
            raise IntegrityError(
                f"{file}: the column {short(repr(column.name), 60)} has type {found}, but an attribute is text, a "
                f"number, a boolean, a date, or a list of these: {_MEND}"
            )


def _is_attribute(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_attribute(kind.value_type) and not pa.types.is_nested(kind.value_type)
    known = (
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_string,
        pa.types.is_large_string,
    )
    return any(is_it(kind) for is_it in (*known, pa.types.is_date, pa.types.is_timestamp, pa.types.is_null))


def check_values(file: str, table: pa.Table) -> None:
    """Raise IntegrityError for values that cannot be used: invalid UTF-8, dates beyond the year 9999, ids that are
    missing, empty, repeated or longer than 200 bytes, and rows without a source or hash."""
    check_rows(file, table)
    if (distinct := pc.count_distinct(table["id"]).as_py()) != len(table):
        raise repeated_ids(file, len(table), distinct)


def check_rows(file: str, table: pa.Table) -> None:
    """`check_values` for some of the rows: everything but whether an id is repeated."""
    try:
        table.validate(full=True)
        for column in table.itercolumns():
            _check_dates(column)
    except (pa.ArrowException, ValueError, OverflowError, LookupError) as error:
        raise IntegrityError(
            f"{file} holds values that cannot be read ({short(first_line(error), 200)}): {_MEND}"
        ) from error
    for name in ("id", "source", "sha256"):
        if missing := table[name].null_count:
            raise IntegrityError(f"{file}: {missing:,} rows have no {name}: {_MEND}")
    lengths: Any = pc.min_max(pc.binary_length(table["id"])).as_py()
    if len(table) and not 0 < lengths["min"] <= lengths["max"] <= _LONGEST_ID:
        raise IntegrityError(
            f"{file}: ids have 1 to {_LONGEST_ID} bytes, found {lengths['min']} to {lengths['max']}: {_MEND}"
        )


def repeated_ids(file: str, rows: int, distinct: int) -> IntegrityError:
    """The error for ids that are repeated."""
    return IntegrityError(f"{file}: {rows:,} rows have only {distinct:,} different ids: {_MEND}")


def _check_dates(column: pa.ChunkedArray) -> None:
    """Raise OverflowError, ValueError or LookupError for a moment or time zone that Python cannot represent."""
    nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    values = pc.list_flatten(column) if nested else column
    if pa.types.is_temporal(values.type):
        ends = pc.min_max(values)
        ends["min"].as_py(), ends["max"].as_py()
