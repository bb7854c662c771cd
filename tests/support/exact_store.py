"""A brute-force store in numpy: the reference for the other stores."""

import numpy as np

from retrieval.stores.base import check_added, check_allowed, check_rows, check_search
from retrieval.stores.exact import search_rows


class ExactStore:
    """All vectors in one float32 matrix; a search is one matrix product and a sort."""

    def __init__(self, dim):
        self.dim = dim
        self._vectors = np.empty((0, dim), np.float32)

    def add(self, vectors):
        """See `Store.add`."""
        self._vectors = np.concatenate([self._vectors, check_added(vectors, self.dim)])

    def search(self, queries, k, allowed=None):
        """See `Store.search`; equal scores come in the order of their rows."""
        queries = check_search(queries, k, self.dim)
        rows = np.arange(len(self)) if allowed is None else check_allowed(allowed, len(self))
        return search_rows(queries, self._vectors[rows], rows, k)

    def vectors(self, ids):
        """See `Store.vectors`."""
        return self._vectors[check_rows(ids, len(self))]

    def __len__(self):
        return len(self._vectors)
