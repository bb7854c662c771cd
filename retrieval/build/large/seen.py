"""Which images are known by their content: twelve bytes each, where a dict would take some hundred.

Only a short hash of each SHA-256 is held in memory. Where one agrees, the SHA-256 itself is read from where it stands.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.arrays import Mask
from retrieval.images.gallery import Gallery

_LONGEST_RUN = 2**22  # rows sorted together: memory for that is taken besides
_AT_ONCE = 2**16  # texts made at a time
_OPEN = 4  # tables held in memory at a time

_Run = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]


class Hashes:
    """The numbers of rows by their SHA-256. Rows are added by one thread, and looked for by several."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []  # sorted short hashes and their rows, the longest first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, hashes: Sequence[str]) -> None:
        """The SHA-256 of the next rows."""
        if not len(hashes):
            return
        short = _short(hashes)
        order = np.argsort(short, kind="stable")
        runs = [*self._runs, (short[order], (order + self._count).astype(np.uint32))]
        while len(runs) > 1 and len(runs[-1][0]) * 2 > len(runs[-2][0]) and _rows(runs[-2:]) <= _LONGEST_RUN:
            runs[-2:] = [_merged(*runs[-2:])]
        self._runs = runs
        self._count += len(hashes)

    def rows(self, sha256: str) -> Iterator[int]:
        """The rows that may have it, and hardly any others."""
        short = hash(sha256)
        for keys, rows in self._runs:
            at = int(np.searchsorted(keys, short))
            while at < len(keys) and keys[at] == short:
                yield int(rows[at])
                at += 1

    def likely(self, hashes: Sequence[str]) -> Mask:
        """(N,) bool: which of these some row may have."""
        short, found = _short(hashes), np.zeros(len(hashes), bool)
        for keys, _ in self._runs:
            at = np.minimum(np.searchsorted(keys, short), len(keys) - 1)
            found |= keys[at] == short
        return found


class Seen:
    """Names of images by the SHA-256 of their content. Names are added by one thread, and looked for by several."""

    def __init__(self) -> None:
        self._parts: list[tuple[Hashes, Callable[[int], tuple[str, str]]]] = []
        self._new: dict[str, str] = {}

    def include(self, hashes: Hashes, read: Callable[[int], tuple[str, str]]) -> None:
        """Further images: their hashes, and what reads the SHA-256 and the name of one of their rows."""
        self._parts.append((hashes, read))

    def __contains__(self, sha256: object) -> bool:
        return self.get(str(sha256)) is not None

    def get(self, sha256: str) -> str | None:
        """The name of the first image with this content; None if it is not known."""
        if (name := self._new.get(sha256)) is not None:
            return name
        for hashes, read in self._parts:
            for row in hashes.rows(sha256):
                found, name = read(row)
                if found == sha256:
                    return name
        return None

    def __setitem__(self, sha256: str, name: str) -> None:
        self._new[sha256] = name

    def drop(self, hashes: Iterable[str]) -> None:
        """Forget names that were set, because they are in one of the parts by now."""
        for sha256 in hashes:
            self._new.pop(sha256, None)


def seen_in(gallery: Gallery) -> Seen:
    """The ids of the images of a gallery."""
    seen, hashes = Seen(), Hashes()
    for texts in texts_of(gallery.table["sha256"]):
        hashes.add(texts)

    def read(row: int) -> tuple[str, str]:
        image = gallery.take([row])[0]
        return image.sha256, image.id

    seen.include(hashes, read)
    return seen


def texts_of(column: pa.ChunkedArray) -> Iterator[list[str]]:
    """The texts of a column, some at a time."""
    for chunk in column.iterchunks():
        for at in range(0, len(chunk), _AT_ONCE):
            yield chunk.slice(at, _AT_ONCE).to_pylist()


class FileRows:
    """The rows of parquet files, numbered through, and read some files at a time. Thread-safe."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._paths: list[Path] = []
        self._starts = [0]
        self._read = lru_cache(_OPEN)(lambda path: pq.read_table(path, columns=[*columns]))

    def add(self, path: Path, rows: int) -> None:
        """The next file."""
        self._paths.append(path)
        self._starts.append(self._starts[-1] + rows)

    def get(self, row: int) -> dict[str, pa.Scalar]:
        """The values of a row."""
        at = bisect_right(self._starts, row) - 1
        table = self._read(self._paths[at])
        return {name: table[name][row - self._starts[at]] for name in table.column_names}


def _short(hashes: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(hash, hashes), np.int64, len(hashes))


def _rows(runs: Iterable[_Run]) -> int:
    return sum(len(keys) for keys, _ in runs)


def _merged(*runs: _Run) -> _Run:
    keys: Any = np.concatenate([keys for keys, _ in runs])
    rows: Any = np.concatenate([rows for _, rows in runs])
    order = np.argsort(keys, kind="stable")
    return keys[order], rows[order]
