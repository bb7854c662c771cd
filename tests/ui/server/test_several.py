"""Several processes behind one address: what belongs together reaches one of them, and one that dies is replaced."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import png, serving
from visitor import Visitor

FILE = {"_type": "gradio.FileData"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def server(artifact: Path) -> Iterator[str]:
    """Two processes behind one address, with a password."""
    with serving("--artifact", artifact, "--workers", "2", "--log-format", "json") as (address, _):
        yield address


def processes(server: str) -> list[psutil.Process]:
    """The supervisor, the process that workers are forked from, and the workers."""
    port = int(server.rpartition(":")[2])
    [listening] = {
        each.pid for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr.port == port
    }
    supervisor = psutil.Process(listening)
    [nursery] = supervisor.children()
    return [supervisor, nursery, *nursery.children()]


def upload(server: str, seed: int = 0) -> str:
    [path] = httpx.post(f"{server}/gradio_api/upload", files={"files": ("p.png", png(seed))}).json()
    return path


def call(server: str, path: str) -> str:
    """Begin a search; returns the id of its event."""
    asked = {"image": {"path": path, "meta": FILE}, "k": 2}
    return httpx.post(f"{server}/gradio_api/call/v2/search", json=asked).json()["event_id"]


def answer(server: str, event: str) -> httpx.Response:
    return httpx.get(f"{server}/gradio_api/call/search/{event}", timeout=60)


def counts(server: str) -> dict[str, float]:
    lines = httpx.get(f"{server}/metrics").text.splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def until_all_serve(server: str) -> None:
    while counts(server)["lookalike_workers"] < 2:
        time.sleep(0.05)


def test_events_pages_and_tools_reach_the_process_that_knows_them(server: str) -> None:
    before = counts(server)
    events = [call(server, upload(server, seed)) for seed in range(4)]
    answers = [answer(server, event).text for event in reversed(events)]
    assert all("event: complete" in each for each in answers)
    thumbnail = re.search(r'"thumbnail": "([^"]+)"', answers[0])[1]
    assert [httpx.get(thumbnail).status_code for _ in range(3)] == [200] * 3
    for _ in range(3):
        Visitor(server).click()
    path = upload(server)
    asked = {"name": "search", "arguments": {"image": path, "k": 1}}
    tool = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked}
    for _ in range(2):
        said = httpx.post(f"{server}/gradio_api/mcp/", json=tool, headers=ACCEPT, timeout=60).text
        assert "hits" in said, said
    after = counts(server)
    done = 'lookalike_requests_total{method="GET",route="/gradio_api/call/{api_name}/{event_id}",status="200"}'
    assert after[done] - before.get(done, 0) == 4
    assert after["lookalike_workers"] == 2
