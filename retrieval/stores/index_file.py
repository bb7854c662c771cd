"""Index files from strangers: what a FAISS file declares is checked before FAISS reads it.

FAISS allocates what a file declares, so a few bytes can take gigabytes; and it trusts some numbers, such as the links
of a graph, so that wrong ones make it read outside its memory. Only the types that a store can have are read: flat
vectors, scalar quantisers, and inverted files and graphs over them (laid out as in `faiss/impl/index_read.cpp`). All
others are refused, nested ones too: transforms, product quantisers, refined indexes, lists in other files. Of codes of
one bit (RaBitQ), whose lists are mapped and may be many, only the sizes are read.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import numpy.typing as npt

from retrieval.arrays import Ids
from retrieval.errors import IntegrityError
from retrieval.stores.graph_file import check_graph

# Type of scalar quantiser, as FAISS numbers it -> bits per number, and trained numbers per dimension.
_QUANTISERS = {0: (8, 2), 4: (16, 0), 6: (6, 2), 7: (16, 0)}
_MOST_DIMENSIONS = 1 << 16
_PIECE = 1 << 20  # bytes read or written at a time


@dataclass(frozen=True)
class Header:
    """What the header of an index states."""

    dim: int
    rows: int
    metric: int
    lists: int = 0
    """Number of lists of an inverted file; 0 for any other index."""
    places: Ids | None = field(default=None, compare=False, repr=False)
    """Where the code of each row begins in the file, (N,) int64, for an inverted file whose lists were read."""
    sizes: Ids | None = field(default=None, compare=False, repr=False)
    """The number of rows in each list of an inverted file, (L,) int64."""


def read_index(path: Path) -> Any:
    """Read an index that `check_index` has checked; raises RuntimeError as FAISS does."""
    with path.open("rb") as file:  # on Windows, FAISS itself opens only paths in the alphabet of the console
        return faiss.read_index(faiss.PyCallbackIOReader(file.read, _PIECE))


def write_index(index: Any, path: Path) -> None:
    """Write an index file; raises OSError. An old one is not written into: it may be mapped."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, _PIECE))


def check_index(path: Path) -> Header:
    """The header of an index file; raises IntegrityError unless all it declares fits together and fills the file.

    Reads no vectors, but the links of a graph, which take up to twice their size in memory.
    """
    with path.open("rb") as file:
        walk = _Walk(path.name, file)
        header = walk.index(("IxFI", "IxF2", "IxSQ", "IwFl", "IwSq", "IwSQ", "Iwrq", "IHNf", "IHNs"))
        if walk.left:
            raise walk.wrong(f"has {walk.left:,} bytes after its end")
    return header


