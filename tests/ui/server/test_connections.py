"""Clients that are slow, many, or send what is not HTTP: each is answered or cut off, and others are served."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from conftest import finished
from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse

from retrieval.ui.server.connections.limits import ConnectionLimits, room_for
from retrieval.ui.server.connections.log import OncePerSecond
from retrieval.ui.server.connections.room import BUSY, TOO_MANY, Room
from retrieval.ui.server.launch import Server
from retrieval.ui.server.settings import ServerSettings

HOST = b"Host: localhost\r\n"
LAST = HOST + b"Connection: close\r\n"
CHUNKED = b"POST /size HTTP/1.1\r\n" + LAST + b"Transfer-Encoding: chunked\r\n\r\n"
QUICK = ConnectionLimits(head=0.5, grace=0.6, idle=0.5, linger=0.5, unread=0.5)

app = FastAPI()


@app.api_route("/size", methods=["GET", "POST", "HEAD"])
async def size(request: Request) -> Response:
    return Response(f"{len(await request.body())} bytes")


@app.get("/where")
async def where(request: Request) -> Response:
    return Response(f"{request.headers['host']} {request.url.path} {request.url.query}")


@app.get("/large")
async def large() -> Response:
    return Response(b"x" * 20_000_000)


@app.get("/gradio_api/heartbeat/{name}")
async def stream(name: str) -> Response:
    async def lines() -> AsyncIterator[str]:
        while True:
            yield "data: ALIVE\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/event-stream")


@contextmanager
def running(limits: ConnectionLimits) -> Iterator[int]:
    """The port of a server with a small app in place of the page."""
    with Server(ServerSettings(port=0, connections=limits)) as server:
        server.front.show(app)
        yield int(server.address.rsplit(":", 1)[1])


@pytest.fixture(scope="module")
def quick() -> Iterator[int]:
    with running(QUICK) as port:
        yield port


def connected(port: int, *sent: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    for part in sent:
        client.sendall(part)
    return client


def rest(client: socket.socket) -> str:
    """All that comes until the server closes."""
    received = b""
    with client:
        try:
            while part := client.recv(2**16):
                received += part
        except ConnectionResetError:
            pass
    return received.decode("latin-1")


def said(port: int, *sent: bytes) -> str:
    return rest(connected(port, *sent))


def is_healthy(port: int) -> bool:
    return "200 OK" in said(port, b"GET /health HTTP/1.1\r\n" + LAST + b"\r\n")


# Time


def test_client_that_does_not_finish_its_headers_is_told_so(quick: int) -> None:
    answer = said(quick, b"GET /size HTTP/1.1\r\nX: ")
    assert answer.startswith("HTTP/1.1 408 ")
    assert "headers took more than 0.5 seconds" in answer


def test_headers_that_come_byte_by_byte_get_no_more_time(quick: int) -> None:
    client = connected(quick)
    client.settimeout(0.05)
    answer = b""
    for byte in b"GET /size HTTP/1.1\r\n" + b"X: y\r\n" * 100:
        client.send(bytes([byte]))
        try:
            answer = client.recv(1000)
            break
        except TimeoutError:
            continue
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("first", [b"", b"GET /size HTTP/1.1\r\n" + HOST + b"\r\n"], ids=["unused", "kept"])
def test_idle_connection_is_closed(quick: int, first: bytes) -> None:
    assert said(quick, first).count("HTTP/1.1") == (1 if first else 0)


def test_body_that_stalls_is_refused(quick: int) -> None:
    answer = said(quick, b"POST /size HTTP/1.1\r\n" + HOST + b"Content-Length: 5000\r\n\r\nabc")
    assert answer.startswith("HTTP/1.1 408 ")
    assert "at least 2000 bytes a second" in answer


def test_slow_body_above_the_least_rate_is_taken(quick: int) -> None:
    client = connected(quick, b"POST /size HTTP/1.1\r\n" + LAST + b"Content-Length: 20000\r\n\r\n")
    for _ in range(20):  # 1.6 seconds, more than twice the time over which the rate is measured
        client.sendall(b"x" * 1000)
        time.sleep(0.08)
    assert rest(client).endswith("20000 bytes")


def test_body_of_an_answered_request_is_not_waited_for(quick: int) -> None:
    answer = said(quick, b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Content-Length: 5000\r\n\r\nabc")
    assert answer.startswith("HTTP/1.1 404 ")
    assert answer.count("HTTP/1.1") == 1


def test_client_that_does_not_read_its_answer_is_cut_off(quick: int) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", quick))
        client.settimeout(20)
        client.sendall(b"GET /large HTTP/1.1\r\n" + LAST + b"\r\n")
        time.sleep(2)
        assert len(rest(client)) < 20_000_000


def test_event_stream_that_is_read_stays_open(quick: int) -> None:
    with connected(quick, b"GET /gradio_api/heartbeat/a HTTP/1.1\r\n" + HOST + b"\r\n") as client:
        received = b""
        while received.count(b"ALIVE") < 20:  # two seconds, more than any limit of this server
            received += client.recv(1000)
        assert client.recv(1000)


# What a request may be


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 1_000_000 + b"\r\n\r\n", 431, "32 KiB"),
        (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 200 + b"\r\n", 431, "100 headers"),
        (b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431, "32 KiB"),
        (CHUNKED + b"1\r\na\r\n" * 2000, 400, "chunks of the body are too small"),
        (CHUNKED + b"zz\r\n", 400, "not a valid"),
        (CHUNKED.replace(LAST, LAST + b"Content-Length: 3\r\n") + b"0\r\n\r\n", 400, "not both"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400, "not a valid"),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400, "not a valid"),
        (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "HTTP/1.0 has no"),
        (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 405, "TRACE"),
        (b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405, "CONNECT"),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "must name a path"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "only HTTP/1.0 and HTTP/1.1"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "not a valid"),
        (b"\x16\x03\x01\x02\x00\x01" * 20, 400, "not a valid"),
    ],
)
def test_request_that_is_none_is_refused_in_a_sentence(
    quick: int, caplog: pytest.LogCaptureFixture, request_: bytes, status: int, word: str
) -> None:
    answer = said(quick, request_)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert word in answer
    assert answer.count("HTTP/1.1 4") == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET http://localhost:1/where?a=b HTTP/1.1\r\n" + LAST + b"\r\n", "localhost:1 /where a=b"),
        (b"GET /where HTTP/1.0\r\n" + HOST + b"\r\n", "localhost /where "),
        (b"GET /where HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + HOST + b"\r\n", "localhost /where "),
        (CHUNKED + b"1\r\na\r\n" * 200 + b"0\r\n\r\n", "200 bytes"),
        (CHUNKED + (b"400\r\n" + b"a" * 1024 + b"\r\n") * 2000 + b"0\r\n\r\n", "2048000 bytes"),
        (b"HEAD /size HTTP/1.1\r\n" + LAST + b"\r\n", "\r\n\r\n"),
    ],
)
def test_request_in_a_rarer_form_is_answered(
    quick: int, caplog: pytest.LogCaptureFixture, request_: bytes, answer: str
) -> None:
    assert said(quick, request_).endswith(answer)
    assert not caplog.records


def test_requests_sent_at_once_are_answered_in_their_order(quick: int) -> None:
    many = b"".join(b"GET /where?%d HTTP/1.1\r\n" % number + HOST + b"\r\n" for number in range(50))
    answers = said(quick, many).split("localhost /where ")[1:]
    assert [int(answer.partition("HTTP")[0]) for answer in answers] == list(range(50))


def test_body_that_breaks_after_its_answer_gets_no_second_one(quick: int) -> None:
    client = connected(quick, CHUNKED.replace(b"/size", b"/nowhere").replace(LAST, HOST))
    first = client.recv(2**16)
    client.sendall(b"zz\r\n")
    assert (first.decode() + rest(client)).count("HTTP/1.1 ") == 1


# Number


def test_server_is_reached_however_many_connections_are_idle() -> None:
    with running(ConnectionLimits(most=20)) as port, ExitStack() as clients:
        busy = clients.enter_context(connected(port, b"POST /size HTTP/1.1\r\n" + LAST + b"Content-Length: 2\r\n\r\n"))
        idle = [clients.enter_context(connected(port, part)) for part in (b"", b"GET / HT") for _ in range(40)]
        assert is_healthy(port)
        busy.sendall(b"ok")
        assert rest(busy).endswith("2 bytes")  # what is answered stays
        assert idle[0].recv(1) == b""
        idle[-1].sendall(b"TP/1.1\r\n" + LAST + b"\r\n")  # the newest one stays, too
        assert rest(idle[-1]).startswith("HTTP/1.1 404 ")


def test_open_pages_leave_room_for_requests() -> None:
    with running(ConnectionLimits(most=20)) as port, ExitStack() as clients:
        for _ in range(30):
            page = connected(port, b"GET /gradio_api/heartbeat/a HTTP/1.1\r\n" + HOST + b"\r\n")
            clients.enter_context(page).recv(1)
        assert is_healthy(port)


def test_connection_is_told_to_come_again_if_all_are_busy() -> None:
    with running(ConnectionLimits(most=16)) as port, ExitStack() as clients:
        held = b"POST /size HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        for _ in range(16):
            client = clients.enter_context(connected(port, held))
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        answer = said(port, b"GET /size HTTP/1.1\r\n" + HOST + b"\r\n")
        assert answer.startswith("HTTP/1.1 503 ")
        assert "Retry-After: 5" in answer
        assert BUSY in answer


def test_server_that_may_open_no_more_files_closes_idle_connections(caplog: pytest.LogCaptureFixture) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running(ConnectionLimits()) as port, ExitStack() as clients:
        idle = [clients.enter_context(socket.socket()) for _ in range(40)]
        last = clients.enter_context(socket.socket())
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + 20, hard))
            for client in (*idle, last):
                client.settimeout(20)
                client.connect(("127.0.0.1", port))
            last.sendall(b"GET /health HTTP/1.1\r\n" + LAST + b"\r\n")
            assert "200 OK" in rest(last)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not caplog.records


class Guest:
    """A connection that notes that it was closed."""

    def __init__(self, address: str) -> None:
        self.address, self.dropped = address, False

    def look(self, now: float) -> bool:
        return False

    def drop(self) -> None:
        self.dropped = True


def test_one_address_has_a_share_of_the_connections_and_proxies_may_have_all() -> None:
    async def enter() -> None:
        room = Room(ConnectionLimits(most=100, share=0.1))
        room.proxies = ["10.0.0.0/8"]
        idle = [Guest("192.0.2.7") for _ in range(11)]
        assert [room.enter(guest) for guest in idle] == [None] * 11
        assert [guest.dropped for guest in idle] == [True] + [False] * 10  # its own oldest one made room
        for guest in idle:
            room.works(guest)
        assert room.enter(Guest("192.0.2.7")) == TOO_MANY
        for address in ("127.0.0.1", "10.1.2.3", "::ffff:10.1.2.4"):
            several = [Guest(address) for _ in range(12)]
            assert [room.enter(guest) for guest in several] == [None] * 12
            assert not any(guest.dropped for guest in several)

    finished(enter())


def test_room_is_counted_from_the_files_that_the_process_may_open() -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        most = room_for(ConnectionLimits(most=300))
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == (728 if hard == resource.RLIM_INFINITY else min(728, hard))
        assert most == min(300, (raised - 128) // 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Log and end


def test_log_has_one_line_of_a_kind_a_second_without_paths() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    handler.addFilter(OncePerSecond())
    logger = logging.Logger("test")
    logger.addHandler(handler)
    for number in range(1000):
        if number == 999:
            time.sleep(1.1)
        try:
            raise OSError(24, "Too many open files", "/home/ada/secret.jpg")
        except OSError:
            logger.exception("cannot take %s\nmore", f"/home/ada/token-{number}.jpg")
    first, last = lines
    assert first.startswith("cannot take token-0.jpg: OSError (Too many open files) at server/test_connections.py:")
    assert last.endswith("(998 more like this)")


def test_server_stops_with_connections_that_hang() -> None:
    with ExitStack() as clients:
        with running(ConnectionLimits()) as port:
            for sent in (
                b"",
                b"GET / HT",
                b"POST /size HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\na",
                b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n",
                b"GET /gradio_api/heartbeat/a HTTP/1.1\r\n" + HOST + b"\r\n",
                b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n",
            ):
                clients.enter_context(connected(port, sent))
            assert is_healthy(port)
        with pytest.raises(ConnectionRefusedError):
            connected(port)
