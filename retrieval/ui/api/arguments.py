"""The arguments of the endpoints as they come from anybody, checked; what is wrong with one is said in words."""

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
    """The address of the app as the client sees it, behind a proxy or a share link too."""
    if request is None or request.request is None:
        return ""
    root_path = request.request.scope.get("root_path") or None
    return str(get_root_url(request.request, request.request.url.path, root_path))


def uploaded(image: Any) -> str:
    """The path of an uploaded picture.

    Gradio has checked that it lies among the uploads, but only where the value says that it is a file; without this
    check any path of the server's could be named.
    """
    if not is_file_obj_with_meta(image):
        raise QueryError(strings.NO_PICTURE)
    return str(image["path"])


def words(value: Any, name: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value


def ids(value: Any, name: str) -> list[str]:
    """A list of ids, or none."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _wrong(name, "a list of ids of the gallery", value)
    if len(value) > _MOST_IDS:
        raise QueryError(f"{name} is a list of at most {_MOST_IDS} ids; there are {len(value)}.")
    return value


def whole(value: Any, name: str) -> int:
    """A whole number, also as the float that JSON may have made of it."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, "a whole number", value)
    return value


def number(value: Any, name: str) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "a number", value)
    return float(min(max(value, -1e9), 1e9))  # JSON can hold whole numbers that no float can


def flag(value: Any, name: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def filter_of(value: Any) -> Mapping[str, Any] | None:
    """A filter as `Gallery.rows_where` takes it."""
    if value is not None and not isinstance(value, dict):
        raise _wrong("where", "an object, column -> value or list of values", value)
    return value


def _wrong(name: str, wanted: str, value: Any) -> QueryError:
    return QueryError(f"{name} is {wanted}, not {short(repr(value), 100)}.")
