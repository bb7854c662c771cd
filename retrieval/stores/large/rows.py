"""The vectors of a large index by row, as 16-bit floats from which their mean is taken off, in a file of their own.

The file is in the format of safetensors: `mean` (D,), `lists` (N,) with the list of each row, and `vectors` (N, D). It
is mapped, never read as a whole. Without the mean the numbers are smaller, so 16 bits say them more exactly.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Ids, Vectors
from retrieval.errors import IntegrityError
from retrieval.stores.faiss.mapped import mapped_bytes
from retrieval.stores.large.cells import AT_ONCE
from retrieval.untrusted.strict_json import parse_json

_PAGE = 4_096  # bytes: vectors begin at a page, so that most rows lie in one
_MOST_HEADER = 16_384  # bytes
_TYPES = {"F32": np.float32, "F16": np.float16, "U16": np.uint16, "U32": np.uint32}
Halves = npt.NDArray[np.float16]
Lists = npt.NDArray[Any]
"""The list of each row, (N,) uint16 or uint32."""


class Rows:
    """Vectors by row, in pieces: of 16-bit floats without the mean, or the vectors as they were given, on disk."""

    def __init__(self, mean: Vectors) -> None:
        self.mean = mean
        self._pieces: list[npt.NDArray[Any]] = []
        self._ends = np.zeros(0, np.int64)

    def append(self, piece: npt.NDArray[Any]) -> None:
        """Append (N, D) vectors: float16 without the mean, or float32 as they are; those on disk stay there."""
        if piece.dtype == np.float32 and not _is_on_disk(piece):
            piece = self._half(piece)
        self._pieces.append(piece)
        self._ends = np.append(self._ends, len(self) + len(piece))

    def halves(self, rows: Ids) -> Halves:
        """(N, D) float16, without the mean."""
        if len(self._pieces) == 1:
            return self._half(self._pieces[0][rows])
        taken = np.empty((len(rows), len(self.mean)), np.float16)
        piece = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(piece):
            own = piece == number
            first = self._ends[number] - len(self._pieces[number])
            taken[own] = self._half(self._pieces[number][rows[own] - first])
        return taken

    def codes(self, rows: Ids) -> npt.NDArray[np.uint8]:
        """The same as bytes, (N, 2 D)."""
        return self.halves(rows).view(np.uint8)

    def halves_into(self, rows: Ids, out: Halves) -> None:
        """The same, written into (N, D) float16."""
        if len(self._pieces) == 1 and self._pieces[0].dtype == np.float16:
            np.take(self._pieces[0], rows, axis=0, out=out, mode="clip")  # without checks, it is not copied twice
        else:
            out[:] = self.halves(rows)

    def vectors(self, rows: Ids) -> Vectors:
        """(N, D) float32, as they were given up to the precision of 16 bits."""
        return self.halves(rows).astype(np.float32) + self.mean

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _half(self, vectors: npt.NDArray[Any]) -> Halves:
        if vectors.dtype == np.float16:
            return vectors
        half: Halves = (vectors - self.mean).astype(np.float16)
        return half


def write_rows(path: Path, rows: Rows, lists: Lists) -> None:
    """Write the file, some rows at a time; raises OSError."""
    path.unlink(missing_ok=True)  # these rows may be in the old one
    with path.open("wb") as file:
        file.write(_header(len(rows), len(rows.mean), lists.dtype))
        file.write(rows.mean.astype("<f4").tobytes())
        file.write(lists.astype(lists.dtype.newbyteorder("<")).tobytes())
        for at in range(0, len(rows), AT_ONCE):
            file.write(rows.halves(np.arange(at, min(at + AT_ONCE, len(rows)))).astype("<f2").tobytes())


def read_rows(path: Path, count: int, dim: int, sizes: Ids) -> tuple[Rows, Lists]:
    """Map the file of an index with so many rows, whose lists have these sizes (L,).

    Raises IntegrityError unless the file has exactly what such an index needs. The vectors are not read.
    """
    if not path.is_file():
        raise IntegrityError(
            f"{path.name} is missing: it holds the vectors of a large index. Build the artifact again."
        )
    wanted = _header(count, dim, lists_type(len(sizes)))
    size = len(wanted) + 4 * dim + count * lists_type(len(sizes)).itemsize + 2 * count * dim
    found = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(wanted))
    if not _same(head, wanted) or found != size:
        raise IntegrityError(
            f"{path.name} does not hold {count:,} vectors of {dim:,} numbers in {size:,} bytes, but others in "
            f"{found:,}: build the artifact again."
        )
    content = mapped_bytes(path)
    mean = _array(content, len(wanted), "<f4", (dim,)).astype(np.float32)
    if not np.isfinite(mean).all() or np.linalg.norm(mean) > 1.01:
        raise IntegrityError(
            f"{path.name}: the mean of its vectors is not one of unit vectors. Build the artifact again."
        )
    lists = _array(content, len(wanted) + 4 * dim, lists_type(len(sizes)).newbyteorder("<").str, (count,))
    held = np.bincount(lists, minlength=len(sizes))
    if len(held) != len(sizes) or (held != sizes).any():
        raise IntegrityError(f"{path.name} and the index have different rows in their lists. Build the artifact again.")
    rows = Rows(mean)
    rows.append(_array(content, size - 2 * count * dim, "<f2", (count, dim)))
    return rows, lists


def size_of_rows(count: int, dim: int, lists: int) -> int:
    """Bytes of the file."""
    kind = lists_type(lists)
    return len(_header(count, dim, kind)) + 4 * dim + count * (kind.itemsize + 2 * dim)


def lists_type(lists: int) -> np.dtype[Any]:
    """The smallest type for the numbers of so many lists."""
    return np.dtype(np.uint16 if lists <= 2**16 else np.uint32)


def _header(count: int, dim: int, kind: np.dtype[Any]) -> bytes:
    """The header that the file has, padded so that the vectors begin at a page."""
    ends = np.cumsum([0, 4 * dim, kind.itemsize * count, 2 * count * dim]).tolist()
    names = {np.dtype(each): name for name, each in _TYPES.items()}
    parts = {"mean": ("F32", [dim]), "lists": (names[kind], [count]), "vectors": ("F16", [count, dim])}
    content: bytes = json.dumps(
        {
            name: {"dtype": dtype, "shape": shape, "data_offsets": ends[at : at + 2]}
            for at, (name, (dtype, shape)) in enumerate(parts.items())
        }
    ).encode()
    content += b" " * (-(8 + len(content) + ends[2]) % _PAGE)
    size: bytes = len(content).to_bytes(8, "little")
    return size + content


def _same(found: bytes, wanted: bytes) -> bool:
    """Whether a header says the same, in as many bytes."""
    if found[:8] != wanted[:8] or len(found) != len(wanted) or len(wanted) > _MOST_HEADER:
        return False
    try:
        return bool(parse_json(found[8:]) == json.loads(wanted[8:]))
    except ValueError:
        return False


def _array(content: mmap.mmap, start: int, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return np.ndarray(shape, kind, content, start)


def _is_on_disk(vectors: Any) -> bool:
    while vectors is not None and not isinstance(vectors, np.memmap | mmap.mmap):
        vectors = getattr(vectors, "base", None)
    return vectors is not None
