"""Projection: the vectors of a gallery in two dimensions, as a map.

PCA (Pearson, 1901) is always there. t-SNE (van der Maaten and Hinton, 2008; openTSNE) and UMAP (McInnes et al., 2018)
keep neighbours together better, take minutes where PCA takes seconds, and are packages of their own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Vectors
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import agree, reading
from retrieval.errors import IntegrityError, MapError

MAP = "map"  # the section of the manifest
PCA, TSNE, UMAP = METHODS = ("pca", "tsne", "umap")
_PACKAGES = {TSNE: ("openTSNE", "openTSNE"), UMAP: ("umap", "umap-learn")}  # what is imported, what pip calls it
_SAMPLE = 16_384  # rows that the axes are made from
_CHUNK = 8_192  # rows at a time: bounds the memory beside the vectors
_FLAT = 1e-12  # of the mean square length: less variance than this is the rounding of float32
_TIE = 1e-6  # axes are turned by their largest number; so near to it, others are as large
_FEW = 10  # rows: too few to have neighbourhoods
_PERPLEXITY = 30.0
_NEIGHBOURS = 15


def check_method(method: str) -> None:
    """Raise MapError for a method that is unknown, or whose package is not installed; imports nothing."""
    if method not in METHODS:
        raise MapError(f"there is no map method {method!r}; choose one of {', '.join(METHODS)}.")
    module, package = _PACKAGES.get(method, ("numpy", "numpy"))
    if importlib.util.find_spec(module) is None:
        raise MapError(f"a map by {method!r} needs a package that is not here: pip install {package}")


def project(vectors: Vectors, method: str = PCA) -> Vectors:
    """(N, D) float32 to (N, 2) float32 in [-1, 1], by `pca`, `tsne` or `umap`; the same each time, as all are seeded.

    The wider side reaches from -1 to 1, and the aspect is kept. t-SNE and UMAP begin with PCA, which is what stays
    where there are fewer than 10 rows, or all are the same. Raises MapError as `check_method` does.
    """
    check_method(method)
    start = pca(vectors)
    if method == PCA or len(vectors) < _FEW or not start.any():
        return start
    return _scaled(_tsne(vectors, start) if method == TSNE else _umap(vectors, start))


def pca(vectors: Vectors) -> Vectors:
    """(N, D) float32 to (N, 2) float32 in [-1, 1]: the two axes of most variance, the first horizontal.

    An axis points where its largest number is positive, so that the map is the same on every machine. What has no
    second axis (one or two rows, D = 1, vectors on a line) has zeros there. Of more than 16,384 rows, the axes are
    those of as many, spread over all: a page does not wait for the last digits of a picture.
    """
    from scipy.linalg import eigh  # a while to import, and a page without a map needs none of it

    rows, dim = vectors.shape
    if not rows:
        return np.empty((0, 2), np.float32)
    mean = vectors.mean(axis=0, dtype=np.float64)
    sample = vectors[:: -(-rows // _SAMPLE)].astype(np.float64)
    length = float(np.einsum("nd,nd->", sample, sample)) / len(sample)
    sample -= mean
    variances, axes = eigh(sample.T @ sample / len(sample), subset_by_index=[max(dim - 2, 0), dim - 1])
    map_ = np.zeros((rows, 2))
    for column in range(min(2, dim)):
        if variances[-1 - column] > _FLAT * length:
            axis = axes[:, -1 - column]
            size = np.abs(axis)
            axis = axis * np.sign(axis[np.argmax(size >= size.max() * (1 - _TIE))])
            for start in range(0, rows, _CHUNK):
                map_[start : start + _CHUNK, column] = (vectors[start : start + _CHUNK] - mean) @ axis
    return _scaled(map_)


def _tsne(vectors: Vectors, start: Vectors) -> npt.NDArray[Any]:
    from openTSNE import TSNE as Method  # noqa: N811
    from openTSNE.initialization import rescale

    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    fitted = Method(perplexity=perplexity, initialization=rescale(start), random_state=0).fit(vectors)
    return np.asarray(fitted)


def _umap(vectors: Vectors, start: Vectors) -> npt.NDArray[Any]:
    from umap import UMAP as Method  # noqa: N811

    neighbours = min(_NEIGHBOURS, len(vectors) - 1)
    # A seed has UMAP use one thread; said here, it does not warn of it.
    return np.asarray(Method(n_neighbors=neighbours, init=10 * start, random_state=0, n_jobs=1).fit_transform(vectors))


def _scaled(map_: npt.NDArray[Any]) -> Vectors:
    """The same map, moved and scaled so that its wider side reaches from -1 to 1."""
    low, high = map_.min(axis=0), map_.max(axis=0)
    half = float((high - low).max()) / 2 or 1.0
    scaled: Vectors = ((map_ - (low + high) / 2) / half).astype(np.float32)
    return scaled


def map_method_of(manifest: Mapping[str, Any]) -> str | None:
    """How the map of an artifact was made; None where it has none.

    Raises MapError where it cannot be made anew here: to be asked before hours of work.
    """
    if MAP not in manifest:
        return None
    method = str(manifest[MAP]["method"])
    check_method(method)
    return method


def write_map(folder: Path, vectors: Vectors, method: str | None) -> dict[str, Any]:
    """Write the map of an artifact's vectors, (N, D) float32, if it is to have one; returns manifest entries."""
    if method is None:
        return {}
    np.save(folder / LAYOUT.map, project(vectors, method), allow_pickle=False)
    return {MAP: {"method": method}}


def read_map(folder: Path, manifest: Mapping[str, Any]) -> Vectors | None:
    """The map of an artifact whose files were checked, (N, 2) float32; None where it has none.

    Raises IntegrityError where it does not have one point for each row, or was made by a method unknown here.
    """
    agree(f"{LAYOUT.map}: a map", MAP in manifest, LAYOUT.map in manifest["files"])
    if MAP not in manifest:
        return None
    if (method := manifest[MAP]["method"]) not in METHODS:
        raise IntegrityError(
            f"{LAYOUT.manifest} states a map made by {method!r}; this version knows {', '.join(METHODS)}. Upgrade it, "
            "or build the artifact again."
        )
    with reading(LAYOUT.map):
        map_: Vectors = np.load(folder / LAYOUT.map, allow_pickle=False)
        shape, dtype = list(map_.shape), str(map_.dtype)
    agree(f"{LAYOUT.map}: shape", [manifest["rows"], 2], shape)
    agree(f"{LAYOUT.map}: type", "float32", dtype)
    if not np.isfinite(map_).all():
        raise IntegrityError(f"{LAYOUT.map} holds numbers that are not finite: build the artifact again.")
    return map_
