"""Random requests to the running server: `pytest tests/ui/api/test_fuzz.py --fuzz 20000 --fuzz-seed 1` sends more."""

from __future__ import annotations

import json
import random
from typing import Any
from urllib.parse import quote

import httpx
import pytest

API = "/gradio_api"
FILE = {"path": "/tmp/gradio/x/y.png", "meta": {"_type": "gradio.FileData"}}
ADDRESS = {"path": "http://127.0.0.1:9/x.png", "url": "https://[::1]/", "meta": {"_type": "gradio.FileData"}}
NASTY: list[Any] = [
    *(0, -1, 1, 10**9, -(10**9), 2**63, 10**400, 1e308, -0.0, 0.5, float("nan"), float("inf"), True, False, None),
    *(
        "",
        " ",
        "x",
        "NaN",
        "1e400",
        "../../etc/passwd",
        "a\0b",
        "x" * 70_000,
        "\ud800",
        "<script>",
        "%00",
        "${x}",
        "id",
    ),
    *([], {}, [[]], [None], [[[[1]]]], {"": {}}, {"a": {"b": [1]}}, {str(n): n for n in range(300)}, ["x"] * 300),
    *(FILE, ADDRESS, {"path": 5, "meta": FILE["meta"]}, {"path": "x", "meta": "y"}, {"__type__": "update"}),
    *({"fetched": "x"}, {"meta": {"_type": "gradio.FileData"}}, {"=": [1]}, {"<": None}, {"like": "x"}),
]
QUERY = {"image": FILE, "k": 3, "min_score": -1.0, "where": {"label": "mug"}, "region": [0, 0, 1, 1], "fold": True}
CALLS: dict[str, dict[str, Any]] = {
    "search": {**QUERY, "like": [], "unlike": None, "group_by": "label"},
    "search_by_id": {"id": "ID", "k": 3, "where": {"label": {"!=": "mug"}}, "like": ["ID"], "group_by": None},
    "search_text": {"text": "a red mug", "k": 2},
    "explain": {"hit": "ID", "id": "ID", "image": None, "region": [0, 0, 1, 1]},
    "duplicates": {"threshold": 0.99, "limit": 3},
    "info": {},
    "nothing": {},
}
LEAKS = ("Traceback", "site-packages", "object at 0x", "/root/", "/home/", ".py", "pydantic", "errors.", "gradio.comp")


class Fuzz:
    """Makes requests from what a client would send, each with a few things wrong."""

    def __init__(self, seed: int, config: dict[str, Any], ids: list[str]) -> None:
        self.random, self.ids = random.Random(seed), ids
        self.components = [one["id"] for one in config["components"]]
        self.events = {one["id"]: len(one["inputs"]) for one in config["dependencies"]}

    def changed(self, value: Any, depth: int = 0) -> Any:
        """The value, perhaps with something else in one place of it."""
        if self.random.random() < 0.25 + 0.1 * depth:
            return self.random.choice(NASTY)
        if isinstance(value, dict) and value:
            key = self.random.choice(list(value))
            kind = self.random.random()
            if kind < 0.15:
                return {name: each for name, each in value.items() if name != key}
            if kind < 0.3:
                return {**value, self.random.choice(["", "x", "path", "data", key * 50, "\0"]): value[key]}
            return {**value, key: self.changed(value[key], depth + 1)}
        if isinstance(value, list) and value:
            place = self.random.randrange(len(value))
            return [*value[:place], self.changed(value[place], depth + 1), *value[place + self.random.randrange(2) :]]
        return value

    def request(self) -> tuple[str, str, bytes, dict[str, str]]:
        """Method, address, body and headers."""
        session = f"fuzz{self.random.randrange(10**9)}"
        name = self.random.choice(list(CALLS))
        values = json.loads(json.dumps(CALLS[name]).replace('"ID"', json.dumps(self.random.choice(self.ids))))
        event = self.random.choice([*self.events, 999])
        data = [None] * self.events.get(event, 1)
        joined = {"fn_index": event, "data": data, "session_hash": session, "event_data": {"do": "search", "row": 1}}
        joined |= {"trigger_id": self.random.choice(self.components)}
        function = {"component_id": self.random.choice(self.components), "session_hash": session, "fn_name": "save"}
        shown = {"hits": [[1, 0.5, None]], "kind": "csv", "threshold": 0.9}
        path, body = self.random.choice(
            [
                *[(f"{API}/call/v2/{name}", values)] * 4,
                *[(f"{API}/call/{name}", {"data": list(values.values())})] * 2,
                *[(f"{API}/queue/join", joined)] * 3,
                (f"{API}/component_server", {**function, "data": shown}),
                (f"{API}/cancel", {"session_hash": session, "fn_index": event, "event_id": session}),
                (f"{API}/reset", {"event_id": session}),
                (f"{API}/upload", None),
                (f"{API}/mcp/", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}),
                *[(self.address(), None)] * 2,
            ]
        )
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if body is None and self.random.random() < 0.8:
            return "GET", path, b"", headers
        if self.random.random() < 0.05:
            headers["content-type"] = self.random.choice(["", "text/plain", "multipart/form-data; boundary=x", "é"])
        sent = json.dumps(self.changed(body)).encode()
        if self.random.random() < 0.1:
            place = self.random.randrange(len(sent) + 1)
            sent = sent[:place] + self.random.choice([b"", b"\xff", b"\0", b"[" * 5000, b'"', b"{"]) + sent[place:]
        return self.random.choice(["POST"] * 19 + ["PUT"]), path, sent, headers

    def address(self) -> str:
        """An address of a route, with something else in place of an id or a path."""
        known = ["queue/data?session_hash=", "call/search/", "file=", "upload_progress?upload_id=", "heartbeat/", "x"]
        others = ["/config?page=", "/static/", "/assets/", "/pwa_icon/", "/?deep_link=", "/original/", "/svelte/", "/"]
        route = self.random.choice([*(f"{API}/{each}" for each in known), *others, f"{API}/proxy=", f"{API}/stream/"])
        text = self.random.choice([each for each in NASTY if isinstance(each, str)] + ["http://127.0.0.1:9/", "/etc"])
        return route + quote(text[:6000].encode("utf-8", "replace"), safe=self.random.choice(["", "/:%"]))


