"""Open or make the store of an index type: a large one has a store of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import IntegrityError
from retrieval.stores.faiss import FaissStore, IndexSettings
from retrieval.stores.faiss.kinds import is_large
from retrieval.stores.large.store import LargeStore, rows_file


def open_index(path: Path, settings: Mapping[str, Any]) -> FaissStore:
    """Open an index file, of which `settings` is what the manifest states; raises IntegrityError."""
    if is_large(settings.get("factory")):
        return LargeStore.load(path, settings)
    if rows_file(path).exists():
        raise IntegrityError(f"{rows_file(path).name} belongs to a large index, but {path.name} is none.")
    return FaissStore.load(path, settings)


def new_store(dim: int, settings: IndexSettings) -> FaissStore:
    """An empty store; raises StoreError for a factory string that no store can have."""
    return (LargeStore if is_large(settings.factory) else FaissStore)(dim, settings)
