"""The columns of a large gallery, written once into files that can be mapped: parquet cannot.

Everything is checked on the way, some rows at a time, as it is for a small gallery; who opens the files trusts them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import IntegrityError
from retrieval.images.stored.columns import THUMBNAIL
from retrieval.images.stored.encoded import Coder
from retrieval.images.stored.rows import IdsHash, Rows
from retrieval.untrusted.columns import check_rows, repeated_ids
from retrieval.untrusted.parquet import CheckedParquet

ROWS, ORDER, STATED = "rows.arrow", "order.npy", "stated.json"
PLACES, SIZES, FIRST = "places.npy", "sizes.npy", "first.npy"
_AT_ONCE = 65_536  # rows
_COMPARED = 1_000_000  # ids


def prepare(parts: Sequence[CheckedParquet], schema: pa.Schema, folder: Path) -> None:
    """Write what is mapped of the files of a gallery into an empty folder; raises IntegrityError like a small gallery.

    `schema` are the columns of them all.
    """
    names = [name for name in schema.names if name != THUMBNAIL]
    coded = ["label", *(name for name in names if name not in NOT_CODED)]
    coders = {name: Coder(folder, str(number)) for number, name in enumerate(coded)}
    ids, size = IdsHash(), 0
    columns = pa.schema([schema.field(name) for name in names])
    with pa.OSFile(str(folder / ROWS), "wb") as file, pa.ipc.new_file(file, columns) as writer:
        for part in parts:
            for groups in _steps(part.group_sizes):
                table = part.read(names, groups)
                check_rows(part.name, table)
                size += table.nbytes
                if size > sum(each.most for each in parts):
                    raise IntegrityError(f"{part.name} declares more than {size:,} bytes: build the artifact again.")
                ids.add(table["id"])
                for name, coder in coders.items():
                    coder.add(table[name])
                writer.write_table(table.combine_chunks())
    told = {name: coder.finish() for name, coder in coders.items()}
    _order(folder, parts[0].name)
    pages = _pages(parts, folder)
    _state(folder, {"ids_sha256": ids.digest, "columns": told, "numbers": coded, "parts": pages})


NOT_CODED = frozenset(["id", "label", "source", "sha256"])  # the label is, and comes first


def _steps(sizes: Sequence[int]) -> Iterator[list[int]]:
    """The row groups, so many at a time that they have at least `_AT_ONCE` rows, as far as there are so many."""
    step, rows = [], 0
    for group, size in enumerate(sizes):
        step.append(group)
        rows += size
        if rows >= _AT_ONCE:
            yield step
            step, rows = [], 0
    if rows:
        yield step


def _order(folder: Path, name: str) -> None:
    """Sort the ids, and check that none is there twice."""
    with pa.memory_map(str(folder / ROWS)) as file:
        ids = pa.ipc.open_file(file).read_all().select(["id"])
        order = pc.sort_indices(ids["id"]).to_numpy().astype(_smallest(len(ids)))
        np.save(folder / ORDER, order)
        rows, repeated = Rows(ids), 0
        for at in range(0, len(order), _COMPARED):
            some = rows.take(order[at : at + _COMPARED + 1].astype(np.int64))["id"]
            repeated += pc.sum(pc.equal(some[1:], some[:-1])).as_py() or 0
    if repeated:
        raise repeated_ids(name, len(order), len(order) - repeated)


def _smallest(count: int) -> Any:
    return np.uint32 if count <= np.iinfo(np.uint32).max else np.int64


def _pages(parts: Sequence[CheckedParquet], folder: Path) -> list[dict[str, Any]]:
    """Find the pages of all thumbnails; returns what there is to know of each file."""
    told, all_pages = [], []
    for part in parts:
        start, pages = 0, []
        for group, rows in enumerate(part.group_sizes):
            found = part.plain_pages(group, THUMBNAIL) if rows else None
            if found:
                pages.append((found.places, found.sizes, found.first + start))
            elif rows:
                break
            start += rows
        whole = start == sum(part.group_sizes)
        count = sum(len(each[0]) for each in pages) if whole else None
        told.append({"rows": sum(part.group_sizes), "pages": count, "levels": part.has_levels(THUMBNAIL)})
        all_pages += pages if whole else []
    for at, name in enumerate((PLACES, SIZES, FIRST)):
        np.save(folder / name, np.concatenate([np.empty(0, np.int64), *(each[at] for each in all_pages)]))
    return told


def _state(folder: Path, stated: dict[str, Any]) -> None:
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    content = json.dumps({**stated, "files": files}).encode()
    (folder / STATED).write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def stated_in(folder: Path) -> dict[str, Any]:
    """What a folder with mapped columns says of itself; raises ValueError or OSError if it is not whole."""
    digest, _, content = (folder / STATED).read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError(f"{folder} is damaged")
    stated: dict[str, Any] = json.loads(content)
    if any((folder / name).stat().st_size != size for name, size in stated["files"].items()):
        raise ValueError(f"{folder} is damaged")
    return stated


def read_numbers(path: Path) -> npt.NDArray[Any]:
    """An array of numbers, mapped."""
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
