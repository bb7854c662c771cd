"""Which FAISS indexes can be stores, how they are made empty, and what is stated about them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import faiss

from retrieval.errors import StoreError

AUTO = "AUTO"  # instead of a factory string: choose one by size
# FAISS factory strings that satisfy the store interface: scores are inner products with the vectors that it returns;
# rows can be filtered, read back, and added to an emptied copy. Excluded: PCA (scores of centred vectors), LSH, PQ (its
# scores are off by tenths, and rows drift when added again), refined and mapped indexes. A graph with fewer than 2
# links per node crashes FAISS. RaBitQ is only accepted because a large store (`retrieval.stores.large`) keeps the
# vectors themselves beside it.
_IVF = r"IVF[1-9]\d{0,6}(_HNSW([2-9]|[1-9]\d\d?))?"
_FACTORIES = re.compile(
    rf"(({_IVF}|HNSW([2-9]|[1-9]\d\d?)),)?(Flat|SQfp16|SQbf16|SQ8|SQ6)|HNSW([2-9]|[1-9]\d\d?)|{_IVF},RaBitQ"
)


@dataclass(frozen=True)
class IndexSettings:
    """How an index was built and is searched; stored in the manifest, because FAISS keeps only part of it."""

    factory: str = "Flat"
    chosen: str = AUTO
    """`AUTO` if the factory string was chosen by size, else `asked`."""
    search: Mapping[str, int] = field(default_factory=dict)
    """`nprobe` for an IVF index, `efSearch` for HNSW; for RaBitQ also `refine`, the rows compared exactly."""
    recall_at_10: float | None = None
    """Measured against exact search on a sample of the rows, in [0, 1]; None if not measured yet."""
    bytes_per_vector: float | None = None


@dataclass(frozen=True)
class Effort:
    """A search parameter, with the smallest and largest useful value."""

    name: str
    least: int
    most: int


def is_large(factory: object) -> bool:
    """Whether a factory string is that of a large index, which has a second file."""
    return str(factory).endswith(",RaBitQ")


def made(dim: int, factory: str) -> Any:
    """An empty FAISS index; raises StoreError if it cannot be a store, or not with this dimension."""
    if not _FACTORIES.fullmatch(factory):
        raise StoreError(
            f"an index {factory!r} is not supported: its scores must be inner products, and its rows must be "
            "filterable and readable. "
            "Supported: Flat, SQ6, SQ8, SQbf16, SQfp16, alone or after 'IVF1024,' or 'HNSW32,', and 'IVF1024,RaBitQ'."
        )
    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise StoreError(
            f"FAISS cannot create an index {factory!r} for {dim} dimensions (see its wiki, 'The index factory')."
        ) from error


def kind_of(index: Any) -> str:
    """Describe an index by its classes, lists and bits: what its factory string says, read from the index itself."""
    # A new name: the original wrapper owns the memory, and must live as long as the downcast one.
    kind = faiss.downcast_index(index)
    name = "IndexFlat" if isinstance(kind, faiss.IndexFlat) else type(kind).__name__
    if hasattr(kind, "sq"):
        name += f" of type {kind.sq.qtype}"
    if isinstance(kind, faiss.IndexIVF):  # its lists may be in memory or in a mapped file
        return f"{name} with {kind.nlist} lists over {kind_of(kind.quantizer)}"
    return f"{name} over {kind_of(kind.storage)}" if isinstance(kind, faiss.IndexHNSW) else name


def without_rows(index: Any) -> Any:
    """An inverted file with the same training and no vectors, all in memory; FAISS cannot clone a mapped one."""
    old = faiss.downcast_index(index)
    quantizer = faiss.clone_index(old.quantizer)
    common = (old.d, old.nlist)
    if isinstance(old, faiss.IndexIVFScalarQuantizer):
        new = faiss.IndexIVFScalarQuantizer(quantizer, *common, old.sq.qtype, old.metric_type, old.by_residual)
        new.sq = old.sq
    elif isinstance(old, faiss.IndexIVFRaBitQ):
        new = faiss.IndexIVFRaBitQ(quantizer, *common, old.metric_type)
    else:
        new = faiss.IndexIVFFlat(quantizer, *common, old.metric_type)
    quantizer.this.disown()
    new.own_fields, new.is_trained = True, True
    return new


def in_memory(index: Any) -> Any:
    """A copy of an inverted file whose lists may be in a mapped file, with all its vectors in memory."""
    new = without_rows(index)
    lists = index.invlists
    for number in range(index.nlist):
        if size := lists.list_size(number):
            new.invlists.add_entries(number, size, lists.get_ids(number), lists.get_codes(number))
    new.ntotal = index.ntotal
    return new
