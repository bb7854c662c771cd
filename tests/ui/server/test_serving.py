"""How the page is served: health, metrics, the log, prefixes of proxies, mounting, and how a server is stopped."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from browser import served
from conftest import WARM, serving
from fastapi import FastAPI
from PIL import Image
from starlette.responses import Response

from retrieval import Searcher
from retrieval.console import run_command
from retrieval.errors import LookalikeError
from retrieval.ui import mount
from retrieval.ui.server.listen import address_of, listen
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.surroundings import open_uploads, reach_this_machine
from retrieval.ui.server.watched.front import Front

FILE = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def searcher(artifact: Path) -> Searcher:
    return Searcher.open(artifact)


@pytest.fixture(scope="module")
def page(searcher: Searcher) -> Iterator[str]:
    """A server of the artifact, below the prefix /find of a proxy that there is none of yet."""
    with served(searcher, root_path="/find", log_format="json") as address:
        yield address


def jpeg(number: int = 0) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (60 + number, 50), (10 * number, 80, 120)).save(file, "JPEG")
        return file.getvalue()


def search(api: str, picture: bytes) -> str:
    """The raw answer to a search with a picture, as curl would ask."""
    [path] = httpx.post(f"{api}/upload", files={"files": ("photo-of-anna.jpg", picture)}).json()
    asked = {"image": {"path": path, "meta": FILE}, "k": 2}
    event = httpx.post(f"{api}/call/v2/search", json=asked).json()["event_id"]
    return httpx.get(f"{api}/call/search/{event}", timeout=60).text


def counts(address: str) -> dict[str, float]:
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


@contextmanager
def running(app: object) -> Iterator[str]:
    """Serve an ASGI app in this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


# Health, metrics, log


def test_health_and_readiness_are_answered(page: str) -> None:
    assert httpx.get(f"{page}/health").json() == {"status": "ok"}
    ready = httpx.get(f"{page}/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


def test_metrics_count_requests_stages_and_pictures(page: str) -> None:
    before = counts(page)
    assert "event: complete" in search(f"{page}/gradio_api", jpeg())
    assert "event: error" in search(f"{page}/gradio_api", b"not a picture")
    after = counts(page)

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more('lookalike_requests_total{method="POST",route="/gradio_api/upload",status="200"}') == 2
    assert more('lookalike_stage_seconds_count{stage="decode"}') == 2
    for stage in ("embed", "search", "render"):
        assert more(f'lookalike_stage_seconds_count{{stage="{stage}"}}') >= 1
    assert more('lookalike_pictures_total{outcome="decoded"}') == 1
    assert more('lookalike_pictures_total{outcome="refused_format"}') == 1
    assert more("lookalike_queue_wait_seconds_count") == 2
    assert after["lookalike_queue_length"] == 0
    assert after["process_resident_memory_bytes"] > 1e6


def test_paths_that_anybody_makes_up_add_no_labels(page: str) -> None:
    httpx.get(f"{page}/made/up/0")
    before = set(counts(page))
    for number in range(1, 20):
        httpx.get(f"{page}/made/up/{number}")
        httpx.request(f"X{number}", f"{page}/made/up/{number}")
    new = {name for name in set(counts(page)) - before if "_total" in name}
    assert all('method="other"' in name and 'route="other"' in name for name in new), new
    assert len(new) <= 1


def test_each_request_has_an_id_and_a_line_without_personal_data(page: str, capfd: pytest.CaptureFixture[str]) -> None:
    secret = {"Authorization": "Bearer hf_secret", "Cookie": "a=hf_secret"}
    ids = [
        httpx.get(f"{page}/config?words=secret", headers={**secret, "X-Request-ID": given}).headers["X-Request-ID"]
        for given in ("given-1", "a b", 'x"y', "x" * 500)
    ]
    assert ids[0] == "given-1"
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids[1:])
    search(f"{page}/gradio_api", jpeg())
    text = ""
    for _ in range(100):
        text += capfd.readouterr().err
        if text.count("/gradio_api/call/{api_name}/{event_id}") == 1:
            break
        time.sleep(0.05)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert {"given-1", *ids[1:]} <= {line["id"] for line in lines}
    kept = {"time", "id", "method", "route", "status", "seconds", "bytes"}
    assert all(line.keys() == kept for line in lines)
    for private in ("127.0.0.1", "anna", "secret", "photo"):
        assert private not in text


