"""The columns of a gallery: in Lookalike, and in its files.

Here a thumbnail is bytes. In a file it has the form of an `Image` of `datasets`, so that `load_dataset` and the Hub's
viewer show a picture: a struct of `bytes` and `path`, and a note in the metadata. Files of earlier versions hold bytes.
"""

from __future__ import annotations

import json
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import SourceError

THUMBNAIL = "thumbnail"
_TEXT = pa.string()
BASE_SCHEMA = pa.schema(
    [("id", _TEXT), (THUMBNAIL, pa.binary()), ("label", _TEXT), ("source", _TEXT), ("sha256", _TEXT)]
)
ORIGINAL = "lookalike:original"  # optional: where the original lies, a path below the source's folder or an address
RESERVED = frozenset([*BASE_SCHEMA.names, "path", ORIGINAL])
"""Names that an attribute cannot have: the gallery's own, and `path`, because gradio_client takes any object with a
`path` for a server file and fails when it cannot fetch it."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", _TEXT)])
# Only what a column's type does not say: types have other names in other versions of `datasets`, as lists do.
_NOTE = {"huggingface": json.dumps({"info": {"features": {THUMBNAIL: {"_type": "Image"}}}})}


def in_files(schema: pa.Schema) -> pa.Schema:
    """The columns as files hold them, with the note for `datasets`."""
    at = schema.get_field_index(THUMBNAIL)
    return schema.set(at, pa.field(THUMBNAIL, _IMAGE)).with_metadata(_NOTE)


def to_file(table: pa.Table) -> pa.Table:
    """Rows as files hold them."""
    chunks = [
        pa.StructArray.from_arrays([chunk, pa.nulls(len(chunk), _TEXT)], fields=list(_IMAGE))
        for chunk in table[THUMBNAIL].chunks
    ]
    at = table.column_names.index(THUMBNAIL)
    pictures = pa.chunked_array(chunks, _IMAGE)
    return table.set_column(at, THUMBNAIL, pictures).replace_schema_metadata(_NOTE)


def from_file(table: pa.Table) -> pa.Table:
    """Rows of a file, of this or an earlier version, as they are used here."""
    if THUMBNAIL in table.column_names and pa.types.is_struct(table[THUMBNAIL].type):
        at = table.column_names.index(THUMBNAIL)
        table = table.set_column(at, THUMBNAIL, pc.struct_field(table[THUMBNAIL], "bytes"))
    return table.replace_schema_metadata()


def schema_of_file(schema: pa.Schema) -> pa.Schema:
    """The columns of a file, of this or an earlier version, as they are used here."""
    at = schema.get_field_index(THUMBNAIL)
    if at >= 0 and schema.field(at).type == _IMAGE:
        schema = schema.set(at, pa.field(THUMBNAIL, pa.binary()))
    return schema.remove_metadata()


def joined(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """The union of two schemas; raises SourceError if a column has a different type in each."""
    types = {item.name: item.type for item in old}
    for item in new:
        if types.setdefault(item.name, item.type) != item.type:
            raise SourceError(
                f"the column {item.name!r} has type {types[item.name]} in the gallery but {item.type} in the source; "
                "build the artifact again, or rename the column."
            )
    return pa.schema(list(types.items()))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns of the schema: missing ones filled with nulls, the others cast."""
    columns = [
        table[item.name].cast(item.type) if item.name in table.column_names else pa.nulls(len(table), item.type)
        for item in schema
    ]
    return pa.table(columns, schema=schema)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def leaf_of(item: pa.Field) -> str:
    """The name that parquet gives the values of a column."""
    if item.type == _IMAGE:
        return f"{item.name}.bytes"
    return f"{item.name}.list.element" if is_list(item.type) else cast(str, item.name)
