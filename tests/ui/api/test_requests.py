"""What the app refuses to read: bodies, uploads and routes, posted over HTTP to the running server."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
import httpx
import psutil
import pytest
from conftest import finished
from gradio.routes import App
from test_tools import answer, ask, data_url, refusal

from retrieval.ui.intake.files.data_urls import DataUrls
from retrieval.ui.intake.files.folder import Uploads
from retrieval.ui.intake.refusing import RefusedError
from retrieval.ui.intake.routes import CLOSED, check_route

API = "/gradio_api"
POSTED = [
    *("call/search", "call/v2/search", "run/search", "api/search", "queue/join", "component_server", "cancel", "reset"),
    *("mcp/", "stream/x", "vibe-edit", "process_recording", "nothing"),
]
JSON = {"content-type": "application/json"}


def exchange(server: str, head: str, *parts: bytes) -> str:
    """Send a request as it is, and read what comes before the server hangs up."""
    with socket.create_connection((urlsplit(server).hostname, urlsplit(server).port), timeout=20) as line:
        line.sendall(head.replace("\n", "\r\n").encode() + b"\r\n")
        for part in parts:
            line.sendall(part)
        line.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: line.recv(65536), b"")).decode("utf-8", "replace")


# JSON


@pytest.mark.parametrize("route", POSTED)
def test_large_json_is_refused_before_it_is_sent(server: str, route: str) -> None:
    head = f"POST {API}/{route} HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 200000000\n"
    said = exchange(server, head)
    assert said.startswith("HTTP/1.1 404" if re.match("run|api|stream|vibe|process", route) else "HTTP/1.1 413")
    assert '{"detail":"' in said


@pytest.mark.parametrize("route", ["call/v2/search", "queue/join", "component_server", "mcp/", "reset"])
def test_large_json_of_unstated_size_is_read_only_up_to_the_limit(server: str, route: str) -> None:
    sent = 0

    def body() -> Any:
        nonlocal sent
        yield b'{"where": "'
        for _ in range(1000):
            sent += 65536
            yield b"x" * 65536

    said = httpx.post(f"{server}{API}/{route}", content=body(), headers=JSON)
    assert said.status_code == 413
    assert "at most 1 MiB of JSON is accepted" in said.json()["detail"]
    assert sent < 40 * 2**20  # the server reads on for a moment, so that the client hears of it


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body must be JSON"),
        (b"{", "the body must be JSON"),
        (b"[]", r"the body must be a JSON object, not \[\]"),
        (b'"x"', "the body must be a JSON object, not 'x'"),
        (b'{"k": \xff}', "the body must be UTF-8; byte 6 is not"),
        (b"[" * 100_000, "nested too deeply; at most 32 levels"),
        (b'{"where":' * 40 + b"1" + b"}" * 40, "nested too deeply; at most 32 levels"),
        (b'{"k": ' + b"9" * 100_000 + b"}", "a number of 100,000 digits"),
        (b'{"id": "x", "k": 1, "k": 2}', "the key 'k' twice"),
        (json.dumps({"where": {str(n): n for n in range(50_000)}}).encode(), "too many values; at most 20,000"),
        (json.dumps({"where": [{}] * 50_000}).encode(), "too many values; at most 20,000"),
    ],
)
def test_json_that_no_client_would_send_is_refused(server: str, body: bytes, words: str) -> None:
    for route in ("call/v2/search_by_id", "queue/join", "component_server", "mcp/"):
        said = httpx.post(f"{server}{API}/{route}", content=body, headers=JSON)
        assert 400 <= said.status_code < 500
        assert re.search(words, said.json()["detail"])
        assert len(said.text) < 300


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("search", {}, "search needs the argument 'image'."),
        ("search", {"image": None}, "No picture was given"),
        ("search_by_id", {"id": "x", "kk": 3}, "search_by_id has no argument 'kk'; did you mean 'k'?"),
        ("search_by_id", {"id": "x", "colour": 3}, "no argument 'colour'; it has id, k, min_score"),
        ("search_by_id", {"id": "x", "where": {str(n): n for n in range(101)}}, "at most 100 conditions"),
        ("search_by_id", {"id": "x", "where": {"a": ["b"] * 1001}}, "at most 100 conditions, with 1000 values"),
        ("search_by_id", {"id": "x", "where": {"a": [{"b": 1}]}}, "a value in where must be a string, a number"),
        ("info", {"k": 1}, "info has no argument 'k'; it has none."),
        ("serach", {"k": 1}, "there is no endpoint 'serach'; did you mean 'search'?"),
        ("act", {"k": 1}, "there is no endpoint 'act'"),
    ],
)
def test_call_with_wrong_arguments_is_answered_at_once(server: str, name: str, body: Any, words: str) -> None:
    said = httpx.post(f"{server}{API}/call/v2/{name}", json=body)
    assert said.status_code == (404 if "there is no endpoint" in words else 422)
    assert words in said.json()["detail"]


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("queue/join", {"session_hash": 5}, "session_hash must not be 5"),
        ("queue/join", {"session_hash": "../x"}, "session_hash must not be '../x'"),
        ("queue/join", {"session_hash": "x" * 129}, "session_hash must not be 'xxx"),
        ("queue/join", {"fn_index": "16"}, "fn_index must be a whole number, not '16'"),
        ("queue/join", {"fn_index": 10**9}, "this app has no event 1000000000"),
        ("queue/join", {"trigger_id": [1]}, "trigger_id must be a whole number, not [1]"),
        ("queue/join", {"event_id": {}}, "event_id must not be {}"),
        ("queue/join", {"batched": True}, "batched must be false"),
        ("queue/join", {"data": None}, "data must be a list of the 1 values of this event, not None"),
        ("queue/join", {"data": [1, 2]}, "data must be a list of the 1 values of this event, not 2"),
        ("component_server", {"session_hash": None}, "session_hash must not be None"),
        ("component_server", {"component_id": 10**9}, "no function 'save' there"),
        ("component_server", {"fn_name": "preprocess"}, "no function 'preprocess' there"),
        ("component_server", {"fn_name": ["x"]}, "no function ['x'] there"),
        ("cancel", {"event_id": ["x"]}, "event_id must not be ['x']"),
    ],
)
def test_body_of_an_event_is_checked(server: str, route: str, body: dict[str, Any], words: str) -> None:
    well = {"session_hash": "s", "event_id": "e", "fn_index": 0, "data": [1], "component_id": 1, "fn_name": "save"}
    said = httpx.post(f"{server}{API}/{route}", json={**well, **body})
    assert 400 <= said.status_code < 500
    assert words in said.json()["detail"]


def test_body_of_another_type_is_refused(server: str) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-type": "multipart/form-data; boundary=x"}, {}):
        for route in ("call/v2/info", "queue/join", "component_server"):
            said = httpx.post(f"{server}{API}/{route}", content=b"{}", headers=headers)
            assert (said.status_code, "Content-Type: application/json" in said.json()["detail"]) == (415, True)


def test_unknown_event_is_refused(server: str) -> None:
    for event in ("nothing", "a" * 32):
        assert httpx.get(f"{server}{API}/call/search/{event}").status_code == 404
    for address in ("call/search/%00", "heartbeat/" + "x" * 200, "queue/data", "queue/data?session_hash=%2e%2e%2f"):
        assert httpx.get(f"{server}{API}/{address}").status_code == 400
    assert httpx.get(f"{server}/config?page={'x' * 5000}").status_code == 414


def test_answer_that_was_fetched_already_is_refused(server: str) -> None:
    api = f"{server}/gradio_api/call"
    event = httpx.post(f"{api}/v2/info", json={}).json()["event_id"]
    answers = [httpx.get(f"{api}/info/{event}", timeout=30) for _ in range(2)]
    assert ["event: complete" in answer.text for answer in answers] == [True, False]
    assert (answers[1].status_code, "fetched already" in answers[1].text) == (404, True)


# Routes


def test_every_route_of_gradio_is_open_or_closed_on_purpose() -> None:
    """A route that a new version of Gradio adds has to be put into one of the lists."""
    with gr.Blocks() as blocks:
        gr.Textbox()
    routes = App.create_app(blocks).routes
    inner = [each for route in routes if hasattr(route, "original_router") for each in route.original_router.routes]
    paths = {route.path for route in [*routes, *inner] if hasattr(route, "path")}
    opened = r"""/ /config /static/{} /assets/{} /svelte/{} /favicon.ico /theme.css /robots.txt /pwa_icon /pwa_icon/{}
        /manifest.json /login /logout GR/user GR/login_check GR/token GR/app_id GR/info GR/openapi.json GR/file={}
        GR/file/{} GR/theme.css GR/queue/join GR/queue/data GR/queue/status GR/call/{} GR/call/v2/{} GR/call/{}/{}
        GR/call/v2/{}/{} GR/cancel GR/reset GR/heartbeat/{} GR/upload GR/upload_progress GR/component_server
        GR/startup-events GR/mcp""".replace("GR", API).split()
    plain = {re.sub(r"\{[^}]*\}", "{}", path) for path in paths}
    assert len(plain) > 50
    unknown = {path for path in plain if (path.rstrip("/") or "/") not in opened and not CLOSED.fullmatch(path)}
    assert unknown == set()


@pytest.mark.parametrize(
    "address",
    [
        *("file=HOST", "file=%20HOST", "file/HOST", "file=//HOST", "proxy=HOST", "file=ftp://x/y", "file=DATA"),
        *(
            "stream/a/b/1/playlist.m3u8",
            "custom_component/a/client/b/c",
            "runs",
            "dev/reload",
            "deep_link?session_hash=x",
        ),
        *("vibe-code/", "mcp/sse", "run-history/buckets"),
    ],
)
def test_server_fetches_and_serves_nothing_else(server: str, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        host = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        path = address.replace("HOST", host).replace("DATA", "data:text/html,x")
        for method in ("GET", "HEAD"):
            said = httpx.request(method, f"{server}{API}/{path}", follow_redirects=False)
            assert 400 <= said.status_code < 500
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_icon_has_one_of_two_sizes(server: str) -> None:
    assert [httpx.get(f"{server}/pwa_icon/{size}").status_code for size in (192, 512, 100_000, -1)] == [
        200,
        200,
        404,
        404,
    ]
    with pytest.raises(RefusedError):
        check_route("GET", "/pwa_icon/192\n", "")


# Uploads


def part(headers: str, content: bytes = b"x") -> bytes:
    return b"--b\r\n" + headers.replace("\n", "\r\n").encode() + b"\r\n\r\n" + content + b"\r\n"


FILE = 'Content-Disposition: form-data; name="files"; filename="a.png"'


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (part(FILE) * 17, 413, "at most 16 files"),
        (part('Content-Disposition: form-data; name="files"'), 400, "a field that is no file"),
        (part(f"{FILE}\nX: {'x' * 5000}"), 400, "cannot be read as multipart/form-data"),
        (part(FILE + "\nX: 1" * 9), 400, "cannot be read as multipart/form-data"),
        (b"", 400, "the upload has no file"),
        (b"garbage", 400, "cannot be read as multipart/form-data"),
        (b"--b\r\n" + b"x" * 100_000, 400, "cannot be read as multipart/form-data"),
    ],
)
def test_upload_that_no_browser_would_send_is_refused(server: str, body: bytes, status: int, words: str) -> None:
    ended = body + b"--b--\r\n" if body.startswith(b"--b") else body
    headers = {"content-type": "multipart/form-data; boundary=b"}
    said = httpx.post(f"{server}{API}/upload?upload_id=u", content=ended, headers=headers)
    assert (said.status_code, words in said.json()["detail"]) == (status, True), said.text


def folder_of(server: str) -> Path:
    """The folder of this server's uploads."""
    [path] = httpx.post(f"{server}{API}/upload", files={"files": ("a.txt", b"x")}).json()
    return Path(path).parents[1]


