"""A column in which each distinct value is held once: in memory, or written in parts into files that can be mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.images.stored.columns import is_list

MOST_LISTED = 100_000  # distinct values of a column of a large gallery; with more, its rows are looked at one by one
_AT_ONCE = 2**20  # codes

Codes = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Encoded:
    """N rows with M members (of its lists; otherwise M = N), and D distinct values."""

    rows: int
    codes: Codes
    """(M,): the number of each value, -1 for none; a row of lists has each member once, and no missing ones."""
    distinct: pa.Array
    """(D,)."""
    owners: npt.NDArray[np.int64] | None = None
    """(M,): the row of each member; None for a column without lists."""


def encode(column: pa.ChunkedArray) -> Encoded:
    """Encode a column in memory."""
    whole = column.combine_chunks()
    flat = pc.list_flatten(whole) if is_list(whole.type) else whole
    if pa.types.is_floating(flat.type):
        flat = pc.add(flat, pa.scalar(0, flat.type))  # -0.0 becomes 0.0: they are equal
    coded = flat.dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(_narrow(len(coded.dictionary)))
    if not is_list(whole.type):
        return Encoded(len(column), codes, coded.dictionary)
    owners = pc.list_parent_indices(whole).to_numpy(zero_copy_only=False).astype(np.int64)
    there, count = codes >= 0, max(len(coded.dictionary), 1)
    owners, found = np.divmod(np.unique(owners[there] * count + codes[there]), count)
    return Encoded(len(column), found.astype(codes.dtype), coded.dictionary, owners)


class Coder:
    """Encodes a column, some rows at a time, into files of a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._paths = codes, owners, _ = [folder / f"{name}.{kind}" for kind in ("codes", "owners", "distinct")]
        self._codes, self._owners = codes.open("wb"), owners.open("wb")
        self._code_of: dict[str, int] = {}
        self._distinct: list[pa.Array] = []
        self._rows = self._members = 0
        self._repeats = self._wide = False

    def add(self, column: pa.ChunkedArray) -> None:
        """Encode the next rows."""
        part = encode(column)
        there = part.codes >= 0
        self._repeats |= bool(len(part.distinct) < there.sum())
        self._members += len(part.codes)
        if not self._wide:
            before = len(self._code_of)
            texts = part.distinct.cast(pa.string()).to_pylist()
            numbers = [self._code_of.setdefault(text, len(self._code_of)) for text in texts]
            new = np.array(numbers, np.int32)
            self._distinct.append(part.distinct.filter(pa.array(new >= before)))
            self._codes.write(np.append(new, np.int32(-1))[part.codes].tobytes())
            if part.owners is not None:
                self._owners.write((part.owners + self._rows).tobytes())
            self._wide = len(self._code_of) > MOST_LISTED
        self._rows += part.rows

    def finish(self) -> dict[str, Any]:
        """Finish the files; returns what `mapped` needs of them."""
        self._codes.close()
        self._owners.close()
        codes, owners, distinct = self._paths
        if self._wide or not self._members:
            codes.unlink()
            owners.unlink()
        else:
            values = pa.chunked_array(self._distinct).combine_chunks()
            with pa.OSFile(str(distinct), "wb") as file:
                table = pa.table({"value": values})
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
            _narrowed(codes, _narrow(len(values)))
        return {"distinct": len(self._code_of), "members": self._members, "repeats": self._repeats, "wide": self._wide}


def mapped(folder: Path, name: str, rows: int, kind: pa.DataType, told: dict[str, Any]) -> Encoded | None:
    """The column that `Coder` wrote, its codes mapped from the disk; None for one with very many distinct values."""
    if told["wide"]:
        return None
    if not told["members"]:
        return encode(pa.chunked_array([pa.nulls(rows, kind)]))
    codes, owners, distinct = [folder / f"{name}.{kind}" for kind in ("codes", "owners", "distinct")]
    with pa.OSFile(str(distinct)) as file:
        values = pa.ipc.open_file(file).read_all()["value"].combine_chunks()
    lists = is_list(kind)
    return Encoded(
        rows,
        _read(codes, _narrow(told["distinct"]), told["members"]),
        values,
        _read(owners, np.int64, told["members"]) if lists else None,
    )


def _read(path: Path, kind: Any, count: int) -> npt.NDArray[Any]:
    return np.memmap(path, kind, "r", shape=(count,))


def _narrow(distinct: int) -> Any:
    """The smallest type that numbers so many values, and -1."""
    return next(kind for kind in (np.int8, np.int16, np.int32, np.int64) if distinct <= np.iinfo(kind).max)


def _narrowed(path: Path, kind: Any) -> None:
    """Write codes of 32 bits again, in this type."""
    if kind is np.int32:
        return
    wide, narrow = np.memmap(path, np.int32, "r"), path.with_suffix(".narrow")
    with narrow.open("wb") as file:
        for at in range(0, len(wide), _AT_ONCE):
            file.write(cast(Any, wide[at : at + _AT_ONCE]).astype(kind).tobytes())
    narrow.replace(path)
