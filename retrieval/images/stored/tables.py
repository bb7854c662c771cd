"""Rows of a gallery as Arrow tables, cut where its file needs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def regrouped(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of a multiple of `size` rows, apart from the last one; one of them is held at a time."""
    rest: list[pa.Table] = []  # fewer rows than that
    for table in tables:
        both = pa.concat_tables([*rest, table])
        whole = len(both) // size * size
        if whole:
            yield both.slice(0, whole).combine_chunks()
        rest = [both.slice(whole)]
    yield from (table.combine_chunks() for table in rest if len(table))