class _Walk:
    """Goes through an index file from front to back; whatever it allocates was compared with the file's size."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name, self._file = name, file
        self._size = os.fstat(file.fileno()).st_size

    @property
    def left(self) -> int:
        """Bytes that have not been passed yet."""
        return self._size - self._file.tell()

    def wrong(self, what: str) -> IntegrityError:
        """The error for a file that has, or declares, something else than it should."""
        return IntegrityError(f"{self._name} is not a readable FAISS index: it {what}. Build the artifact again.")

    def index(self, types: tuple[str, ...], inside: Header | None = None) -> Header:
        """Pass an index of one of these types; `inside` is what a nested one must have."""
        kind = self._bytes(4).decode("latin-1")
        if kind not in types:
            raise self.wrong(f"has a part of type {kind!r} where one of {', '.join(types)} is expected")
        dim, rows, _, _, trained, metric = self.numbers("<iqqq?i")
        if metric > 1:
            raise self.wrong(f"has the metric number {metric}, not the inner product")
        header = Header(dim, rows, metric)
        if not (1 <= dim <= _MOST_DIMENSIONS and 0 <= rows <= 8 * self._size and trained):
            raise self.wrong(f"declares {rows:,} vectors of {dim:,} numbers in {self._size:,} bytes")
        if inside is not None and header != inside:
            raise self.wrong(f"holds {header} where {inside} is expected")
        if kind in ("IxFI", "IxF2"):
            self._pass(rows * dim, 4, "numbers")
        elif kind == "IxSQ":
            self._pass(rows * self._quantiser(dim), 1, "bytes of codes")
        elif kind in ("IHNf", "IHNs"):
            check_graph(rows, self)
            self.index(("IxSQ",) if kind == "IHNs" else ("IxFI", "IxF2"), header)
        else:
            return self._inverted(kind, header)
        return header

    def _inverted(self, kind: str, header: Header) -> Header:
        lists, _ = self.numbers("<QQ")
        if not 1 <= lists <= self._size:
            raise self.wrong(f"declares {lists:,} lists in {self._size:,} bytes")
        self.index(("IxFI", "IxF2", "IHNf"), Header(header.dim, lists, header.metric))
        map_type, mapped = self.numbers("<bQ")
        if map_type or mapped:
            raise self.wrong("has a map from rows to lists, which is never stored")
        code = 4 * header.dim
        if kind == "Iwrq":
            code = self._one_bit(header)
        elif kind != "IwFl":
            code = self._quantiser(header.dim)
            stated, *_ = self.numbers("<Q?" if kind == "IwSq" else "<Q")
            if stated != code:
                raise self.wrong(f"declares codes of {stated} and of {code} bytes")
        sizes = self._sizes(lists, code, header.rows)
        places = self._places(sizes, code, header.rows) if kind != "Iwrq" else None
        if places is None:  # a large index is searched where it is: see `retrieval.stores.large`
            self._skip(header.rows * (code + 8), "bytes of codes and row numbers")
        return Header(header.dim, header.rows, header.metric, lists, places, sizes)

    def _sizes(self, lists: int, code: int, rows: int) -> Ids:
        """Pass the sizes of the lists of an inverted file."""
        kind, stated, stated_code, layout = self.numbers("<4sQQ4s")
        if (kind, stated, stated_code) != (b"ilar", lists, code) or layout not in (b"full", b"sprs"):
            raise self.wrong(f"has {stated:,} lists of type {kind!r}, {layout!r}, with codes of {stated_code:,} bytes")
        sizes = self.array("<u8", lists if layout == b"full" else None)
        if layout == b"sprs":  # only the lists that are not empty: number and size of each
            if len(sizes) % 2 or len(set(sizes[::2].tolist())) * 2 != len(sizes) or (sizes[::2] >= lists).any():
                raise self.wrong("has lists that do not exist")
            sizes = sizes[1::2][np.argsort(sizes[::2])]
        if (sizes > rows).any() or int(sizes.sum()) != rows:
            raise self.wrong(f"has lists of {int(sizes.astype(float).sum()):,} vectors in all, but {rows:,} rows")
        return sizes.astype(np.int64)

    def _places(self, sizes: Ids, code: int, rows: int) -> Ids:
        """Pass the codes and row numbers of an inverted file, in which each row occurs once."""
        places = np.full(rows, -1, np.int64)
        for size in filter(None, sizes.tolist()):
            first = self._file.tell()
            self._skip(size * code, "bytes of codes")
            ids = self._array("<i8", size)
            if ids.min() < 0 or ids.max() >= rows:
                raise self.wrong(f"has rows from {ids.min():,} to {ids.max():,} in a list, but {rows:,} in all")
            places[ids] = first + code * np.arange(size)
        if (places < 0).any():
            raise self.wrong(f"has {int((places < 0).sum()):,} rows in no list")
        return places

    def _one_bit(self, header: Header) -> int:
        """Pass a RaBitQ quantiser of one bit; returns the bytes of a code: the bits and two numbers."""
        code = (header.dim + 7) // 8 + 8
        dim, stated, metric, again, residual, bits = self.numbers("<QQiQ?B")
        if (dim, stated, metric, again, residual) != (header.dim, code, header.metric, code, True) or bits > 8:
            raise self.wrong(f"has a RaBitQ quantiser of {dim:,} numbers in {stated:,} bytes, asked with {bits} bits")
        return code

    def _quantiser(self, dim: int) -> int:
        """Pass a scalar quantiser; returns the bytes of a code."""
        kind, _, _, stated_dim, code = self.numbers("<iifQQ")
        bits, trained = _QUANTISERS.get(kind, (0, 0))
        if not bits or stated_dim != dim or code != (dim * bits + 7) // 8:
            raise self.wrong(f"has a scalar quantiser number {kind} of {stated_dim:,} numbers in {code:,} bytes")
        self._pass(trained * dim, 4, "numbers of a scalar quantiser")
        return int(code)

    def _pass(self, wanted: int, width: int, what: str) -> None:
        """Pass a vector that must have this length."""
        (length,) = self.numbers("<Q")
        if length != wanted:
            raise self.wrong(f"declares {length:,} {what} where {wanted:,} are expected")
        self._skip(length * width, what)

    def _skip(self, count: int, what: str) -> None:
        if count > self.left:
            raise self.wrong(f"declares {count:,} bytes of {what}, but only {self.left:,} are left")
        self._file.seek(count, os.SEEK_CUR)

    def array(self, kind: str, wanted: int | None) -> npt.NDArray[Any]:
        """A vector; `wanted` is the length that it must have, if it is known."""
        (length,) = self.numbers("<Q")
        if wanted is not None and length != wanted:
            raise self.wrong(f"declares {length:,} values where {wanted:,} are expected")
        return self._array(kind, length)

    def _array(self, kind: str, length: int) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = np.frombuffer(self._bytes(length * np.dtype(kind).itemsize), kind)
        return values

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Numbers in a layout of `struct`."""
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))

    def _bytes(self, count: int) -> bytes:
        if count > self.left:
            raise self.wrong(f"declares {count:,} bytes, but only {self.left:,} are left")
        return self._file.read(count)
