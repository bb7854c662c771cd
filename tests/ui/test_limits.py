"""How much the server takes on, of everybody and of one visitor, what it says beyond that, and what it keeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from browser import visit
from conftest import free_port
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Browser, expect

from retrieval import Searcher
from retrieval.search import Hit
from retrieval.ui import create_app, launch
from retrieval.ui.api.endpoints import CONCURRENCY
from retrieval.ui.limits.queue import KEPT

SIZE, OF_ONE = 6, 4
ANNA, BERT = ({"X-Forwarded-For": f"203.0.113.{number}"} for number in (7, 8))  # of a proxy on this machine
OPEN = threading.Event()
ID = "2f8ea3f551fec147"  # an image of the starter


class Held(Searcher):
    """A searcher that answers nothing while `OPEN` is not set, as if every search took long."""

    def find(self, *arguments: Any, **options: Any) -> list[Hit]:
        OPEN.wait(60)
        return super().find(*arguments, **options)


@pytest.fixture(scope="module")
def app(starter: Path) -> Iterator[gr.Blocks]:
    app = create_app(Held.open(starter))
    OPEN.set()
    settings = {"queue_size": SIZE, "visitor_searches": OF_ONE}
    launch(app, port=free_port(), prevent_thread_lock=True, quiet=True, **settings)
    yield app
    app.close()


@pytest.fixture
def server(app: gr.Blocks) -> str:
    return app.local_url.rstrip("/")


def ask(server: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Begin a search, as curl would."""
    return httpx.post(f"{server}/gradio_api/call/v2/search_by_id", json={"id": ID, "k": 2}, headers=headers)


def answer(server: str, event: str) -> str:
    return httpx.get(f"{server}/gradio_api/call/search_by_id/{event}", timeout=60).text


@contextmanager
def nothing_answered(server: str, count: int, headers: dict[str, str] | None = None) -> Iterator[None]:
    """While nothing is answered, `count` searches run or wait; in the end each gets its answer."""
    OPEN.clear()
    try:
        events = [ask(server, headers).json()["event_id"] for _ in range(count)]
        yield
    finally:
        OPEN.set()
    assert all("event: complete" in answer(server, event) for event in events)


@contextmanager
def nothing_else_finds_a_place(app: gr.Blocks, server: str) -> Iterator[None]:
    """The places for those who have nothing waiting are taken, too."""
    job = Client(server, verbose=False).submit(ID, k=2, api_name="/search_by_id")
    while len(app._queue) <= SIZE:
        time.sleep(0.01)
    yield
    OPEN.set()
    assert len(job.result()["hits"]) == 2


def refused(server: str) -> dict[str, float]:
    lines = httpx.get(f"{server}/metrics").text.splitlines()
    found = [line.split(" ") for line in lines if line.startswith("lookalike_refused_total")]
    return {name.split('"')[1]: float(value) for name, value in found}


# What waits


def test_search_that_is_one_too_many_is_told_when_to_come_again(server: str) -> None:
    before = refused(server).get("queue_full", 0)
    with nothing_answered(server, CONCURRENCY + SIZE):
        late = ask(server)
        assert late.status_code == 503
        assert int(late.headers["Retry-After"]) >= 1
        assert f"try again in {late.headers['Retry-After']} s" in late.json()["detail"]
        assert refused(server)["queue_full"] == before + 1
    assert "complete" in answer(server, ask(server).json()["event_id"])


def test_who_has_nothing_waiting_still_finds_a_place_and_comes_before_the_second_of_others(
    app: gr.Blocks, server: str
) -> None:
    client = Client(server, verbose=False)
    with nothing_answered(server, CONCURRENCY + SIZE):
        job = client.submit(ID, k=2, api_name="/search_by_id")
        while len(queue := app._queue.event_queue_per_concurrency_id["search"].queue) <= SIZE:
            time.sleep(0.01)
        sessions = [event.session_hash == event._id for event in queue]
        assert sessions.index(False) == 1, sessions
    assert len(job.result()["hits"]) == 2


def test_gradio_client_raises_with_the_sentence(app: gr.Blocks, server: str) -> None:
    client = Client(server, verbose=False)
    told = pytest.raises(AppError, match=r"try again in \d+ s")
    with nothing_answered(server, CONCURRENCY + SIZE), nothing_else_finds_a_place(app, server), told:
        client.predict(ID, k=2, api_name="/search_by_id")
    assert len(client.predict(ID, k=2, api_name="/search_by_id")["hits"]) == 2


def test_page_shows_the_sentence_and_goes_on_afterwards(app: gr.Blocks, server: str, browser: Browser) -> None:
    with visit(browser, server) as page:
        with nothing_answered(server, CONCURRENCY + SIZE), nothing_else_finds_a_place(app, server):
            page.locator("#examples .pic").first.click()
            expect(page.locator(".toast-body")).to_contain_text("try again in")
        page.locator(".toast-close").first.click()
        page.locator("#examples .pic").nth(1).click()
        expect(page.locator("#hits .hit")).to_have_count(24)


