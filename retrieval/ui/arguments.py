"""The arguments of the endpoints as they come from anybody, checked; what is wrong with one is said in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.route_utils import get_root_url
from gradio_client.utils import is_file_obj_with_meta

from retrieval.errors import QueryError
from retrieval.ui import strings


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


def ids(value: Any, name: str) -> Sequence[str]:
    """A list of ids, or none."""
    if value is not None and not isinstance(value, list):
        raise QueryError(f"{name} is a list of ids of the gallery, not {value!r}.")
    return value or []


def whole(value: Any, name: str) -> int:
    """A whole number, also as the float that JSON may have made of it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise QueryError(f"{name} is a whole number, not {value!r}.")
    return int(value)


def number(value: Any, name: str) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QueryError(f"{name} is a number, not {value!r}.")
    return float(value)


def filter_of(value: Any) -> Mapping[str, Any] | None:
    """A filter as `Gallery.rows_where` takes it."""
    if value is not None and not isinstance(value, dict):
        raise QueryError(f"where is an object, column -> value or list of values, not {value!r}.")
    return value
