"""Vector stores: they hold unit vectors and answer nearest neighbours by cosine.

`open_store("faiss", dim=256)` opens an empty one by name; a store's module is imported only then, so that an optional
backend costs nothing until it is asked for, and its error holds the command that installs it.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

from retrieval.errors import StoreError
from retrieval.stores.base import MISSING, Store

# name -> (module, class, what `pip install` needs)
_STORES = {
    "exact": ("retrieval.stores.exact", "ExactStore", "numpy"),
    "faiss": ("retrieval.stores.faiss", "FaissStore", "faiss-cpu"),
}


def open_store(name: str, dim: int, **options: Any) -> Store:
    """An empty store for vectors of `dim` numbers; raises StoreError where the store is unknown or not installed."""
    if name not in _STORES:
        raise StoreError(f"no store is called {name!r}; there are {', '.join(sorted(_STORES))}.")
    module, kind, package = _STORES[name]
    try:
        factory = getattr(importlib.import_module(module), kind)
    except ImportError as error:
        raise StoreError(f"the store {name!r} needs a package that is not here: pip install {package}") from error
    return cast(Store, factory(dim, **options))


__all__ = ["MISSING", "Store", "open_store"]
