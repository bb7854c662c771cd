"""The page's private events, posted directly to the server without the page, before and after a first click."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

FILE = {"meta": {"_type": "gradio.FileData"}}
PREVIEW = "data:image/jpeg;base64"  # how the page shows a visitor's picture
_numbers = itertools.count()


class Visitor:
    """A session without a browser: every event is posted with the inputs that the page would send."""

    def __init__(self, server: str) -> None:
        self._api, self._session = f"{server}/gradio_api", f"visitor-{next(_numbers)}"
        self._http = httpx.Client(timeout=60)
        config = self._http.get(f"{server}/config").json()
        self._first = {one["id"]: one["props"].get("value") for one in config["components"]}
        self._type = {one["id"]: one["type"] for one in config["components"]}
        self.elem_id = {one["id"]: one["props"].get("elem_id") for one in config["components"]}
        private = [one for one in config["dependencies"] if one["api_visibility"] == "private"]
        self.events = [one for one in private if one["backend_fn"]]

    def event(self, name: str) -> dict[str, Any]:
        """The only event with a target of that name."""
        [found] = [one for one in self.events if any(kind == name for _, kind in one["targets"])]
        return found

    def post(self, event: dict[str, Any], given: dict[str, Any] | None = None, **data: Any) -> str:
        """The whole answer of the server to an event; `given` replaces initial values, by elem_id."""
        values = {self.elem_id[one]: self._first[one] for one in event["inputs"]}
        states = [one for one in event["inputs"] if self._type[one] == "state"]
        values |= given or {}
        sent = [None if one in states else values[self.elem_id[one]] for one in event["inputs"]]
        body = {"data": sent, "fn_index": event["id"], "session_hash": self._session, "event_data": data}
        joined = self._http.post(f"{self._api}/queue/join", json=body)
        if not joined.is_success:
            return joined.text
        answers = f"{self._api}/queue/data?session_hash={self._session}"
        with self._http.stream("GET", answers) as lines:
            return "\n".join(until_done(lines.iter_lines()))

    def click(self) -> None:
        """Search for images similar to the first one; Gradio re-creates the components after it."""
        assert '"success":true' in self.post(self.event("act"), do="search", row=0).replace(" ", "")


def until_done(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if "process_completed" in line:
            return


@pytest.fixture
def visitor(twins_server: str, clicked: bool) -> Visitor:
    visitor = Visitor(twins_server)
    if clicked:
        visitor.click()
    return visitor


def takes_a_file(visitor: Visitor, event: dict[str, Any]) -> list[str]:
    return [visitor.elem_id[one] for one in event["inputs"] if visitor.elem_id[one] in ("query", "add")]


@pytest.mark.parametrize("clicked", [False, True])
def test_path_of_a_server_file_is_refused_in_every_page_event(visitor: Visitor, shirt: Path, tmp_path: Path) -> None:
    """Neither the picture nor its existence is revealed, whichever input of whichever event names it."""
    tried = 0
    for event in visitor.events:
        for elem_id in (visitor.elem_id[one] for one in event["inputs"]):
            for do in ("picture", "pictures", "search", "filter", "words", "settings"):
                answers = []
                for path in (shirt, tmp_path / shirt.name):  # an existing file and a missing one
                    for meta in ({}, FILE):
                        value = {"path": str(path), **meta}
                        several = [value] if elem_id == "add" or str(elem_id).startswith("where-") else value
                        answer = visitor.post(event, {elem_id: several}, do=do, row=0)
                        assert PREVIEW not in answer
                        answers.append(answer.replace(str(path), "PATH"))
                if elem_id in takes_a_file(visitor, event):
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
