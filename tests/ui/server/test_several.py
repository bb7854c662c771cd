"""Several processes behind one address: what belongs together reaches one of them, and one that dies is replaced."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import in_a_thread, png, python, serving
from starlette.types import Scope
from visitor import Visitor

from retrieval.ui import strings
from retrieval.ui.access.passwords import Accounts
from retrieval.ui.intake.refusing import RefusedError
from retrieval.ui.limits.visitors import note_refusal, refusal_of
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.several import pulse
from retrieval.ui.server.several.behind import HEADER, Behind, origin_of
from retrieval.ui.server.several.job import Job, Shown
from retrieval.ui.server.several.passing.counts import Counts
from retrieval.ui.server.several.passing.ids import Named, Places, in_address, in_answer, in_body

FILE = {"_type": "gradio.FileData"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[str]:
    """Two processes behind one address."""
    with serving("--artifact", artifact, "--workers", "2", "--visitor-rate", "1") as (address, _):
        yield address


def processes(server: str) -> list[psutil.Process]:
    """The process that listens, the one that workers are forked from, and the workers, in this order."""
    port = int(server.rpartition(":")[2])
    listening = {one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port}
    supervisor = psutil.Process(listening.pop())
    [nursery] = supervisor.children()
    return [supervisor, nursery, *nursery.children()]


def upload(server: str, seed: int = 0, **options: object) -> str:
    files = {"files": ("p.png", png(seed))}
    [path] = httpx.post(f"{server}/gradio_api/upload", files=files, **options).json()
    return path


def call(server: str, path: str, **options: object) -> str:
    """Begin a search; returns the id of its event."""
    asked = {"image": {"path": path, "meta": FILE}, "k": 2}
    return httpx.post(f"{server}/gradio_api/call/v2/search", json=asked, **options).json()["event_id"]


def answer(server: str, event: str, **options: object) -> str:
    return httpx.get(f"{server}/gradio_api/call/search/{event}", timeout=60, **options).text


def counts(server: str) -> dict[str, float]:
    lines = httpx.get(f"{server}/metrics").text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def test_events_pages_and_tools_reach_the_process_that_knows_them(server: str) -> None:
    before = counts(server)
    events = [call(server, upload(server, seed)) for seed in range(4)]
    answers = [answer(server, event) for event in reversed(events)]
    assert ["event: complete" in each for each in answers] == [True] * 4
    thumbnail = re.search(r'"thumbnail": "([^"]+)"', answers[0])
    assert thumbnail
    assert [httpx.get(thumbnail[1]).status_code for _ in range(3)] == [200] * 3
    for _ in range(3):
        Visitor(server).click()
    for seed in range(2):
        asked = {"name": "search", "arguments": {"image": upload(server, seed), "k": 1}}
        tool = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked}
        said = httpx.post(f"{server}/gradio_api/mcp/", json=tool, headers=ACCEPT, timeout=60).text
        assert "hits" in said, said
    after = counts(server)
    fetched = 'lookalike_requests_total{method="GET",route="/gradio_api/call/{api_name}/{event_id}",status="200"}'
    assert after[fetched] - before.get(fetched, 0) == 4
    assert after["lookalike_workers"] == 2
    assert after["process_resident_memory_bytes"] > sum(one.memory_info().rss for one in processes(server)[2:])


def test_all_processes_are_the_same_page(server: str) -> None:
    configs = [httpx.get(f"{server}/config").json() for _ in range(2)]
    assert configs[0] == configs[1]
    given = {"X-Request-ID": "mine-1"}
    assert [httpx.get(f"{server}/theme.css", headers=given).headers.get_list("x-request-id") for _ in range(2)] == [
        ["mine-1"],
        ["mine-1"],
    ]


def test_uploads_pass_as_they_come_and_what_is_too_large_is_refused(server: str) -> None:
    content = os.urandom(24 * 2**20)
    supervisor = processes(server)[0]
    before = supervisor.memory_info().rss
    [path] = httpx.post(f"{server}/gradio_api/upload", files={"files": ("p.bin", content)}, timeout=60).json()
    assert httpx.get(f"{server}/gradio_api/file={path}").content == content
    assert supervisor.memory_info().rss - before < 8 * 2**20
    huge = {"files": ("p.bin", bytes(65 * 2**20))}
    refused = httpx.post(f"{server}/gradio_api/upload", files=huge, timeout=60)
    assert (refused.status_code, "too large" in refused.text) == (413, True)
    long = httpx.post(f"{server}/gradio_api/call/v2/search", content=b'"' + bytes(2**20), timeout=60)
    assert long.status_code == 413


def test_visitors_have_their_limits_before_a_body_is_read(server: str) -> None:
    stranger = {"X-Forwarded-For": "9.9.9.9"}  # as a proxy on this machine would say

    def post(_: int) -> int:
        return httpx.post(f"{server}/gradio_api/cancel", content=b"[" * 2**19, headers=stranger, timeout=60).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = set(pool.map(post, range(16)))
    assert 429 in statuses
    assert all(status < 500 for status in statuses)
    assert counts(server)["lookalike_workers"] == 2


def test_one_that_is_killed_is_replaced_and_its_visitors_are_told(server: str) -> None:
    before, (_, nursery, killed, stays) = counts(server), processes(server)
    events = [call(server, upload(server, seed)) for seed in range(4)]
    visitors = [Visitor(server) for _ in range(2)]
    for visitor in visitors:
        assert visitor.join(visitor.event("act"), do="search", row=0) is None
    counts(server)  # what a process has counted until it is asked for the last time is kept
    killed.kill()
    answers = [answer(server, event) for event in events]
    assert sorted(each.count("event: complete") for each in answers) == [0, 0, 1, 1]
    assert [strings.LOST in each for each in answers] == ["complete" not in each for each in answers]
    shown = [visitor.answers() for visitor in visitors]
    assert sorted(strings.LOST in each for each in shown) == [False, True]
    for visitor in visitors:
        visitor.click()
    while counts(server)["lookalike_workers"] < 2:
        time.sleep(0.05)
    after, now = counts(server), processes(server)
    assert (now[1], killed in now, stays in now, len(now)) == (nursery, False, True, 4)
    assert all(after[name] >= value for name, value in before.items() if name.endswith("_count"))


def test_headers_of_strangers_are_not_those_of_the_supervisor(server: str) -> None:
    worker = processes(server)[2]
    [port] = {each.laddr.port for each in worker.net_connections("tcp") if each.status == "LISTEN"}
    for headers in ({}, {"X-Lookalike-From": 'guess [null, null, "http", false]'}):
        assert httpx.get(f"http://127.0.0.1:{port}/config", headers=headers).status_code == 403
    assert httpx.get(f"{server}/config", headers={"X-Lookalike-From": "guess"}).status_code == 200
    assert httpx.get(f"{server}/config", headers={"Host": "evil.example"}).status_code == 421


def test_no_process_is_left_when_the_one_that_listens_is_killed(server: str) -> None:
    supervisor, *others = processes(server)
    decoders = [each for worker in others for each in worker.children(recursive=True)]
    supervisor.kill()
    _, left = psutil.wait_procs([*others, *decoders], timeout=20)
    assert not left


def test_sigterm_finishes_what_has_begun_in_all_processes(artifact: Path) -> None:
    """With a password and a prefix, and with cookies that all processes know."""
    options = ("--workers", "2", "--auth", "ada:secret", "--root-path", "/find")
    with ThreadPoolExecutor(4) as pool:
        with serving("--artifact", artifact, *options) as (address, _):
            assert httpx.get(f"{address}/config").status_code == 401
            form = {"username": "ada", "password": "secret"}
            login = httpx.post(f"{address}/find/login", data=form)
            cookies = {name: login.cookies[name] for name in login.cookies}
            assert [httpx.get(f"{address}/find/config", cookies=cookies).status_code for _ in range(3)] == [200] * 3
            events = [
                call(f"{address}/find", upload(address, seed, cookies=cookies), cookies=cookies) for seed in range(4)
            ]
            waiting = [pool.submit(answer, address, event, cookies=cookies) for event in events]
            time.sleep(0.2)
            family = processes(address)
        answers = [each.result() for each in waiting]
    assert [each.count("event: complete") for each in answers] == [1] * 4
    assert not psutil.wait_procs(family, timeout=10)[1]


def test_one_that_cannot_start_ends_all_with_its_sentence(copied_artifact: Path) -> None:
    (copied_artifact / "index.faiss").write_bytes(b"no index")
    run = python("app.py", "--workers", "2", "--port", "0", "--artifact", copied_artifact)
    assert run.returncode == 1
    assert re.fullmatch(r"error: .*index\.faiss.*\n", run.stderr), run.stderr


# Without processes


def test_ids_are_found_in_addresses_bodies_and_answers() -> None:
    assert in_address("/gradio_api/queue/data", "session_hash=abc") == Named(session="abc")
    assert in_address("/gradio_api/heartbeat/abc", "") == Named(session="abc")
    assert in_address("/gradio_api/call/v2/search/e1", "") == Named(event="e1")
    assert in_address("/gradio_api/upload", "upload_id=u1") == Named(upload="u1")
    for path, query in (("/", "session_hash=abc"), ("/gradio_api/queue/data", "session_hash=a%20b"), ("/config", "")):
        assert in_address(path, query) == Named()
    assert in_body(b'{"data": ["\\"session_hash\\": \\"x\\""], "session_hash": "abc"}') == Named(session="abc")
    assert in_body(b'{"data": [{"session_hash": "x"}], "session_hash": "abc", "event_id": "e"}') == Named("abc", "e")
    for body in (b"", b"[" * 100_000, b'{"session_hash": 3}', b'"session_hash"', b"\xff"):
        assert in_body(body) == Named()
    assert in_answer(b'{"event_id":"f00"}') == "f00"


def test_table_of_ids_forgets_the_oldest_and_stays_small() -> None:
    places: Places[str] = Places(most=3)
    for number in range(3):
        places.keep(Named(session=f"s{number}"), "first")
    assert places.find(Named(session="s0"))
    places.begin("e", "s0", "first")
    assert len(places) == 3
    assert [places.find(Named(session=f"s{number}")) is not None for number in range(3)] == [True, False, True]
    assert places.find(Named(session="s0")).events == ["e"]
    places.keep(Named(session="s0"), "second")
    assert (places.find(Named(session="s0")).worker, places.find(Named(session="s0")).events) == ("second", [])


def test_counts_are_added_and_never_go_down() -> None:
    text = (
        '# TYPE asked_total counter\nasked_total{{route="/"}} {0}\n# TYPE memory gauge\nmemory {0}\n'
        '# TYPE took histogram\ntook_bucket{{le="1.0"}} {0}\ntook_bucket{{le="+Inf"}} {0}\ntook_count {0}\n'
        "took_sum {0}\n# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {0}\n"
    )
    all_counts = Counts()
    both = all_counts.text([text.format(2.0), text.format(5.0)], 2).decode()
    all_counts.end(text.format(5.0))
    one = all_counts.text([text.format(2.0)], 1).decode()
    for line in ('asked_total{route="/"} 7.0', 'took_bucket{le="1.0"} 7.0', "took_count 7.0", "took_sum 7.0"):
        assert line in both.splitlines()
        assert line in one.splitlines()
    assert {"memory 7.0", "process_start_time_seconds 2.0", "lookalike_workers 2.0"} <= set(both.splitlines())
    assert {"memory 2.0", "lookalike_workers 1.0"} <= set(one.splitlines())


def test_a_job_is_the_same_in_another_process() -> None:
    accounts = Accounts({"ada": "secret: ä"})
    settings = ServerSettings(port=1, accounts=accounts, allowed_hosts=("a.example",), root_path="/find")
    job = Job(Shown("me/shirts@v1", ("/a b", "/c"), 2.5, True, "0" * 64), settings, "s", 2**62, "/tmp/p", 4)
    text = job.to_json()
    assert "\n" not in text
    same = Job.from_json(text)
    assert same.to_json() == text
    assert (same.shown, same.settings.allowed_hosts) == (job.shown, ("a.example",))
    assert same.settings.accounts
    assert same.settings.accounts.accepts(accounts.token())
    assert same.settings.accounts.has("ada", "secret: ä")


def test_event_that_was_refused_before_it_was_passed_on_is_refused_by_the_queue_of_its_worker() -> None:
    asked = {"type": "http", "client": ("9.9.9.9", 1), "server": ("10.0.0.1", 80), "scheme": "https", "headers": []}
    error = RefusedError(429, "Slower, please.", {"Retry-After": "7"})
    seen: list[RefusedError | None] = []

    async def app(scope: Scope, receive: object, send: object) -> None:
        seen.append(refusal_of(scope))

    def pass_on(scope: Scope) -> None:
        given = {**asked, "headers": [(HEADER, origin_of("secret", scope))]}
        in_a_thread(asyncio.run, Behind("secret").around(app)(given, None, None))

    pass_on(asked)
    note_refusal(asked, error)
    pass_on(asked)
    assert seen[0] is None
    assert vars(seen[1]) == vars(error)


def test_process_that_stops_answering_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_PAUSE", 0.01)
    monkeypatch.setattr(pulse, "_PATIENCE", 1.0)
    asked: list[bytes] = []

    async def answer_three_times(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if len(asked) <= 3:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")  # busy, but it answers
            writer.close()

    async def watch() -> None:
        async with await asyncio.start_server(answer_three_times, "127.0.0.1", 0) as listening:
            await pulse.until_silent(listening.sockets[0].getsockname()[1], "secret")
            listening.close()

    with ThreadPoolExecutor(1) as apart:  # Playwright runs its own event loop in the thread of the tests
        apart.submit(asyncio.run, asyncio.wait_for(watch(), 20)).result()
    assert len(asked) == 4
    assert all(b"x-lookalike-from: secret\r\n" in each for each in asked)
