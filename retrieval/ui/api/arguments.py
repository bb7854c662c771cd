"""Validate the untrusted arguments of the endpoints; a wrong one raises QueryError with a readable message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.route_utils import get_root_url
from gradio_client.utils import is_file_obj_with_meta

from retrieval.errors import QueryError, short
from retrieval.ui import strings

_MOST_IDS = 100


def root_of(request: gr.Request | None) -> str:
    """The app's URL as the client sees it, also behind a proxy or a share link."""
    if request is None or request.request is None:
        return ""
    root_path = request.request.scope.get("root_path") or None
    return str(get_root_url(request.request, request.request.url.path, root_path))


def uploaded(image: Any) -> str:
    """The path of an uploaded image.

    Gradio verifies that the path is an upload, but only if the value is marked as a file; without this check, a client
    could name any path on the server.
    """
    if not is_file_obj_with_meta(image):
        raise QueryError(strings.NO_PICTURE)
    return str(image["path"])


def words(value: Any, name: str) -> str:
    """Require a string."""
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


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


def filter_of(value: Any) -> Mapping[str, Any] | None:
    """Require an object or null, as `Gallery.rows_where` accepts it."""
    if value is not None and not isinstance(value, dict):
        raise _wrong(
            "where", "an object that maps columns to a value, a list of values, or an object of operators", value
        )
    return value


def _wrong(name: str, wanted: str, value: Any) -> QueryError:
    return QueryError(f"{name} must be {wanted}, not {short(repr(value), 100)}.")
