"""Who counts as one visitor, how fast one may go, and how often one may give a wrong password."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from conftest import in_a_thread
from starlette.responses import PlainTextResponse
from starlette.types import Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from retrieval.errors import LookalikeError
from retrieval.ui.access.allowed import check_proxy
from retrieval.ui.access.passwords import Accounts
from retrieval.ui.limits.pace import Pace
from retrieval.ui.limits.visitors import note_visitor
from retrieval.ui.server.asgi import wrapped
from retrieval.ui.server.settings import ServerSettings

ADA = ("ada", "right")
Send = Callable[..., Coroutine[Any, Any, httpx.Response]]


def visitor(client: str, forwarded: str = "", trusted: tuple[str, ...] | None = None, server: str = "10.0.0.1") -> Any:
    """Who sends a request, as a server sees it that is run by uvicorn."""
    seen: list[str | None] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(note_visitor(scope))

    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"type": "http", "client": (client, 1234), "server": (server, 80), "headers": headers}
    settings = ServerSettings(trusted_proxies=trusted)
    behind: Any = ProxyHeadersMiddleware(app, settings.forwarders or "127.0.0.1,::1")
    in_a_thread(asyncio.run, behind(scope, None, None))
    return seen[0]


@pytest.mark.parametrize(
    ("expected", "seen"),
    [
        ("9.9.9.9", {"client": "9.9.9.9"}),
        ("192.168.1.5", {"client": "192.168.1.5"}),
        ("9.9.9.9", {"client": "::ffff:9.9.9.9"}),
        ("2a01:db8:1:2::/64", {"client": "2a01:db8:1:2:3:4:5:6"}),
        (None, {"client": "127.0.0.1"}),
        (None, {"client": "::1"}),
        (None, {"client": "10.0.0.1"}),  # the machine itself
        # a proxy on this machine, which names its visitors or does not
        ("9.9.9.9", {"client": "127.0.0.1", "forwarded": "9.9.9.9"}),
        ("192.168.1.5", {"client": "127.0.0.1", "forwarded": "6.6.6.6, 192.168.1.5"}),
        (None, {"client": "127.0.0.1", "forwarded": "unknown"}),
        # one on another machine, of which nobody has said that it can be trusted
        (None, {"client": "10.0.0.5", "forwarded": "9.9.9.9"}),
        ("8.8.8.8", {"client": "8.8.8.8", "forwarded": "9.9.9.9"}),
        # one that is trusted; what its visitors write into the header themselves does not count
        ("9.9.9.9", {"client": "10.0.0.5", "forwarded": "6.6.6.6, 9.9.9.9", "trusted": ("10.0.0.0/8",)}),
        (
            "9.9.9.9",
            {"client": "8.8.8.8", "forwarded": "6.6.6.6, 9.9.9.9, 10.1.1.1", "trusted": ("8.8.8.8", "10.0.0.0/8")},
        ),
        ("192.168.1.5", {"client": "10.0.0.5", "forwarded": "192.168.1.5", "trusted": ("10.0.0.0/8",)}),
    ],
)
def test_visitor_is_who_a_trusted_proxy_names_or_else_who_connects(expected: str | None, seen: dict[str, Any]) -> None:
    assert visitor(**seen) == expected


def test_trusted_proxy_is_an_address_or_a_network() -> None:
    assert [check_proxy(each) for each in ("*", "10.0.0.7/8", "fd00::1")] == ["*", "10.0.0.0/8", "fd00::1/128"]
    with pytest.raises(LookalikeError, match="--trusted-proxy must be an address"):
        check_proxy("proxy.example")


# Pace


def test_pace_lets_a_burst_through_and_then_so_many_a_second() -> None:
    now = [100.0]
    pace = Pace(rate=2, burst=3, clock=lambda: now[0])
    assert [pace.take("a") for _ in range(4)] == [0, 0, 0, None]
    assert pace.take("b") == 0
    assert pace.retry_after("a") == 1
    assert pace.take("a", longest=1) == pytest.approx(0.5)  # the place after the burst, half a second from now
    now[0] += 1.0
    assert [pace.take("a") for _ in range(2)] == [0, None]
    now[0] += 100.0
    assert [pace.take("a") for _ in range(4)] == [0, 0, 0, None]


def test_pace_of_a_million_visitors_takes_little_memory() -> None:
    pace = Pace(rate=1, burst=1)
    for number in range(50_000):
        pace.count(number)
    assert len(pace._full) <= 20_000
    assert pace.take(49_999) is None


# A server of nothing but our middlewares


def asked(ask: Callable[[Send], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Let `ask` send requests as any visitor: `await send("9.9.9.9", "POST", "/path", ...)`."""

    async def page(scope: Scope, receive: Any, send: Any) -> None:
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0.02)
        running.pop()
        await PlainTextResponse("hello")(scope, receive, send)

    async def send(client: str, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            return await http.request(method, path, **options)

    running: list[int] = []
    most: list[int] = []
    app: Any = wrapped(page, ServerSettings(**settings))
    in_a_thread(asyncio.run, ask(send))


def test_visitor_who_waits_for_each_answer_is_slowed_down_and_never_refused() -> None:
    async def ask(send: Send) -> None:
        for _ in range(24):  # of which 20 may come at once
            assert (await send("9.9.9.9", "POST", "/x")).status_code == 200

    asked(ask, visitor_rate=4, visitor_searches=1)


def test_visitor_who_sends_much_at_once_is_refused_and_others_are_not() -> None:
    async def ask(send: Send) -> None:
        flood = [send("9.9.9.9", "POST", "/x") for _ in range(40)]
        others = [send("9.9.9.8", "POST", "/x"), send("9.9.9.9", "GET", "/x"), send("127.0.0.1", "POST", "/x")]
        answers = await asyncio.gather(*flood, *others)
        codes = [answer.status_code for answer in answers]
        assert codes[40:] == [200, 200, 200]
        assert codes[:40].count(200) == 8
        assert codes[:40].count(429) == 32
        late = next(answer for answer in answers if answer.status_code == 429)
        assert int(late.headers["Retry-After"]) >= 1
        assert f"try again in {late.headers['Retry-After']} s" in late.json()["detail"]
        assert (await send("9.9.9.9", "POST", "/x")).status_code == 200

    asked(ask, visitor_searches=8)


def test_visitor_who_reads_too_much_is_refused_too() -> None:
    async def ask(send: Send) -> None:
        codes = [(await send("9.9.9.9", "GET", "/x")).status_code for _ in range(3)]
        assert codes == [200, 429, 429]
        assert (await send("9.9.9.9", "POST", "/x")).status_code == 200

    asked(ask, visitor_rate=0.01)


def test_visitors_through_a_public_link_share_no_limit() -> None:
    async def ask(send: Send) -> None:
        answers = await asyncio.gather(*(send("9.9.9.9", "POST", "/x") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}

    asked(ask, visitor_searches=1, share=True)


# Passwords


def test_visitor_who_guesses_passwords_is_refused_also_the_right_one() -> None:
    async def ask(send: Send) -> None:
        for number in range(10):
            assert (await send("9.9.9.9", "GET", "/", auth=("ada", f"{number}"))).status_code == 401
        for path, options in (("/", {"auth": ADA}), ("/login", {"data": {"username": "ada", "password": "right"}})):
            answer = await send("9.9.9.9", "POST" if path == "/login" else "GET", path, **options)
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 6
            assert "Too many wrong passwords" in answer.json()["detail"]
        assert (await send("9.9.9.8", "GET", "/", auth=ADA)).status_code == 200

    asked(ask, accounts=Accounts(dict([ADA])))


def test_owner_who_has_logged_in_is_not_locked_out_by_others_who_guess() -> None:
    async def ask(send: Send) -> None:
        given = (await send("127.0.0.1", "GET", "/", auth=ADA)).headers["Set-Cookie"]
        assert (await send("9.9.9.1", "GET", "/", auth=ADA)).status_code == 200
        for number in range(61):  # from as many addresses
            answer = await send(f"8.8.{number}.8", "GET", "/", auth=("ada", f"{number}"))
        assert answer.status_code == 429
        assert (await send("7.7.7.7", "GET", "/", auth=ADA)).status_code == 429
        assert (await send("7.7.7.7", "GET", "/", headers={"Cookie": given.partition(";")[0]})).status_code == 200
        assert (await send("9.9.9.1", "GET", "/", auth=ADA)).status_code == 200
        assert (await send("7.7.7.7", "GET", "/", auth=("bert", "x"))).status_code == 401

    asked(ask, accounts=Accounts(dict([ADA])))
