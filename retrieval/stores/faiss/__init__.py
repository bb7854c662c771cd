"""The FAISS store, used by every artifact."""

from retrieval.stores.faiss.kinds import AUTO, Effort, IndexSettings
from retrieval.stores.faiss.store import FaissStore

__all__ = ["AUTO", "Effort", "FaissStore", "IndexSettings"]