def faults(status: int, text: str) -> list[str]:
    """What an answer must not be."""
    found = ["the server failed"] if status >= 500 and status != 503 else []
    if status >= 400:
        found += [f"it holds {leak!r}" for leak in LEAKS if leak in text]
        found += ["it says nothing"] if text.strip() in ("", "null") or '"error": null' in text else []
        found += ["it is long"] if len(text) > 2000 else []
    return found


def result(http: httpx.Client, address: str) -> str:
    """The answer to an event, which ends."""
    lines = []
    with http.stream("GET", address) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if (
                line.startswith("data: ")
                and "heartbeat" not in lines[-2:][0]
                and ("/call/" in address or "completed" in line or "unexpected" in line)
            ):
                break
    return "\n".join(lines)


def ask(http: httpx.Client, method: str, path: str, body: bytes, headers: dict[str, str]) -> list[str]:
    """Send a request, and wait for its event if it starts one; returns what is wrong with the answers."""
    with http.stream(method, path, content=body, headers={k: v.encode() for k, v in headers.items()}) as answer:
        endless = answer.headers.get("content-type", "").startswith("text/event-stream") and "mcp" not in path
        text = "" if endless else answer.read().decode("utf-8", "replace")
    found = [f"{fault}: {answer.status_code} {text[:400]}" for fault in faults(answer.status_code, text)]
    if answer.status_code == 200 and text.startswith('{"event_id"'):
        event, session = json.loads(text)["event_id"], json.loads(body).get("session_hash")
        name = path.rpartition("/")[2]
        joined = path.endswith("queue/join")
        said = result(http, f"{API}/queue/data?session_hash={session}" if joined else f"{API}/call/{name}/{event}")
        is_wrong = "event: error" in said or '"success":false' in said.replace(" ", "")
        found += [f"{fault}: {said[-400:]}" for fault in faults(422 if is_wrong else 200, said)]
    return found


def test_no_request_makes_the_server_fail(server: str, pytestconfig: pytest.Config) -> None:
    count, seed = pytestconfig.getoption("--fuzz"), pytestconfig.getoption("--fuzz-seed")
    wrong: list[str] = []
    with httpx.Client(base_url=server, timeout=30) as http:
        config = http.get("/config").json()
        event = http.post(f"{API}/call/v2/duplicates", json={"threshold": 0.9, "limit": 2}).json()["event_id"]
        groups = json.loads(result(http, f"{API}/call/duplicates/{event}").partition("data: ")[2])
        fuzz = Fuzz(seed, config, [image["id"] for group in groups[0]["groups"] for image in group] or ["x"])
        for number in range(count):
            request = fuzz.request()
            about = f"request {number} of seed {seed}: {request[0]} {request[1][:200]} {request[2][:600]!r}"
            wrong += [f"{about} -> {fault}" for fault in ask(http, *request)]
            if len(wrong) > 9:
                break
        assert wrong == [], "\n".join(wrong)
        assert http.get("/config").json()["components"]
