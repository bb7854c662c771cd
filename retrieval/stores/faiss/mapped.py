"""Inverted files that are mapped from disk: the codes of single rows, read where they are in the file."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retrieval.arrays import Ids, Vectors

_HALVES = (faiss.ScalarQuantizer.QT_fp16, faiss.ScalarQuantizer.QT_bf16)
_AROUND = 2**16  # bytes: pages that the system makes known together
CAN_MAP = os.name == "posix"  # elsewhere a mapped file could not be replaced, and FAISS opens fewer paths


def read_mapped(path: Path) -> Any:
    """Read an index whose inverted lists stay in the file; raises RuntimeError as FAISS does.

    Not with IO_FLAG_MMAP_IFC, which tells the system not to read ahead: cold pages then take five times as long.
    """
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(index).invlists)
    lists.prefetch_nthread = 0  # else each search starts 32 threads
    return index


def mapped_bytes(path: Path) -> mmap.mmap:
    """A file as bytes, of which only what is used is read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Codes:
    """The codes in the lists of a mapped file, by row."""

    def __init__(self, path: Path, places: Ids, index: Any) -> None:
        """`places` (N,) is where the code of each row begins in the file, and `index` the inverted file in it."""
        self._file, self._places = mapped_bytes(path), places
        self._sq: Any
        self._width, self._flat = int(index.code_size), isinstance(index, faiss.IndexIVFFlat)
        self._dim, self._sq = index.d, getattr(index, "sq", None)
        # The file was just checked, so it is cached: its pages are made known now and not by the first filter.
        np.frombuffer(self._file, np.uint8)[::_AROUND].max()
        # Every place in the file as the beginning of a code: numpy copies whole codes from any of them.
        count = len(self._file) - self._width + 1
        self._every = np.ndarray((count,), f"V{self._width}", self._file, strides=(1,))

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self._file)

    def of(self, rows: Ids) -> Any:
        """The codes of rows, (N, bytes) uint8."""
        return self._every[self._places[rows]].view(np.uint8).reshape(len(rows), self._width)

    def vectors(self, rows: Ids) -> Vectors:
        """The vectors of rows, (N, D) float32."""
        codes = self.of(rows)
        decoded: Vectors = codes.view(np.float32) if self._flat else self._quantiser().sa_decode(codes)
        return decoded

    def small(self, rows: Ids) -> Any:
        """A FAISS index of these rows alone, with the same vectors."""
        if not self._flat and self._sq.qtype in _HALVES:
            index = self._quantiser()
            index.add_sa_codes(self.of(rows))
        else:
            index = faiss.IndexFlatIP(self._dim)
            index.add(self.vectors(rows))
        return index

    def _quantiser(self) -> Any:
        index = faiss.IndexScalarQuantizer(self._dim, self._sq.qtype, faiss.METRIC_INNER_PRODUCT)
        index.sq, index.code_size, index.is_trained = self._sq, self._width, True
        return index
