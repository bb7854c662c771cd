"""Which of Gradio's routes are open, and what the ids and numbers in their addresses may be."""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from retrieval.errors import short
from retrieval.ui.intake.refusing import RefusedError

API = "/gradio_api"
_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_LONGEST = 4096  # characters of an address, with its query

# Routes that neither the page nor a client of the endpoints needs. Some would be dangerous here: they fetch any
# address, write files, start ffmpeg, or make a picture of any size.
CLOSED = re.compile(
    rf"""
    /gradio_api/deep_link | /monitoring(/.*)? | /openapi\.json
    | {API}/(run|api)/.*
    | {API}/mcp/(sse|messages)(/.*)?
    | {API}/(proxy=.*|stream/.*|custom_component/.*|process_recording|dev/.*|profiling/.*)
    | {API}/(vibe-edit|undo-vibe-edit|vibe-code|vibe-starter-queries|runs|run-history/.*)/?
    """,
    re.VERBOSE | re.DOTALL,
)
_FILE = re.compile(rf"{API}/file[=/]\s*/*(?P<scheme>[a-z][a-z0-9+.-]*):", re.IGNORECASE)
_ICON = re.compile(r"/pwa_icon/(?!(192|512)\Z)")
_IDS = re.compile(rf"{API}/(?:heartbeat/(?P<session>.*)|call/(?:v2/)?[^/]+/(?P<event>.+))", re.DOTALL)
_LASTING = re.compile(rf"/heartbeat/|{API}/mcp(/|$)")
_QUERIED = {"session_hash", "upload_id"}


def check_route(method: str, path: str, query: str) -> None:
    """Raise RefusedError for a closed route, and for an address with an impossible id; `path` is without a prefix."""
    if len(path) + len(query) > _LONGEST:
        raise RefusedError(414, f"the address is too long: at most {_LONGEST:,} characters are accepted.")
    if "\0" in path:
        raise RefusedError(400, "the address holds a NUL character.")
    if found := _FILE.match(path):
        raise RefusedError(404, f"only files of this app are served here, no {found['scheme'].lower()} addresses.")
    if CLOSED.fullmatch(path) or _ICON.match(path):
        direct = path.startswith((f"{API}/run/", f"{API}/api/"))
        other = f"; call endpoints through {API}/call/v2/NAME" if direct else ""
        raise RefusedError(404, f"this app has nothing at {short(path, 80)}{other}.")
    if method == "GET" and (found := _IDS.fullmatch(path)):
        name = "session" if found["session"] is not None else "event"
        _check_id(found[name].rstrip("/"), f"the id of the {name}")
    if query and not path.startswith("/original/"):
        for name, values in parse_qs(query, keep_blank_values=True, max_num_fields=100).items():
            if name in _QUERIED and path.startswith(API):
                _check_id(values[-1], name)
    for name, route in (("session_hash", f"{API}/queue/data"), ("upload_id", f"{API}/upload_progress")):
        if path.rstrip("/") == route and name not in parse_qs(query):
            raise RefusedError(400, f"{route} needs the parameter {name}.")


def is_id(value: object) -> bool:
    """Whether a value can be the id of a session, event or upload: up to 128 letters, digits and `_ . : -`."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _check_id(value: str, name: str) -> None:
    if not is_id(value):
        raise RefusedError(
            400, f"{name} must be 1 to 128 letters, digits or _.:- characters, not {short(value, 60)!r}."
        )


def is_lasting(method: str, path: str) -> bool:
    """Whether a request is a stream that lasts as long as a page or a tool is open, and brings no answer."""
    return method == "GET" and _LASTING.search(path) is not None
