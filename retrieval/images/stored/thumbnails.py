"""The thumbnails of one file of a gallery, read a page at a time: some dozens of them, in a tenth of a millisecond."""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa

from retrieval.errors import IntegrityError
from retrieval.forking import Cache, Lock
from retrieval.images.stored.columns import THUMBNAIL, from_file
from retrieval.untrusted.parquet import PlainPages

PAGES_CACHED = 32
LARGEST_CACHED = 4 * 2**20  # bytes of a page that is kept; those that Lookalike writes have a thirtieth of that


class Paged(Protocol):
    """A file whose row groups have thumbnails in pages; see `CheckedParquet`."""

    name: str
    group_sizes: list[int]

    def plain_pages(self, group: int, column: str) -> PlainPages | None:
        """Where the pages of a column of a row group lie; None if they have to be read with `read_group`."""

    def plain_page(self, pages: PlainPages, page: int) -> list[bytes]:
        """The values of one of these pages."""

    def read_group(self, group: int, column: str) -> Any:
        """The values of a column of a row group."""


class Thumbnails:
    """The thumbnails of a file, by row; thread-safe."""

    def __init__(self, file: Paged) -> None:
        self._file = file
        self._starts = np.cumsum([0, *file.group_sizes])
        self._pages: dict[int, PlainPages | None] = {}
        self._kept = Cache[tuple[int, int], list[bytes]](PAGES_CACHED)
        self._lock = Lock()  # the file is not thread-safe

    def get(self, row: int) -> bytes:
        """The JPEG bytes of a row, as stored; raises IntegrityError if the file has changed since it was opened."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        within = row - int(self._starts[group])
        with self._lock:
            if group not in self._pages:
                self._pages[group] = self._file.plain_pages(group, THUMBNAIL)
            pages = self._pages[group]
            page = 0 if pages is None else int(np.searchsorted(pages.first, within, side="right")) - 1
            values = self._kept.get((group, page))
            if values is None:
                values = self._group(group) if pages is None else self._file.plain_page(pages, page)
                if sum(map(len, values)) <= LARGEST_CACHED:
                    self._kept.put((group, page), values)
        return values[within - (0 if pages is None else int(pages.first[page]))]

    def _group(self, group: int) -> list[bytes]:
        """All of a row group, whose pages are not plain: Lookalike did not write it."""
        values = from_file(pa.table({THUMBNAIL: self._file.read_group(group, THUMBNAIL)}))[THUMBNAIL]
        if values.null_count:
            raise IntegrityError(f"{self._file.name} has rows without a thumbnail: build the artifact again.")
        return cast(list[bytes], values.to_pylist())
