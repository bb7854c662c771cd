"""Who may use the server: the host names it answers to, pages of other sites, and passwords."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import finished
from gradio_client import Client, handle_file
from gradio_client.exceptions import AuthenticationError
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from retrieval.errors import LookalikeError
from retrieval.search import Searcher
from retrieval.ui.access.allowed import check_host, check_origin
from retrieval.ui.access.passwords import Accounts, read_accounts
from tests.support.browser import served

SHOP, EVIL = "https://shop.example", "https://evil.example"
ADA = ("ada", "pass:word é")
BODY = {"data": [None]}


@pytest.fixture(scope="module")
def guarded(starter: Path) -> Iterator[str]:
    """A server with a password, a further host name, and a site that may use it."""
    settings = {
        "accounts": Accounts(dict([ADA])),
        "allowed_hosts": ("search.example.org",),
        "allowed_origins": (SHOP,),
    }
    with served(Searcher.open(starter), **settings) as address:
        yield address


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_server_does_not_answer_to_names_of_others(server: str, host: str) -> None:
    for path in ("/", "/config", "/gradio_api/mcp/schema", "/health", "/metrics", "/gradio_api/file=x"):
        answer = httpx.get(server + path, headers={"Host": host})
        assert answer.status_code == 421, path
        assert "evil.example" in answer.json()["detail"]
        assert "--allowed-host" in answer.json()["detail"]
    assert httpx.post(f"{server}/gradio_api/queue/join", json=BODY, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:7860", "10.0.0.5", "lookalike"])
def test_server_answers_to_addresses_and_local_names(server: str, host: str) -> None:
    assert httpx.get(f"{server}/config", headers={"Host": host}).status_code == 200


def test_server_answers_to_a_host_that_is_allowed(guarded: str) -> None:
    assert httpx.get(f"{guarded}/health", headers={"Host": "Search.Example.org:443"}).status_code == 200
    assert httpx.get(f"{guarded}/health", headers={"Host": "other.example.org"}).status_code == 421


@pytest.mark.parametrize("headers", [{"Origin": EVIL}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
@pytest.mark.parametrize("host", ["localhost", "10.0.0.5", "lookalike"])
def test_pages_of_other_sites_can_neither_send_nor_read(server: str, headers: dict[str, str], host: str) -> None:
    sent = {**headers, "Host": host}
    for path in ("queue/join", "call/info", "upload", "mcp/"):
        answer = httpx.post(f"{server}/gradio_api/{path}", json=BODY, headers=sent)
        assert answer.status_code == 403, path
        assert "--allowed-origin" in answer.json()["detail"]
        assert not _cors(answer)
    asked = {**sent, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for answer in (
        httpx.get(f"{server}/config", headers=sent),
        httpx.options(f"{server}/gradio_api/queue/join", headers=asked),
    ):
        assert not _cors(answer)


def test_own_page_can_send_behind_a_proxy_that_names_another_host(server: str) -> None:
    own = {"Origin": "https://search.example.org", "Host": "127.0.0.1:7860"}
    url = f"{server}/gradio_api/call/info"
    assert httpx.post(url, json={"data": []}, headers={**own, "Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert httpx.post(url, json={"data": []}, headers={**own, "X-Forwarded-Host": "search.example.org"}).is_success
    assert httpx.post(url, json={"data": []}, headers=own).status_code == 403


def test_site_that_is_allowed_can_send_and_read(guarded: str) -> None:
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = httpx.options(f"{guarded}/gradio_api/call/info", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Headers"] == "content-type"
    answer = httpx.post(f"{guarded}/gradio_api/call/info", json={"data": []}, headers={"Origin": SHOP}, auth=ADA)
    assert answer.status_code == 200
    for one in (preflight, answer):
        assert one.headers["Access-Control-Allow-Origin"] == SHOP
        assert one.headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in one.headers["Vary"]
    assert httpx.post(f"{guarded}/gradio_api/call/info", json={"data": []}, headers={"Origin": EVIL}, auth=ADA).is_error


def test_every_route_needs_the_password(guarded: str) -> None:
    info = httpx.get(f"{guarded}/gradio_api/info", auth=ADA).json()
    paths = ["", "config", "theme.css", "metrics", "original/x", "manifest.json", "static/img/logo.svg", "nothing"]
    paths += [f"gradio_api/{path}" for path in ("info", "openapi.json", "mcp/", "mcp/schema", "queue/status")]
    paths += [f"gradio_api/{path}" for path in ("startup-events", "app_id", "file=x", "heartbeat/x", "queue/data")]
    for path in paths:
        for headers in (
            {},
            {"Authorization": "Basic eDp5"},
            {"Authorization": b"Basic \xff"},
            {"Authorization": "Bearer x"},
            {"Cookie": _COOKIE},
        ):
            answer = httpx.get(f"{guarded}/{path}", headers=headers)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    for path in [*(f"call{name}" for name in info["named_endpoints"]), "queue/join", "upload", "mcp/", "reset"]:
        assert httpx.post(f"{guarded}/gradio_api/{path}", json=BODY).status_code == 401, path
    for path in ("health", "ready"):
        assert httpx.get(f"{guarded}/{path}").status_code == 200


_COOKIE = "lookalike-login=9999999999.0000; access-token-unsecure=x"


def test_client_with_the_password_searches(guarded: str, tmp_path: Path) -> None:
    with pytest.raises(AuthenticationError):
        Client(guarded, auth=("ada", "wrong"), verbose=False)
    picture = tmp_path / "red.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    client = Client(guarded, auth=ADA, verbose=False)
    assert len(client.predict(handle_file(picture), k=3, api_name="/search")["hits"]) == 3


def test_tools_are_called_with_the_password(guarded: str) -> None:
    async def images() -> int:
        auth = httpx.BasicAuth(*ADA)
        async with (
            streamable_http_client(f"{guarded}/gradio_api/mcp/", http_client=httpx.AsyncClient(auth=auth)) as (
                read,
                write,
                _,
            ),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            [answer] = (await session.call_tool("info", {})).content
            return int(json.loads(answer.text)["images"])

    assert finished(images()) > 0


def test_token_of_a_visitor_ends(guarded: str) -> None:
    accounts = Accounts({"ada": "x"})
    assert accounts.accepts(accounts.token())
    assert not accounts.accepts(accounts.token(lifetime=-1))
    assert not accounts.accepts(Accounts({"ada": "x"}).token())
    assert not accounts.accepts(f"{accounts.token()}0")
    for token in ("", ".", "x.y", "99999999999999"):
        assert not accounts.accepts(token)


def test_file_of_passwords_has_a_line_for_each_user(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# staff\nada:pass:word\n\nbob: x \n", encoding="utf-8")
    assert read_accounts(str(path)) == {"ada": "pass:word", "bob": " x "}
    assert read_accounts("eve:secret") == {"eve": "secret"}
    for content in ("ada:1\nada:2\n", "hunter2\n", "", ":x\n", "ada:\n"):
        path.write_text(content)
        with pytest.raises(LookalikeError) as refused:
            read_accounts(str(path))
        assert str(path) in str(refused.value)
        assert "hunter2" not in str(refused.value)
    with pytest.raises(LookalikeError, match="USER:PASSWORD"):
        read_accounts("hunter2")


@pytest.mark.parametrize(
    "origin", ["shop.example", "https://shop.example/path", "ftp://x", "https://a@b", "https://", ""]
)
def test_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(LookalikeError, match="--allowed-origin"):
        check_origin(origin)


@pytest.mark.parametrize("host", ["https://search.example.org", "search.example.org/x", "a b", "", "x:80"])
def test_host_that_is_no_name_is_refused(host: str) -> None:
    with pytest.raises(LookalikeError, match="--allowed-host"):
        check_host(host)


def _cors(answer: httpx.Response) -> list[str]:
    return [name for name in answer.headers if name.startswith("access-control-allow-")]
