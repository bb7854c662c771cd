"""The page's private events, posted directly to the server without the page, before and after a first click."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from visitor import Visitor

FILE = {"meta": {"_type": "gradio.FileData"}}
PREVIEW = "data:image/jpeg;base64"  # how the page shows a visitor's picture


@pytest.fixture
def visitor(twins_server: str, clicked: bool) -> Visitor:
    visitor = Visitor(twins_server)
    if clicked:
        visitor.click()
    return visitor


def takes_a_value(visitor: Visitor, event: dict[str, Any]) -> list[str]:
    """The inputs of an event, without those whose value stays on the server."""
    return [visitor.elem_id[one] for one in event["inputs"] if one not in visitor.states]


def takes_a_file(visitor: Visitor, event: dict[str, Any]) -> list[str]:
    return [visitor.elem_id[one] for one in event["inputs"] if visitor.elem_id[one] in ("query", "add")]


@pytest.mark.parametrize("clicked", [False, True])
def test_path_of_a_server_file_is_refused_in_every_page_event(visitor: Visitor, shirt: Path, tmp_path: Path) -> None:
    """Neither the picture nor its existence is revealed, whichever input of whichever event names it."""
    tried = 0
    for event in visitor.events:
        every = ("picture", "pictures", "search", "filter", "words", "settings")
        for elem_id in takes_a_value(visitor, event):
            # Only some inputs take pictures, and only one event does several things.
            file = elem_id in takes_a_file(visitor, event)
            for do in every if event == visitor.event("act") else every[:1]:
                answers = []
                for path in (shirt, tmp_path / shirt.name)[: 1 + file]:  # an existing file and a missing one
                    for meta in ({}, FILE):
                        value = {"path": str(path), **meta}
                        several = [value] if elem_id == "add" or str(elem_id).startswith("where-") else value
                        answer = visitor.post(event, {elem_id: several}, do=do, row=0)
                        assert PREVIEW not in answer
                        answers.append(answer.replace(str(path), "PATH"))
                if file:
                    tried += 1
                    assert all('"success":false' in answer.replace(" ", "") for answer in answers if "msg" in answer)
    assert tried == 12  # the two inputs that take pictures


@pytest.mark.parametrize("clicked", [False, True])
def test_uploaded_picture_is_searched(visitor: Visitor, twins_server: str, shirt: Path) -> None:
    """The control: without it, the test above would also pass if no picture were accepted at all."""
    for elem_id, do in (("query", "picture"), ("add", "pictures")):
        [path] = httpx.post(f"{twins_server}/gradio_api/upload", files={"files": shirt.read_bytes()}).json()
        value = {"path": path, **FILE}
        answer = visitor.post(visitor.event("act"), {elem_id: value if elem_id == "query" else [value]}, do=do)
        assert PREVIEW in answer


@pytest.mark.parametrize("clicked", [False, True])
@pytest.mark.parametrize(("elem_id", "do"), [("query", "picture"), ("add", "pictures")])
def test_text_file_named_as_a_picture_is_refused(visitor: Visitor, twins_server: str, elem_id: str, do: str) -> None:
    files = {"files": ("notes.jpg", b"this is no picture at all, but some words\n")}
    [path] = httpx.post(f"{twins_server}/gradio_api/upload", files=files).json()
    value = {"path": path, **FILE}
    answer = visitor.post(visitor.event("act"), {elem_id: value if elem_id == "query" else [value]}, do=do)
    assert "is not a readable picture" in answer
    assert path not in answer
    assert "Traceback" not in answer


@pytest.mark.parametrize("clicked", [False, True])
@pytest.mark.parametrize("number", [None, "", "many", float("nan"), [1], 1e9])
def test_search_succeeds_with_an_empty_or_invalid_number_box(visitor: Visitor, number: Any) -> None:
    given = dict.fromkeys(("k", "min-score"), None if number != number else number)
    answer = visitor.post(visitor.event("act"), given, do="search", row=1)
    assert json.loads(answer.splitlines()[-1].removeprefix("data: "))["success"]