# Behind a proxy


@pytest.mark.parametrize("keeps_prefix", [False, True], ids=["prefix removed", "prefix kept"])
@pytest.mark.parametrize("keeps_host", [False, True], ids=["host replaced", "host kept"])
def test_page_works_behind_a_proxy_with_a_prefix(page: str, keeps_prefix: bool, keeps_host: bool) -> None:
    async def proxy(scope, receive, send):
        """Pass a request on as nginx would: with its own Host, or the visitor's as X-Forwarded-Host."""
        if scope["type"] != "http" or not scope["path"].startswith("/find/"):
            return
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        host = headers.pop("host")
        headers |= {"host": host} if keeps_host else {"x-forwarded-host": host}
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message["body"]
        path = scope["path"] if keeps_prefix else scope["path"].removeprefix("/find")
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.request(scope["method"], f"{page}{path}", headers=headers, content=body)
        kept = {key: value for key, value in answer.headers.items() if key == "content-type"}
        await Response(answer.content, answer.status_code, kept)(scope, receive, send)

    with running(proxy) as address:
        assert httpx.get(f"{address}/find/config").json()["root"] == f"{address}/find"
        assert "gradio_config" in httpx.get(f"{address}/find/").text
        assert httpx.get(f"{address}/find/health").json() == {"status": "ok"} or not keeps_prefix
        answer = search(f"{address}/find/gradio_api", jpeg())
        thumbnail = re.search(r'"thumbnail": "([^"]+)"', answer)
        assert thumbnail, answer
        assert thumbnail[1].startswith(f"{address}/find/gradio_api/file=")
        assert httpx.get(thumbnail[1]).headers["content-type"] == "image/jpeg"


# In another app


def test_page_can_be_mounted_into_another_app(searcher: Searcher, tmp_path: Path) -> None:
    app = FastAPI()
    app.get("/")(lambda: {"mine": True})
    mount(app, searcher, "/pictures/find")
    with running(app) as address:
        assert httpx.get(f"{address}/").json() == {"mine": True}
        html = httpx.get(f"{address}/pictures/find/").text
        assert "window.lookalike" in html or "aria-label" in html  # our script is in its head
        assert "--primary-600" in httpx.get(f"{address}/pictures/find/theme.css").text
        config = httpx.get(f"{address}/pictures/find/config").json()
        assert config["root"] == f"{address}/pictures/find"
        api = f"{address}/pictures/find/gradio_api"
        answer = search(api, jpeg())
        thumbnail = re.search(r'"thumbnail": "([^"]+)"', answer)
        assert thumbnail, answer
        assert httpx.get(thumbnail[1]).headers["content-type"] == "image/jpeg"
        tools = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        accept = {"Accept": "application/json, text/event-stream"}
        assert "search_by_id" in httpx.post(f"{api}/mcp/", json=tools, headers=accept).text
        secret = tmp_path / "secret.png"
        secret.write_bytes(jpeg())
        event = httpx.post(f"{api}/call/v2/search", json={"image": {"path": str(secret), "meta": FILE}})
        if event.is_success:
            said = httpx.get(f"{api}/call/search/{event.json()['event_id']}", timeout=60).text
            assert "event: error" in said
            assert '"hits"' not in said


def test_mounting_at_a_path_without_a_slash_is_refused(searcher: Searcher) -> None:
    with pytest.raises(LookalikeError, match="must start with a slash"):
        mount(FastAPI(), searcher, "find")


# Where it listens


def test_ipv6_addresses_are_listened_on_with_and_without_brackets() -> None:
    for host in ("::1", "[::1]"):
        with listen(ServerSettings(host, 0)) as listener:
            port = listener.getsockname()[1]
            assert address_of(listener) == f"http://[::1]:{port}"
    with listen(ServerSettings("::", 0)) as listener:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, listener.getsockname()[1])).close()


