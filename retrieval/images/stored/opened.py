"""An opened gallery: the columns of a small one in memory, those of a large one mapped from the disk.

What is mapped lies in a private folder, under the hash of the gallery's files, and is made when a large gallery is
first opened. Where there is no such folder, and for a gallery without a known hash, it lies in a temporary one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval.errors import IntegrityError, LookalikeError
from retrieval.files import system
from retrieval.files.held import HeldFolder
from retrieval.files.locks import alone
from retrieval.files.private import private_folder
from retrieval.files.storing import flush_all, storing
from retrieval.images.stored.columns import BASE_SCHEMA, ORIGINAL, THUMBNAIL, schema_of_file
from retrieval.images.stored.encoded import Encoded, mapped
from retrieval.images.stored.prepare import FIRST, ORDER, PLACES, ROWS, SIZES, prepare, read_numbers, stated_in
from retrieval.images.stored.rows import Ids
from retrieval.images.stored.thumbnails import Thumbnails
from retrieval.untrusted.columns import check_schema
from retrieval.untrusted.parquet import CheckedParquet, PlainPages, read_page

LARGE = 500_000  # rows from which on columns are mapped; below, they need some hundred megabytes in memory
_FOLDER = "columns-1"  # another name for another form
_TEMPORARY = "lookalike-columns-"
_MOST_BYTES = 50 * 10**9  # of all folders; those that were not used for longest go first


@dataclass
class Opened:
    """The rows of a gallery."""

    schema: pa.Schema
    """The columns, with thumbnails as bytes."""
    table: pa.Table
    """All columns but the thumbnails."""
    thumbnails: list[Thumbnails]
    """Of each file."""
    starts: Any
    """The first row of each file, and the number of all rows."""
    ids: Ids | None = None
    ids_sha256: str | None = None
    """Known if everything has been checked."""
    encoded: dict[str, Encoded | None] = field(default_factory=dict)
    """The columns that are encoded already; None for one with very many distinct values."""
    repeats: dict[str, bool] = field(default_factory=dict)
    """Of those, whether a value was found twice."""
    held: HeldFolder | None = None


def opened(files: Sequence[Path], key: str | None = None) -> Opened:
    """Open a gallery; `key` is the hash of its files, which were compared with it.

    Raises IntegrityError for one that is not a gallery, and LookalikeError if there is no place for what is mapped.
    """
    if key and (there := _known(files, key)):
        return there
    parts = [CheckedParquet(path) for path in files]
    schema = _schema_of(parts)
    rows = [sum(part.group_sizes) for part in parts]
    if sum(rows) >= LARGE and system.MOVES_OPEN_FILES:
        return _prepared(files, parts, schema, key)
    names = [name for name in schema.names if name != THUMBNAIL]
    table = pa.concat_tables([part.read(names) for part in parts])
    return Opened(schema, table, [Thumbnails(part) for part in parts], np.cumsum([0, *rows]))


def _schema_of(parts: Sequence[CheckedParquet]) -> pa.Schema:
    """The columns of a gallery in these files; raises IntegrityError unless they are those of a gallery, in each."""
    schemas = [schema_of_file(part.schema) for part in parts]
    for part, schema in zip(parts, schemas, strict=True):
        check_schema(part.name, schema, BASE_SCHEMA, {ORIGINAL: pa.string()})
        if schema != schemas[0]:
            raise IntegrityError(f"{part.name} has other columns than {parts[0].name}: build the artifact again.")
    return schemas[0]


def _known(files: Sequence[Path], key: str) -> Opened | None:
    """The gallery from columns that were made before; None if there are none, or if they are damaged."""
    place = private_folder(_FOLDER, make=False)
    with suppress(OSError, ValueError, LookupError, pa.ArrowException):
        if place:
            found = _mapped(files, place / key)
            (place / key).touch()
            return found
    return None


def _prepared(files: Sequence[Path], parts: list[CheckedParquet], schema: pa.Schema, key: str | None) -> Opened:
    place = private_folder(_FOLDER) if key else None
    if place and key:
        lock, busy = place / f"{key}.lock", f"{place / key} is being written"
        with suppress(OSError), alone(lock, busy, LookalikeError, wait=True):
            if there := _known(files, key):  # another process has just made it
                return there
            _make(parts, schema, place, key)
            return _mapped(files, place / key)
    for where in (private_folder(_FOLDER), Path(tempfile.gettempdir())):
        with suppress(OSError):
            if where:
                return _held(files, parts, schema, where)
    with storing(Path(tempfile.gettempdir()), LookalikeError):
        return _held(files, parts, schema, Path(tempfile.gettempdir()))


def _held(files: Sequence[Path], parts: list[CheckedParquet], schema: pa.Schema, place: Path) -> Opened:
    """The gallery with its columns in a folder that is deleted with it."""
    held = HeldFolder(place, _TEMPORARY)
    prepare(parts, schema, held.path)
    return replace(_mapped(files, held.path), held=held)


def _make(parts: list[CheckedParquet], schema: pa.Schema, place: Path, key: str) -> None:
    """Make the folder of a gallery as a whole, and delete those of others if all have become too large."""
    for left in [*place.glob(f"{key}.*.new"), place / key]:  # of one that was killed, and a damaged one
        shutil.rmtree(left, ignore_errors=True)
    fresh = place / f"{key}.{token_hex(8)}.new"
    fresh.mkdir(mode=0o700)
    try:
        prepare(parts, schema, fresh)
        flush_all(fresh)
        fresh.rename(place / key)
        pa.default_memory_pool().release_unused()
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _drop_oldest(place, place / key)


def _drop_oldest(place: Path, new: Path) -> None:
    with suppress(OSError):
        folders = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(_TEMPORARY)]
        folders.sort(key=lambda path: path.stat().st_mtime)
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in folders}
        for path in folders:
            if sum(sizes.values()) > _MOST_BYTES and path != new:
                shutil.rmtree(path, ignore_errors=True)
                sizes.pop(path)


def _mapped(files: Sequence[Path], folder: Path) -> Opened:
    """The gallery from what `prepare` has written; raises OSError, ValueError or LookupError if that is not whole."""
    stated = stated_in(folder)
    table = pa.ipc.open_file(pa.memory_map(str(folder / ROWS))).read_all()
    pages = [read_numbers(folder / name) for name in (PLACES, SIZES, FIRST)]
    thumbnails, begin = [], 0
    for path, told in zip(files, stated["parts"], strict=True):
        if told["pages"] is None:
            thumbnails.append(Thumbnails(CheckedParquet(path)))
            continue
        places, sizes, first = (each[begin : begin + told["pages"]] for each in pages)
        begin += told["pages"]
        thumbnails.append(Thumbnails(_Paged(path, places, sizes, first, told)))
    kinds = {item.name: item.type for item in table.schema}
    encoded = {
        name: mapped(folder, str(number), len(table), kinds[name], stated["columns"][name])
        for number, name in enumerate(stated["numbers"])
    }
    fields = [table.schema.field(item.name) if item.name in kinds else item for item in BASE_SCHEMA]
    others = [item for item in table.schema if item.name not in BASE_SCHEMA.names]
    return Opened(
        pa.schema([*fields, *others]),
        table,
        thumbnails,
        np.cumsum([0, *(told["rows"] for told in stated["parts"])]),
        Ids(table["id"], read_numbers(folder / ORDER)),
        stated["ids_sha256"],
        encoded,
        {name: told["repeats"] for name, told in stated["columns"].items()},
    )


class _Paged:
    """The thumbnails of a file whose pages are known; see `retrieval.images.stored.thumbnails`."""

    def __init__(self, path: Path, places: Any, sizes: Any, first: Any, told: dict[str, Any]) -> None:
        self.name = path.name
        self.group_sizes = [told["rows"]]
        self._source = pa.OSFile(str(path))
        self._pages = PlainPages(places, sizes, first, told["rows"], told["levels"])

    def plain_pages(self, group: int, column: str) -> PlainPages:
        """All pages."""
        return self._pages

    def plain_page(self, pages: PlainPages, page: int) -> list[bytes]:
        """The thumbnails of a page."""
        return read_page(self.name, self._source, pages, page)

    def read_group(self, group: int, column: str) -> Any:
        """Never called, as all pages are known."""
        raise NotImplementedError
