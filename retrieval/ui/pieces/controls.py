"""The inputs of the page: pictures, filters and sliders."""

from __future__ import annotations

import math
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta
from gradio.data_classes import FileData, ImageData, ListFiles
from gradio.utils import get_upload_folder, is_in_or_equal

from retrieval.images.gallery import Gallery
from retrieval.ui import strings

_NO_VALUE = "\0"  # which no text of a gallery is


class _Guard(ComponentMeta):  # type: ignore[misc]
    """Makes subclasses of Gradio's components whose `preprocess` checks what visitors send.

    The check has to be part of the class: for every update, Gradio makes a new component from the class, so a check set
    on an instance is gone after the first click. Gradio's own metaclass would also write a stub file beside this source
    for each class, to declare its events; these classes add none.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], members: dict[str, Any]) -> Any:
        """The class; `is_template` makes the page draw it as the component it is derived from."""
        return ABCMeta.__new__(cls, name, bases, {"is_template": True, **members})


class _DropZone(gr.Image, metaclass=_Guard):  # type: ignore[misc]
    """Gives the path of an upload. Gradio's own would decode the file with every decoder that Pillow has."""

    def preprocess(self, payload: ImageData | None) -> str | None:
        return None if payload is None else _uploaded(payload.path)


class _AddButton(gr.UploadButton, metaclass=_Guard):  # type: ignore[misc]
    """Gives the paths of several uploads."""

    def preprocess(self, payload: ListFiles | FileData | None) -> list[str]:
        files = payload or []
        return [_uploaded(file.path) for file in ([files] if isinstance(files, FileData) else files)]


class _Filter(gr.Dropdown, metaclass=_Guard):  # type: ignore[misc]
    """Gives values as text, even those no longer in the list: the gallery checks them."""

    def preprocess(self, payload: Any) -> list[str | None]:
        values = payload if isinstance(payload, list) else []
        return [None if value == _NO_VALUE else str(value) for value in values]


class _Choice(gr.Dropdown, metaclass=_Guard):  # type: ignore[misc]
    """Gives a value as text, even one that is not in the list."""

    def preprocess(self, payload: Any) -> str:
        return payload if isinstance(payload, str) else ""


def _uploaded(path: str | None) -> str:
    """The path of a file that was uploaded; raises gr.Error for any other.

    Gradio checks only values marked as files; without this, any picture on the server could be named.
    """
    if not (path and is_in_or_equal(path, get_upload_folder())):
        raise gr.Error(strings.NOT_UPLOADED, print_exception=False)
    return str(path)


def drop_zone() -> gr.Image:
    """Takes a picture dropped, chosen, pasted or photographed, and gives the path of the upload."""
    return _DropZone(
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        label=strings.QUERY,
        placeholder=strings.DROP,
        height=230,
        buttons=[],
        elem_id="query",
    )


# "image" alone is what the browser takes for one: not HEIC everywhere. Phones still offer the camera.
_PICTURES = ["image", ".heic", ".heif", ".heics", ".hif", ".avif"]


def add_button() -> gr.UploadButton:
    """Takes several pictures, and gives the paths of the uploads."""
    return _AddButton(strings.ADD_PICTURES, file_count="multiple", file_types=_PICTURES, size="sm", elem_id="add")


def add_filters(gallery: Gallery) -> list[gr.Dropdown]:
    """A drop-down for each of `Gallery.filters`, in that order: its values, with the number of images of each."""
    return [
        _Filter(choices(counts), multiselect=True, label=column_title(column), elem_id=f"where-{column}")
        for column, counts in gallery.facets(None).items()
    ]


def conditions_box(longest: int, info: str) -> gr.Textbox:
    """A box for conditions such as `price<=50`, of at most `longest` characters."""
    named = {"label": strings.CONDITIONS, "placeholder": strings.CONDITIONS_HINT, "info": info}
    return gr.Textbox(**named, max_length=longest, elem_id="conditions")


def one_of(values: list[tuple[str, str]], **options: Any) -> gr.Dropdown:
    """A drop-down to choose one of these (text, value), at first the first of them."""
    return _Choice(values, value=values[0][1], **options)


def choices(counts: Mapping[str | None, int], chosen: Sequence[str | None] = ()) -> list[tuple[str, str]]:
    """(text, value) for each value, including chosen ones that no image has any more."""
    left = {**counts, **{value: 0 for value in chosen if value not in counts}}
    return [
        (f"{strings.WITHOUT_VALUE if value is None else value} ({count:,})", as_choice(value))
        for value, count in left.items()
    ]


def as_choice(value: str | None) -> str:
    """A value of a filter as Gradio's list has it, which knows no None."""
    return _NO_VALUE if value is None else value


def slider(least: float, most: float, value: float, step: float, **options: Any) -> gr.Slider:
    """A slider; while its number box is empty, which Gradio would refuse, it counts as the initial value."""

    class Number(gr.Slider, metaclass=_Guard):  # type: ignore[misc]
        """One class for each slider, as Gradio does not pass the initial value on to the component it makes anew."""

        def preprocess(self, payload: Any) -> float:
            is_number = isinstance(payload, int | float) and not math.isnan(payload)
            return min(max(payload, least), most) if is_number else value

    return Number(least, most, value=value, step=step, **options)


def column_title(column: str) -> str:
    """A column's name as a heading; Gradio takes a plain `label` for a word of its own."""
    words = column.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