def test_answers_on_a_connection_that_is_kept_are_sent_at_once() -> None:
    with listen(ServerSettings(None, 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_port_in_use_is_named_with_a_free_one() -> None:
    with listen(ServerSettings(None, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LookalikeError, match=rf"port {port} is in use, (\d+) is free") as raised:
            listen(ServerSettings(None, port))
        free = int(re.search(r"(\d+) is free", str(raised.value))[1])
        listen(ServerSettings(None, free)).close()


@pytest.mark.parametrize(
    ("settings", "named", "words"),
    [
        (ServerSettings("no-such-host.invalid"), "", "no such host"),
        (ServerSettings("192.0.2.1", 8000), "", "cannot listen on 192.0.2.1, port 8000: this machine does not have"),
        (ServerSettings(), "nine", "GRADIO_SERVER_PORT must be a port number"),
        (ServerSettings(), "70000", "GRADIO_SERVER_PORT must be a port number"),
    ],
)
def test_address_that_cannot_be_listened_on_is_one_sentence(
    settings: ServerSettings, named: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_SERVER_PORT", named)
    with pytest.raises(LookalikeError, match=words):
        listen(settings)


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_this_machine_is_reached_past_a_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv(name, "intranet, 10.0.0.0/8")
    reach_this_machine()
    reach_this_machine()
    assert os.environ[name] == "intranet,10.0.0.0/8,localhost,127.0.0.1,::1"


def test_clients_work_with_a_socks_proxy_in_the_environment(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{page}/health")
    reach_this_machine()
    assert httpx.get(f"{page}/health").status_code == 200


def test_folder_for_uploads_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file" / "uploads"))
    with pytest.raises(LookalikeError, match=r"GRADIO_TEMP_DIR=.*uploads: Not a directory; name a folder"):
        open_uploads(2**30)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "new" / "uploads"))
    open_uploads(2**30).close()
    with pytest.raises(LookalikeError, match="room for the largest picture: at least 64 MiB, not 1"):
        open_uploads(2**20)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_without_a_character_shows_its_number(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, errors="strict"))
    assert run_command(lambda: print("🔎 ready …"), "") == 0
    assert written.getvalue().startswith(b"\\U0001f50e ready ")


# How it ends


def test_launch_works_outside_the_main_thread(searcher: Searcher) -> None:
    def start() -> None:
        with served(searcher) as address:
            said.append(httpx.get(f"{address}/ready").status_code)

    said: list[int] = []
    thread = threading.Thread(target=start)
    thread.start()
    thread.join(60)
    assert said == [200]


def test_sigterm_finishes_searches_that_have_begun_and_removes_uploads(artifact: Path) -> None:
    with ThreadPoolExecutor(12) as pool:
        with serving("--artifact", artifact) as (address, _):
            api = f"{address}/gradio_api"
            files = [{"files": ("p.jpg", jpeg(number))} for number in range(12)]
            paths = [httpx.post(f"{api}/upload", files=file).json()[0] for file in files]
            asked = [{"image": {"path": path, "meta": FILE}, "k": 2} for path in paths]
            events = [httpx.post(f"{api}/call/v2/search", json=one).json()["event_id"] for one in asked]
            waiting = [pool.submit(httpx.get, f"{api}/call/search/{event}", timeout=60) for event in events]
        answers = [one.result().text for one in waiting]
    assert [answer.count("event: complete") for answer in answers] == [1] * 12
    assert not any(Path(path).exists() for path in paths)


def test_new_work_is_refused_while_stopping_and_answers_can_be_fetched() -> None:
    async def page(scope, receive, send):
        await Response("answer")(scope, receive, send)

    front = Front()
    front._page, front.state = page, "stopping"
    with running(front) as address:
        assert httpx.get(f"{address}/ready").status_code == 503
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/gradio_api/call/search/1").text == "answer"
        refused = httpx.post(f"{address}/gradio_api/call/search", json={})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert "stopping" in refused.json()["error"]


def test_server_that_is_starting_says_so() -> None:
    with running(Front()) as address:
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/ready").json() == {"status": "starting"}
        assert httpx.get(f"{address}/").status_code == 503


EARLY = """
import os, sys
from retrieval.__main__ import main
sys.addaudithook(lambda event, _: os.kill(os.getpid(), int(sys.argv[1])) if event == "socket.bind" else None)
sys.exit(main(["serve", "--port", "0"]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signal_before_anything_is_served_ends_the_command(number: int, status: int) -> None:
    done = WARM.run("-c", EARLY, int(number))
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
