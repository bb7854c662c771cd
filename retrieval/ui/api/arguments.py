"""Validate the untrusted arguments of the endpoints; a wrong one raises QueryError with a readable message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.route_utils import get_root_url

from retrieval.errors import QueryError, short_repr
from retrieval.evaluation.duplicates import GATE, check_threshold
from retrieval.images.filters import ORDERED, parse
from retrieval.images.regions import as_region
from retrieval.query import MAX_K, check_k, check_score
from retrieval.ui import strings

_MOST_IDS = 100
_MOST_GROUPS = 1000
_MOST_CONDITIONS, _MOST_VALUES = 100, 1000  # of a filter
_LONGEST_PATH = 4096
FILE = "gradio.FileData"
UPLOADED = "uploaded"
"""The key that stands for a picture of a tool call, which is an upload already; with its path."""
FETCHED = "fetched"
"""The key that stands for a picture fetched from an address (`retrieval.ui.intake.addresses`)."""


def root_of(request: gr.Request | None) -> str:
    """The app's URL as the client sees it, also behind a proxy or a share link."""
    if request is None or request.request is None:
        return ""
    root_path = request.request.scope.get("root_path") or None
    return str(get_root_url(request.request, request.request.url.path, root_path))


def is_file(value: Any) -> bool:
    """Whether a value is marked as a file: an object with a path and Gradio's mark."""
    meta = value.get("meta") if isinstance(value, dict) else None
    return isinstance(meta, dict) and meta.get("_type") == FILE and isinstance(value.get("path"), str)


def picture(value: Any, name: str = "image") -> dict[str, Any]:
    """Require a picture: an uploaded file or an address, as an object that Gradio's clients make.

    Gradio verifies that a path is an upload, but only if the value is marked as a file; without this check, a client
    could name any path on the server.
    """
    if isinstance(value, dict) and value.keys() == {FETCHED} and isinstance(value[FETCHED], str):
        return value
    if not is_file(value) or len(value["path"]) > _LONGEST_PATH:
        raise QueryError(strings.NO_PICTURE)
    return dict(value)


def text(value: Any, name: str) -> str:
    """Require a string."""
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


def query_text(value: Any, name: str) -> str:
    """Require a string with something in it; returns it without blanks around it."""
    if not text(value, name).strip():
        raise QueryError('the text to search for is empty: give some words, for example "a red bag".')
    return str(value).strip()


def ids(value: Any, name: str) -> list[str]:
    """Require a list of ids; None gives an empty list."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _wrong(name, "a list of gallery ids", value)
    if len(value) > _MOST_IDS:
        raise QueryError(f"{name} must have at most {_MOST_IDS} ids, not {len(value)}.")
    return value


def whole(value: Any, name: str) -> int:
    """Require an integer; a float with an integer value, which JSON may produce, is converted."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, "a whole number", value)
    return value


def number(value: Any, name: str) -> float:
    """Require a number; clipped to [-1e9, 1e9]."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "a number", value)
    return float(min(max(value, -1e9), 1e9))  # JSON can hold integers that no float can


def flag(value: Any, name: str) -> bool:
    """Require true or false."""
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def threshold(value: Any, name: str) -> float:
    """Require a threshold of near-duplicates."""
    least = number(value, name)
    check_threshold(least)
    return least


def groups(value: Any, name: str) -> int:
    """Require a number of groups."""
    count = whole(value, name)
    if not 1 <= count <= _MOST_GROUPS:
        said = short_repr(count, 100)
        raise QueryError(f"{name}, the number of groups, must be from 1 to {_MOST_GROUPS}, not {said}.")
    return count


def filter_of(value: Any, name: str = "where") -> Mapping[str, Any] | None:
    """Require an object or null, as `Gallery.rows_where` accepts it, with a bounded number of conditions and values."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _wrong(name, "an object that maps columns to a value, a list of values, or an object of operators", value)
    conditions = parse(value).conditions if len(value) <= _MOST_CONDITIONS else ()
    values = [each for one in conditions for each in one.values]
    if len(value) > _MOST_CONDITIONS or len(conditions) > _MOST_CONDITIONS or len(values) > _MOST_VALUES:
        raise QueryError(f"{name} must have at most {_MOST_CONDITIONS} conditions, with {_MOST_VALUES} values in all.")
    for each in values:
        if not isinstance(each, str | int | float | None):
            raise _wrong(f"a value in {name}", "a string, a number, true, false or null", each)
    return value


def _wrong(name: str, wanted: str, value: Any) -> QueryError:
    return QueryError(f"{name} must be {wanted}, not {short_repr(value, 100)}.")


@dataclass(frozen=True)
class Argument:
    """One argument, which means the same in every endpoint: how it is checked, and its JSON schema."""

    check: Callable[[Any, str], Any]
    """Returns the value in the form the endpoint uses; raises QueryError or ImageError."""
    schema: dict[str, Any]


_SCALAR: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
_EQUAL = {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "maxItems": _MOST_VALUES}]}
_ORDERED = {"type": ["string", "number"]}
_OPERATORS = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("=", "!="), _EQUAL),
        **dict.fromkeys(ORDERED, _ORDERED),
    },
    "additionalProperties": False,
    "minProperties": 1,
}
_WHERE = {
    "type": "object",
    "additionalProperties": {"anyOf": [*_EQUAL["anyOf"], _OPERATORS]},
    "maxProperties": _MOST_CONDITIONS,
}
_FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
_IDS = {"type": "array", "items": {"type": "string"}, "maxItems": _MOST_IDS}
_PICTURE = {"$ref": "#/components/schemas/FileData"}

ARGUMENTS: dict[str, Argument] = {
    "image": Argument(picture, _PICTURE),
    "id": Argument(text, {"type": "string"}),
    "text": Argument(query_text, {"type": "string", "pattern": r"\S"}),
    "hit": Argument(text, {"type": "string"}),
    "k": Argument(lambda value, name: check_k(whole(value, name)), {"type": "integer", "minimum": 1, "maximum": MAX_K}),
    "min_score": Argument(
        lambda value, name: check_score(number(value, name)), {"type": "number", "minimum": -1, "maximum": 1}
    ),
    "where": Argument(filter_of, _WHERE),
    "region": Argument(
        lambda value, name: None if value is None else as_region(value),
        {"type": "array", "items": _FRACTION, "minItems": 4, "maxItems": 4},
    ),
    "like": Argument(ids, _IDS),
    "unlike": Argument(ids, _IDS),
    "fold": Argument(flag, {"type": "boolean"}),
    "group_by": Argument(text, {"type": "string"}),
    "threshold": Argument(threshold, {"type": "number", "minimum": GATE, "maximum": 1}),
    "limit": Argument(groups, {"type": "integer", "minimum": 1, "maximum": _MOST_GROUPS}),
}


def checked(name: str, value: Any) -> Any:
    """The value of an argument as an endpoint uses it; raises QueryError or ImageError for a wrong one."""
    return ARGUMENTS[name].check(value, name)
