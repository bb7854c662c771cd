"""Which worker knows a session, an event or an upload: their ids in requests, and a table of bounded size.

Gradio keeps sessions, queues and answers in the memory of the process that began them. A browser names its session in
every request about it; a program that has only the id of an event got it in the answer to its call.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs

from retrieval.ui.intake.routes import API, is_id

_MOST = 2**15  # ids that are remembered: some 10 MB at most
_MOST_EVENTS = 16  # of a session
_EVENT = re.compile(rf"{API}/call/(?:v2/)?[^/]+/([^/]+)/?")
_HEARTBEAT = re.compile(rf"{API}/heartbeat/([^/]+)/?")
_STARTS = re.compile(rf"{API}/(?:queue/join|call/(?:v2/)?[^/]+)/?")
_NAMES_ONE = re.compile(rf"{API}/(?:cancel|reset|component_server)/?")
# Parsing a body as JSON can take a tenth of a second, and this process answers for all.
_IN_BODY = re.compile(rb'"(session_hash|event_id)"\s*:\s*"([^"\\]{1,200})"')
_PARSED = 2**16  # bytes
_STARTED = re.compile(rb'"event_id"\s*:\s*"([^"]+)"')

_Worker = TypeVar("_Worker")


@dataclass(frozen=True)
class Named:
    """What a request names."""

    session: str | None = None
    event: str | None = None
    upload: str | None = None

    @property
    def keys(self) -> list[str]:
        """Where the table is looked into, in this order."""
        named = (("session", self.session), ("event", self.event), ("upload", self.upload))
        return [f"{kind} {value}" for kind, value in named if value is not None]


def in_address(path: str, query: str) -> Named:
    """What the address of a request names; `path` is without a prefix."""
    if not path.startswith(API):
        return Named()
    if found := _HEARTBEAT.fullmatch(path):
        return Named(session=_id(found[1]))
    event = found[1] if (found := _EVENT.fullmatch(path)) else None
    try:
        asked = parse_qs(query, max_num_fields=100) if query else {}
    except ValueError:  # the worker says what is wrong
        asked = {}
    session, upload = (asked.get(name, [None])[-1] for name in ("session_hash", "upload_id"))
    return Named(_id(session), _id(event), _id(upload))


def starts_event(method: str, path: str) -> bool:
    """Whether the answer to a request may name a new event."""
    return method == "POST" and _STARTS.fullmatch(path) is not None


def has_names(method: str, path: str) -> bool:
    """Whether the body of a request names a session or event."""
    return method == "POST" and (starts_event(method, path) or _NAMES_ONE.fullmatch(path) is not None)


def in_body(body: bytes) -> Named:
    """What the JSON of a request names; nothing if it cannot be read, which the worker then says."""
    found = _IN_BODY.findall(body)
    if len({name for name, _ in found}) < len(found) and len(body) <= _PARSED:  # a value has such a name, too
        found = _at_the_top(body)
    named = {name: _id(value.decode("latin-1")) for name, value in reversed(found)}
    return Named(named.get(b"session_hash"), named.get(b"event_id"))


def _at_the_top(body: bytes) -> list[tuple[bytes, bytes]]:
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        return []
    given = given.items() if isinstance(given, dict) else ()
    return [(name.encode(), value.encode()) for name, value in given if isinstance(value, str)]


def in_answer(body: bytes) -> str | None:
    """The id of the event that an answer names."""
    found = _STARTED.search(body)
    return _id(found[1].decode("latin-1")) if found else None


def _id(value: Any) -> str | None:
    return value if is_id(value) else None


@dataclass
class Place(Generic[_Worker]):
    """Where something is kept."""

    worker: _Worker
    events: list[str] = field(default_factory=list)
    """The last events of a session."""


class Places(Generic[_Worker]):
    """Which worker keeps what; the ids that were not used for longest are forgotten first."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._places: OrderedDict[str, Place[_Worker]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._places)

    def find(self, named: Named) -> Place[_Worker] | None:
        """Where the first of these is kept that is known."""
        for key in named.keys:
            if found := self._places.get(key):
                self._places.move_to_end(key)
                return found
        return None

    def keep(self, named: Named, worker: _Worker) -> None:
        """Remember where these are kept."""
        for key in named.keys:
            found = self._places.get(key)
            if found is None or found.worker is not worker:
                self._places[key] = Place(worker)
            self._places.move_to_end(key)
        while len(self._places) > self._most:
            self._places.popitem(last=False)

    def begin(self, event: str, session: str | None, worker: _Worker) -> None:
        """Remember where an event is computed, and of which session it is."""
        self.keep(Named(session, event), worker)
        if session and (found := self._places.get(f"session {session}")):
            found.events = [*found.events, event][-_MOST_EVENTS:]

    def forget(self, named: Named) -> None:
        """Forget where these are kept."""
        for key in named.keys:
            self._places.pop(key, None)
