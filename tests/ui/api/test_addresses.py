"""Pictures that a program names by address: fetched from a real server on this machine, or not."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from retrieval import Searcher
from retrieval.ui import create_app
from retrieval.ui.intake import addresses
from retrieval.ui.intake.files.folder import Uploads
from retrieval.ui.server.gradio_app import mount_page
from retrieval.ui.server.settings import ServerSettings

API = "/gradio_api"
BOMB = gzip.compress(bytes(70 * 2**20), 1)


@pytest.fixture(scope="module")
def page(artifact: Path) -> gr.Blocks:
    """A page that fetches from private networks too, so that a server here stands for a public one."""
    return create_app(Searcher.open(artifact), allow_private=True)


@pytest.fixture(scope="module")
def http(page: gr.Blocks) -> Iterator[TestClient]:
    """The app with its middlewares, in this process."""
    outer = FastAPI()
    mount_page(outer, page, "/", ServerSettings(), Uploads())
    with TestClient(outer, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def site(shirt: Path) -> Iterator[Any]:
    """A server: `/a` is a picture, and other paths misbehave. `asked` counts the requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.asked[self.path] += 1
            self.send_response({"/404": 404, "/to": 302}.get(self.path, 200))
            self.send_header("Location", "/a")
            if self.path in ("/gzip", "/bomb"):
                self.send_header("Content-Encoding", "gzip")
            if self.path == "/stated":
                self.send_header("Content-Length", "1000000000")
            self.end_headers()
            if self.path.startswith("/slow"):
                self.server.closing.wait(30)
            content = {"/gzip": gzip.compress(shirt.read_bytes()), "/bomb": BOMB, "/text": b"hello"}
            self.wfile.write(content.get(self.path, shirt.read_bytes()))

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.closing, server.daemon_threads = Counter(), threading.Event(), True
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


def at(site: Any, path: str) -> dict[str, Any]:
    """What Gradio's clients make of an address."""
    address = f"http://127.0.0.1:{site.server_port}{path}"
    return {"path": address, "url": address, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}


def ask(http: TestClient, image: Any, **arguments: Any) -> str:
    """The ids of the hits, or the sentence that says why there are none."""
    begun = http.post(f"{API}/call/v2/search", json={"image": image, **arguments})
    if begun.status_code != 200:
        return begun.json()["detail"]
    said = http.get(f"{API}/call/search/{begun.json()['event_id']}").text.partition("data: ")[2]
    return said.strip() if "error" in said else str([hit["id"] for hit in json.loads(said)[0]["hits"]])


@pytest.mark.parametrize("path", ["/a", "/to", "/gzip"])
def test_picture_by_address_is_searched(http: TestClient, site: Any, shirt: Path, path: str) -> None:
    [uploaded] = http.post(f"{API}/upload", files={"files": shirt.read_bytes()}).json()
    expected = ask(http, {"path": uploaded, "meta": {"_type": "gradio.FileData"}})
    assert expected.startswith("['")
    assert ask(http, at(site, path)) == expected


def test_client_of_gradio_gives_an_address(http: TestClient, page: gr.Blocks, site: Any) -> None:
    """It posts to the queue, which answers a picture that cannot be fetched with an event, whose sentence it shows."""
    [number] = [number for number, function in page.fns.items() if function.api_name == "search"]
    for path, words in (("/a", '"hits"'), ("/404", "the server answers 404 Not Found")):
        data = [at(site, path), 3, -1.0, None, None, None, None, False, None]
        body = {"fn_index": number, "session_hash": "addresses", "data": data}
        assert http.post(f"{API}/queue/join", json=body).status_code == 200
        assert words in http.get(f"{API}/queue/data?session_hash=addresses").text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/404", "the picture cannot be fetched: the server answers 404 Not Found"),
        ("/stated", "the answer is too large; at most 64 MiB are accepted"),
        ("/bomb", "the answer is too large; at most 64 MiB are accepted"),
        ("/text", "the image is not a readable picture"),
    ],
)
def test_address_without_a_picture_is_an_error_in_words(http: TestClient, site: Any, path: str, words: str) -> None:
    assert words in ask(http, at(site, path))


def test_fetched_pictures_are_not_kept(http: TestClient, page: gr.Blocks, site: Any) -> None:
    asked = site.asked["/a"]
    for _ in range(2):
        ask(http, at(site, "/a"))
    assert site.asked["/a"] == asked + 2
    assert page.addresses._held == {}
    assert "no longer there" in ask(http, {"fetched": "x" * 22})


def test_slow_addresses_end_in_time_and_hold_up_nobody(
    http: TestClient, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_SECONDS", 1.0)
    with ThreadPoolExecutor(5) as pool:
        slow = [pool.submit(ask, http, at(site, f"/slow{number}")) for number in range(5)]
        assert http.post(f"{API}/call/v2/info", json={}).status_code == 200
        assert not any(each.done() for each in slow)
        assert {each.result() for each in slow} == {
            "The picture was not fetched within 10 seconds: upload the picture itself."
        }


def test_only_so_many_pictures_wait_to_be_searched(
    http: TestClient, page: gr.Blocks, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_HELD", 0)
    refused = http.post(f"{API}/call/v2/search", json={"image": at(site, "/a")})
    assert refused.status_code == 503
    assert "try again in 10 seconds" in refused.json()["detail"]


def test_other_places_take_no_address(http: TestClient, page: gr.Blocks, site: Any) -> None:
    site.asked.clear()
    image = at(site, "/other")
    assert "operator" in ask(http, at(site, "/a"), where={"label": image})
    assert "must be a string" in ask(http, at(site, "/a"), group_by=image)
    assert "region" in ask(http, at(site, "/a"), region=[image])
    for number, function in page.fns.items():
        if function.fn is None or not function.inputs:
            continue
        for place in range(len(function.inputs)):
            if (function.api_name, place) in (("search", 0), ("explain", 1)):  # their argument image
                continue
            data: list[Any] = [None] * len(function.inputs)
            data[place] = [{"a": image}] if place % 2 else image
            body = {"fn_index": number, "session_hash": "other", "data": data}
            assert http.post(f"{API}/queue/join", json=body).status_code == 400, function.api_name
    assert "/other" not in site.asked


def test_address_is_neither_http_nor_private_by_default(artifact: Path, site: Any) -> None:
    site.asked.clear()
    page = create_app(Searcher.open(artifact))
    outer = FastAPI()
    mount_page(outer, page, "/", ServerSettings(), Uploads())
    with TestClient(outer) as client:
        assert "only https:// addresses are fetched" in ask(client, at(site, "/a"))
        for host in ("127.0.0.1", "localhost", "[::1]", "100.64.0.1", "169.254.169.254", "no-such-host.invalid"):
            image = {**at(site, "/a"), "path": f"https://{host}:{site.server_port}/a"}
            assert ask(client, image).startswith("The picture could not be fetched: its address must be a public https")
        assert "at most 2,048 characters" in ask(client, {**at(site, "/a"), "path": "https://x/" + "a" * 3000})
    assert not site.asked
