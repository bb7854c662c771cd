"""The package `datasets`, which is imported only for a source that it reads, and what its features say of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.console import say
from retrieval.installed import needs
from retrieval.sources.columns import Kind, holds_map

_RETRIES = 5  # of a stream. With 20, each with the retries of its requests, a broken one takes over ten minutes to fail


def library() -> Any:
    """The package `datasets`; raises MissingExtraError if it is not installed."""
    with needs("reading parquet files and datasets"):
        import datasets
    datasets.config.STREAMING_READ_MAX_RETRIES = _RETRIES
    return datasets


def kinds_of_features(features: Mapping[str, Any]) -> dict[str, Kind]:
    """Column -> what it holds, from the features of `datasets`."""
    datasets = library()
    schema = datasets.Features(features).arrow_schema
    return {column: _kind(schema.field(column).type, feature) for column, feature in features.items()}


def _kind(arrow: pa.DataType, feature: Any) -> Kind:
    datasets = library()
    inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
    names = tuple(inner.names) if isinstance(inner, datasets.ClassLabel) else ()
    is_plain = isinstance(feature, datasets.Value | datasets.List | datasets.LargeList | dict | list | tuple)
    return Kind(arrow, "" if is_plain else type(feature).__name__, names)


def streaming(name: str, builder: Any) -> Any:
    """The splits of a builder of `datasets`, streamed; without columns of maps in parquet, which have no type.

    Says which columns are left out. Raises what `datasets` raises.
    """
    try:
        return builder.as_streaming_dataset()
    except ValueError as error:
        if "does not have a datasets dtype" not in str(error):
            raise
    from datasets.utils.file_utils import xopen

    first = next(file for files in builder.config.data_files.values() for file in files)
    with xopen(first, "rb") as file:
        schema = pq.read_schema(file)
    left = [item for item in schema if not holds_map(item.type)]
    for item in schema:
        if item not in left:
            say(f"{name}: the column {item.name!r} is left out: it holds a map, which cannot be read")
    builder.config.columns = [item.name for item in left]
    builder.info.features = library().Features.from_arrow_schema(pa.schema(left, metadata=schema.metadata))
    return builder.as_streaming_dataset()