def test_upload_over_the_limit_is_refused_and_leaves_nothing(server: str) -> None:
    folder = folder_of(server)
    before = set(folder.glob("*/*"))
    head = f"POST {API}/upload HTTP/1.1\nHost: x\nContent-Type: multipart/form-data; boundary=b\n"
    assert "413" in exchange(server, f"{head}Content-Length: 300000000\n").splitlines()[0]
    begun = part(FILE, bytes(100_000))[:-2]
    exchange(server, f"{head}Content-Length: 200000\n", begun)  # the client hangs up halfway

    def large() -> Any:
        yield begun
        for _ in range(65):
            yield bytes(2**20)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    said = httpx.post(f"{server}{API}/upload", content=large(), headers=headers, timeout=60)
    assert (said.status_code, "at most 64 MiB" in said.json()["detail"]) == (413, True)
    assert set(folder.glob("*/*")) <= before


# Data URLs


def test_tool_takes_a_picture_of_several_megabytes_as_a_data_url(server: str, shirt: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(shirt.read_bytes() + bytes(4 * 2**20))  # what follows the picture is ignored
    assert (
        answer(ask(server, "search", image=data_url(large), k=2))["hits"]
        == (answer(ask(server, "search", image=data_url(shirt), k=2))["hits"])
    )
    assert "search has no argument 'kk'; did you mean 'k'?" in refusal(ask(server, "search", image="x", kk=2))


@pytest.fixture
def uploads() -> Iterator[Uploads]:
    with closing(Uploads()) as folder:
        yield folder


def read_in_pieces(uploads: Uploads, body: bytes, size: int) -> tuple[bytes, bytes]:
    """The JSON and the picture that are read of a body which comes in pieces."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    messages = [{"type": "http.request", "body": each, "more_body": True} for each in pieces]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.request"}

    text, path = finished(DataUrls(uploads, lambda path: "NAME").read(receive, {}))
    return text, path.read_bytes() if path else b""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 5000])
def test_data_url_is_found_wherever_a_body_is_cut(uploads: Uploads, size: int) -> None:
    content = bytes(range(256)) * 3
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    for text in (json.dumps(url), json.dumps(url).replace("/", "\\/")):
        before, after = '{"text": "\\"image\\": \\"data:x;base64,AA==\\"", "image" : ', ', "k": 3, "x": "image"}'
        assert read_in_pieces(uploads, f"{before}{text}{after}".replace("\\/png", "/png").encode(), size) == (
            f'{before}"NAME"{after}'.encode(),
            content,
        )
    assert read_in_pieces(uploads, b'{"text": "data:a/b;base64,AAAA"}', size)[1] == b""


@pytest.mark.parametrize(
    "url", ["data:image/png;base64,AAA", "data:image/png;base64,AA$A", "data:image/png;base64,AAAA"]
)
def test_broken_data_url_is_refused_and_leaves_nothing(uploads: Uploads, url: str) -> None:
    body = f'{{"image": "{url}' + ("" if url.endswith("AAAA") else '"}')  # the last one has no end
    with pytest.raises(RefusedError, match="not valid base64"):
        read_in_pieces(uploads, body.encode(), 1000)
    assert list(uploads.folder.iterdir()) == []


# Memory


def process_at(server: str) -> psutil.Process:
    [found] = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == "LISTEN" and one.laddr.port == urlsplit(server).port
    }
    return psutil.Process(found)


def test_large_requests_do_not_become_large_in_the_server(server: str) -> None:
    process = process_at(server)
    before = process.memory_info().rss
    for route in ("call/v2/search_by_id", "queue/join", "component_server"):
        body = b'{"id": "x", "where": {"label": "' + b"x" * 100_000_000 + b'"}}'
        assert httpx.post(f"{server}{API}/{route}", content=body, headers=JSON).status_code == 413
    label = json.dumps({"id": "x", "where": {"label": "x" * 1_000_000}})
    assert httpx.post(f"{server}{API}/call/v2/search_by_id", content=label, headers=JSON).status_code == 200
    assert process.memory_info().rss - before < 100 * 2**20
