"""Parts: what an artifact may have beside what each has: a map of its gallery."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.errors import IntegrityError
from retrieval.layout import LAYOUT
from retrieval.manifest import agree, reading
from retrieval.projection import check_method, project
from retrieval.stores.base import Vectors

MAP = "map"  # the section of the manifest


def map_method(manifest: Mapping[str, Any]) -> str | None:
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

    Raises IntegrityError where it is not one of as many rows.
    """
    agree(f"{LAYOUT.map}: a map", MAP in manifest, LAYOUT.map in manifest["files"])
    if MAP not in manifest:
        return None
    with reading(LAYOUT.map):
        map_: Vectors = np.load(folder / LAYOUT.map, allow_pickle=False)
        shape, dtype = list(map_.shape), str(map_.dtype)
    agree(f"{LAYOUT.map}: shape", [manifest["rows"], 2], shape)
    agree(f"{LAYOUT.map}: type", "float32", dtype)
    if not np.isfinite(map_).all():
        raise IntegrityError(f"{LAYOUT.map} holds numbers that are not finite: build the artifact again.")
    return map_
