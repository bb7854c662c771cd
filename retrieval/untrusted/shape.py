"""The shape of a manifest: each value has the type that its readers expect."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from retrieval.errors import short

_MOST_SCORES = 100  # of a golden query
_TYPES: dict[type, str] = {dict: "an object", list: "a list", str: "text", int: "a whole number"}
_GOLDEN: dict[str, type] = {"golden": dict, "golden.rows": list, "golden.scores": list}
_REQUIRED: dict[str, type] = {
    "files": dict,
    "rows": int,
    "dimension": int,
    "ids_sha256": str,
    "encoder": dict,
    "encoder.architecture": str,
    "encoder.fingerprint": str,
    "index": dict,
    **_GOLDEN,
    "golden.query_row": int,
}
_OPTIONAL: dict[str, type] = {
    "build": dict,
    "build.source": dict,
    "changes": list,
    "encoder.weights.license": str,
    "repository": str,
    "text.weights.license": str,
    "versions": dict,
}
_PARTS: dict[str, dict[str, type]] = {
    "encoder.weights": {"encoder.weights": dict, "encoder.weights.name": str},
    "map": {"map": dict},
    "text": {
        "text": dict,
        "text.dimension": int,
        "text.fingerprint": str,
        "text.name": str,
        "text.index": dict,
        "text.golden.query": str,
        **{f"text.{path}": kind for path, kind in _GOLDEN.items()},
    },
    "text.weights": {"text.weights": dict, "text.weights.name": str},
}


def check_shape(manifest: dict[str, Any]) -> None:
    """Raise ValueError, with the place, what is expected there and what was found, for a manifest of another shape."""
    wanted = _REQUIRED.copy()
    wanted |= {path: kind for path, kind in _OPTIONAL.items() if _at(manifest, path) is not None}
    for part, inside in _PARTS.items():
        wanted |= dict(inside) if part in manifest or _at(manifest, part) is not None else {}
    for path, kinds in (("text.one_tower", bool), ("text.exported", dict)):
        if (found := _at(manifest, path)) is not None and not isinstance(found, kinds):
            raise ValueError(f"{path} is {short(repr(found), 60)}")
    if _at(manifest, "text.one_tower") is True:  # its vectors are those of the artifact's own index
        del wanted["text.index"]
    for path, kind in wanted.items():
        found = _at(manifest, path)
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ValueError(f"{path} must be {_TYPES[kind]}, found {short(repr(found), 60)}")
    if manifest["rows"] < 1 or manifest["dimension"] < 1:
        raise ValueError(f"it states {manifest['rows']} rows of {manifest['dimension']} dimensions")
    for golden in _goldens(manifest):
        rows, scores = golden["rows"], golden["scores"]
        places = [*rows, golden.get("query_row", 0)]
        if not 0 < len(rows) == len(scores) <= _MOST_SCORES or not all(
            _is_row(row, manifest["rows"]) for row in places
        ):
            found = f"{len(scores)} scores and the rows {short(repr(places), 60)} of {manifest['rows']}"
            raise ValueError(f"a golden query has {found}")
        if not all(_is_score(score) for score in scores):
            raise ValueError(f"a golden query has the scores {short(repr(scores), 60)}")
    for change in manifest.get("changes") or []:
        sources = [_at(change, f"{kind}.source") for kind in ("add", "sync")]
        if not isinstance(change, dict) or not all(source is None or isinstance(source, dict) for source in sources):
            raise ValueError(f"changes has the entry {short(repr(change), 60)}")


def _goldens(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield manifest["golden"]
    if "text" in manifest:
        yield manifest["text"]["golden"]


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _is_row(value: Any, rows: int) -> bool:
    return type(value) is int and 0 <= value < rows


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= 2
