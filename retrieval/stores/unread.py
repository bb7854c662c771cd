"""An index that stays in its file, because the vectors are searched in a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from retrieval.errors import StoreError
from retrieval.stores.faiss import FaissStore, IndexSettings


class UnreadStore(FaissStore):
    """Stands for an index that is not in memory: it knows its size, and all else raises StoreError."""

    def __init__(self, dim: int, rows: int) -> None:
        self.dim, self.settings, self._rows = dim, IndexSettings(), rows

    def __len__(self) -> int:
        return self._rows

    def add(self, vectors: Any) -> NoReturn:
        """Raises StoreError."""
        raise _unread()

    def search(self, queries: Any, k: int, allowed: Any = None) -> NoReturn:
        """Raises StoreError."""
        raise _unread()

    def vectors(self, ids: Any) -> NoReturn:
        """Raises StoreError."""
        raise _unread()

    def save(self, path: Path) -> NoReturn:
        """Raises StoreError."""
        raise _unread()


def _unread() -> StoreError:
    return StoreError("this artifact was opened for a vector database, without its own index: use open_artifact.")
