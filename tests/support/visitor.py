"""A visitor of the page without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx

_numbers = count()


class Visitor:
    """A session without a browser: every event is posted with the inputs that the page would send."""

    def __init__(self, server: str) -> None:
        self._api, self._session = f"{server}/gradio_api", f"visitor-{next(_numbers)}"
        self._http = httpx.Client(timeout=60)
        config = self._http.get(f"{server}/config").json()
        self._first = {one["id"]: one["props"].get("value") for one in config["components"]}
        self.states = {one["id"] for one in config["components"] if one["type"] == "state"}
        self.elem_id = {one["id"]: one["props"].get("elem_id") for one in config["components"]}
        private = [one for one in config["dependencies"] if one["api_visibility"] == "private"]
        self.events = [one for one in private if one["backend_fn"]]

    def event(self, name: str) -> dict[str, Any]:
        """The only event with a target of that name."""
        [found] = [one for one in self.events if any(kind == name for _, kind in one["targets"])]
        return found

    def post(self, event: dict[str, Any], given: dict[str, Any] | None = None, **data: Any) -> str:
        """The whole answer of the server to an event; `given` replaces initial values, by elem_id."""
        refused = self.join(event, given, **data)
        return self.answers() if refused is None else refused

    def join(self, event: dict[str, Any], given: dict[str, Any] | None = None, **data: Any) -> str | None:
        """Ask for an event, whose answer is not waited for; returns why it was refused, if it was."""
        values = {self.elem_id[one]: self._first[one] for one in event["inputs"]}
        values |= given or {}
        sent = [None if one in self.states else values[self.elem_id[one]] for one in event["inputs"]]
        body = {"data": sent, "fn_index": event["id"], "session_hash": self._session, "event_data": data}
        joined = self._http.post(f"{self._api}/queue/join", json=body)
        return None if joined.is_success else joined.text

    def answers(self) -> str:
        """The messages of the server about what was joined, up to the first answer."""
        address = f"{self._api}/queue/data?session_hash={self._session}"
        with self._http.stream("GET", address) as lines:
            return "\n".join(until_done(lines.iter_lines()))

    def click(self) -> None:
        """Search for images similar to the first one; Gradio re-creates the components after it."""
        assert '"success":true' in self.post(self.event("act"), do="search", row=0).replace(" ", "")


def until_done(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if "process_completed" in line:
            return
