"""Map: a projection of the gallery's embeddings to two dimensions.

PCA (Pearson, 1901) is always available. t-SNE (van der Maaten and Hinton, 2008; openTSNE) and UMAP (McInnes et al.,
2018) preserve neighbourhoods better, but take minutes instead of seconds and need optional packages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.arrays import Vectors
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.manifest import agree, reading
from retrieval.errors import IntegrityError, MapError
from retrieval.installed import check_installed

MAP = "map"  # the section of the manifest
PCA, TSNE, UMAP = METHODS = ("pca", "tsne", "umap")
_MODULES = {PCA: "numpy", TSNE: "openTSNE", UMAP: "umap"}
_SAMPLE = 16_384  # rows used to compute the axes
_CHUNK = 8_192  # rows projected at a time, to bound memory
_FLAT = 1e-12  # share of the mean squared norm: variance below this is float32 rounding error
_TIE = 1e-6  # the largest component fixes an axis's sign; components this close to it count as equal
_FEW = 10  # with fewer rows there are no meaningful neighbourhoods
_PERPLEXITY = 30.0
_NEIGHBOURS = 15


def check_method(method: str) -> None:
    """Raise MapError for an unknown method, MissingExtraError for one that is not installed; imports nothing."""
    if method not in METHODS:
        raise MapError(f"unknown map method {method!r}; choose one of {', '.join(METHODS)}.")
    check_installed(_MODULES[method], f"the map method {method!r}")


def project(vectors: Vectors, method: str = PCA) -> Vectors:
    """Project (N, D) float32 to (N, 2) float32 in [-1, 1] with `pca`, `tsne` or `umap`, using a fixed seed.

    The longer side spans -1 to 1; the aspect ratio is kept. t-SNE and UMAP are initialized with PCA. The PCA result is
    returned for fewer than 10 rows, or if all rows are equal. Raises like `check_method`.
    """
    check_method(method)
    start = pca(vectors)
    if method == PCA or len(vectors) < _FEW or not start.any():
        return start
    return _scaled(_tsne(vectors, start) if method == TSNE else _umap(vectors, start))


def pca(vectors: Vectors) -> Vectors:
    """Project (N, D) float32 to (N, 2) float32 in [-1, 1] on the first two principal components.

    The sign of each axis makes its largest component positive, so the map is the same on every machine. The second
    column is zero if there is no second component (one or two rows, D = 1, collinear vectors). Above 16,384 rows, the
    components come from an evenly spaced sample: for a plot, the last digits are not worth the wait.
    """
    rows, dim = vectors.shape
    if not rows:
        return np.empty((0, 2), np.float32)
    mean = vectors.mean(axis=0, dtype=np.float64)
    sample = vectors[:: -(-rows // _SAMPLE)].astype(np.float64)
    length = float(np.einsum("nd,nd->", sample, sample)) / len(sample)
    sample -= mean
    variances, axes = np.linalg.eigh(sample.T @ sample / len(sample))
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
    # With a seed, UMAP uses one thread; an explicit n_jobs=1 avoids its warning.
    return np.asarray(Method(n_neighbors=neighbours, init=10 * start, random_state=0, n_jobs=1).fit_transform(vectors))


def _scaled(map_: npt.NDArray[Any]) -> Vectors:
    """Shift and scale a map so that its longer side spans -1 to 1."""
    low, high = map_.min(axis=0), map_.max(axis=0)
    half = float((high - low).max()) / 2 or 1.0
    moved = map_ - (low + high) / 2
    moved /= half
    scaled: Vectors = moved.astype(np.float32)
    return scaled


def map_method_of(manifest: Mapping[str, Any]) -> str | None:
    """The projection method of an artifact's map; None if it has no map.

    Raises MissingExtraError if the method is not installed here. Call this before a long job that has to redo the map.
    """
    if MAP not in manifest:
        return None
    method = str(manifest[MAP]["method"])
    check_method(method)
    return method


def write_map(folder: Path, vectors: Vectors, method: str | None) -> dict[str, Any]:
    """Project `vectors`, (N, D) float32, and save the map unless `method` is None; returns manifest entries."""
    if method is None:
        return {}
    np.save(folder / LAYOUT.map, project(vectors, method), allow_pickle=False)
    return {MAP: {"method": method}}


def read_map(folder: Path, manifest: Mapping[str, Any]) -> Vectors | None:
    """The map of an artifact, (N, 2) float32; None if it has none. The files must already be verified.

    Raises IntegrityError if the map does not have one finite point per row, or its method is unknown.
    """
    agree(f"{LAYOUT.map}: map present", MAP in manifest, LAYOUT.map in manifest["files"])
    if MAP not in manifest:
        return None
    if (method := manifest[MAP]["method"]) not in METHODS:
        raise IntegrityError(
            f"{LAYOUT.manifest} names the map method {method!r}, but this version of Lookalike knows only "
            f"{', '.join(METHODS)}: upgrade Lookalike, or build the artifact again."
        )
    with (
        reading(LAYOUT.map),
        (folder / LAYOUT.map).open("rb") as file,
    ):  # the header first: NumPy allocates what it says
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError("objects cannot be loaded with allow_pickle=False")
        size = file.seek(0, os.SEEK_END)
    agree(f"{LAYOUT.map}: shape", [manifest["rows"], 2], list(shape))
    agree(f"{LAYOUT.map}: type", "float32", str(dtype))
    if size < manifest["rows"] * 8:
        raise IntegrityError(
            f"{LAYOUT.map} has {size:,} bytes for {manifest['rows']:,} points: build the artifact again."
        )
    with reading(LAYOUT.map):
        map_: Vectors = np.load(folder / LAYOUT.map, allow_pickle=False)
    if not np.isfinite(map_).all():
        raise IntegrityError(f"{LAYOUT.map} contains values that are not finite: build the artifact again.")
    return map_