def test_tool_answers_with_the_sentence(app: gr.Blocks, server: str) -> None:
    name = next(tool for tool, endpoint in app.mcp_server_obj.tool_to_endpoint.items() if "by_id" in endpoint)
    called = {"name": name, "arguments": {"id": ID}}
    headers = {"Accept": "application/json, text/event-stream", **BERT}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": called}
    with nothing_answered(server, CONCURRENCY + SIZE), nothing_else_finds_a_place(app, server):
        said = httpx.post(f"{server}/gradio_api/mcp/", json=body, headers=headers, timeout=60).text
    assert "try again in" in said
    assert '"isError":true' in said


def test_one_visitor_cannot_fill_the_queue(server: str) -> None:
    before = refused(server).get("visitor_searches", 0)
    with nothing_answered(server, OF_ONE, ANNA):
        late = ask(server, ANNA)
        assert late.status_code == 429
        assert int(late.headers["Retry-After"]) >= 1
        assert f"{OF_ONE} searches" in late.json()["detail"]
        assert refused(server)["visitor_searches"] == before + 1
        with nothing_answered(server, 1, BERT):
            pass
    assert "complete" in answer(server, ask(server, ANNA).json()["event_id"])


def test_picture_by_address_is_not_fetched_for_a_search_that_is_one_too_many(server: str) -> None:
    picture = {"path": "https://127.0.0.1/a.png", "meta": {"_type": "gradio.FileData"}}
    with nothing_answered(server, CONCURRENCY + SIZE):
        asked = httpx.post(f"{server}/gradio_api/call/v2/search", json={"image": picture})
    assert asked.status_code == 503  # fetched, it would be 422: not a public address


# What is kept


def test_calls_of_endpoints_leave_nothing(app: gr.Blocks, server: str) -> None:
    client = Client(server, verbose=False)
    for _ in range(3):
        assert "complete" in answer(server, ask(server).json()["event_id"])
        client.predict(api_name="/info")
    queue = app._queue
    queue.sweep()
    assert client.session_hash not in queue.pending_messages_per_session
    assert not queue.event_ids_to_events
    assert not [ids for ids in queue.pending_event_ids_session.values() if not ids]
    assert len(queue.event_analytics) <= 1
    assert client.session_hash not in app.app.state_holder


def test_answer_is_kept_for_a_while_and_then_dropped(app: gr.Blocks, server: str) -> None:
    event = ask(server).json()["event_id"]
    while event in app._queue.event_ids_to_events:
        time.sleep(0.01)
    app._queue.sweep(time.monotonic() + 0.9 * KEPT)
    assert event in app._queue.pending_event_ids_session
    app._queue.sweep(time.monotonic() + 1.1 * KEPT)
    assert event not in app._queue.pending_event_ids_session
    assert event not in app._queue.pending_messages_per_session
    assert httpx.get(f"{server}/gradio_api/call/search_by_id/{event}").status_code == 404


@pytest.mark.parametrize("session", [None, "one-for-all"])
def test_oldest_answers_are_dropped_when_all_become_too_large(
    app: gr.Blocks, server: str, monkeypatch: pytest.MonkeyPatch, session: str | None
) -> None:
    def answered() -> str:
        asked = {"data": [ID, 2], "session_hash": session}
        event = str(httpx.post(f"{server}/gradio_api/call/search_by_id", json=asked).json()["event_id"])
        while event in app._queue.event_ids_to_events:
            time.sleep(0.01)
        return event

    first, second = answered(), answered()
    monkeypatch.setattr("retrieval.ui.limits.queue._MOST_KEPT", app._queue._answers[second][1] * 5 // 2)
    third = answered()
    assert httpx.get(f"{server}/gradio_api/call/search_by_id/{first}").status_code == 404
    if session is None:
        assert ["complete" in answer(server, event) for event in (second, third)] == [True, True]
    else:  # its stream brings the answers to all of its events
        stream = httpx.get(f"{server}/gradio_api/queue/data", params={"session_hash": session}, timeout=60).text
        assert [event in stream for event in (first, second, third)] == [False, True, True]


def test_search_whose_client_has_left_is_not_computed(app: gr.Blocks, server: str) -> None:
    with nothing_answered(server, CONCURRENCY):
        event = ask(server).json()["event_id"]
        with httpx.stream("GET", f"{server}/gradio_api/call/search_by_id/{event}") as stream:
            assert stream.status_code == 200
            assert event in app._queue.event_ids_to_events
        while event in app._queue.event_ids_to_events:
            time.sleep(0.01)
        assert len(app._queue) == 0


def test_page_keeps_its_search_as_long_as_it_is_open(app: gr.Blocks, server: str, browser: Browser) -> None:
    sessions, later = app.app.state_holder, datetime.now() + timedelta(hours=2)
    before = set(sessions.session_data)
    with visit(browser, server) as page:
        page.locator("#examples .pic").first.click()
        expect(page.locator("#hits .hit")).to_have_count(24)
        [mine] = set(sessions.session_data) - before
        sessions.delete_all_expired_state(later)
        assert mine in sessions
        assert before.isdisjoint(sessions.session_data)
    deadline = time.monotonic() + 30
    while mine in sessions and time.monotonic() < deadline:
        time.sleep(0.05)
        sessions.delete_all_expired_state(later)
    assert mine not in sessions
