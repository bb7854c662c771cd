"""The endpoints as MCP tools, called by a real MCP client, served by `python app.py` in a separate process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from conftest import in_a_thread, noise, python
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client

from retrieval import Searcher
from retrieval.errors import QueryError
from retrieval.search import Part
from retrieval.ui import create_app
from retrieval.ui.api.mcp import Tools
from retrieval.ui.intake.files.folder import Uploads

FILE = {"meta": {"_type": "gradio.FileData"}}


def ask(server: str, tool: str | None = None, **arguments: Any) -> Any:
    """The list of tools, or the result of one, as a client receives it."""

    async def once() -> Any:
        async with (
            streamable_http_client(f"{server}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await (session.call_tool(tool, arguments) if tool else session.list_tools())

    return in_a_thread(asyncio.run, once())


def answer(result: types.CallToolResult) -> Any:
    [content] = result.content
    assert not result.isError, content.text
    return json.loads(content.text)


def refusal(result: types.CallToolResult) -> str:
    assert result.isError
    return result.content[0].text


def data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.fixture(scope="module")
def searcher(starter: Path) -> Searcher:
    return Searcher.open(starter)


def test_mcp_tools_are_the_public_endpoints_and_describe_arguments(server: str) -> None:
    tools = {tool.name: tool for tool in ask(server).tools}
    assert tools.keys() == {"search", "search_by_id", "search_text", "explain", "duplicates", "info"}
    assert all(tool.description for tool in tools.values())
    arguments = tools["search"].inputSchema["properties"]
    assert {name: schema.get("type") for name, schema in arguments.items()} == {
        "image": "string",
        "k": "integer",
        "min_score": "number",
        "where": None,  # an object or null
        "region": None,
        "like": None,
        "unlike": None,
        "fold": "boolean",
        "group_by": None,
    }
    assert all(schema["description"] for tool in tools.values() for schema in tool.inputSchema["properties"].values())
    required = {name: tool.inputSchema.get("required", []) for name, tool in tools.items()}
    named = {"search": ["image"], "search_by_id": ["id"], "search_text": ["text"], "explain": ["hit"]}
    assert required == {**named, "duplicates": [], "info": []}
    assert tools["explain"].inputSchema["properties"]["image"]["type"] == "string"


def test_data_url_gives_the_hits_of_the_searcher(server: str, searcher: Searcher, shirt: Path) -> None:
    where = {"label": {"!=": "mug"}, "colour": ["red", "blue"]}
    hits = answer(ask(server, "search", image=data_url(shirt), k=7, where=where))["hits"]
    expected = searcher.search(shirt, 7, where=where)
    assert {hit.label for hit in expected} != {"mug"}
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert [hit["attributes"] for hit in hits] == [hit.attributes for hit in expected]
    assert hits[0]["thumbnail"].startswith(server)
    assert httpx.get(hits[0]["thumbnail"]).content == searcher.gallery.thumbnail(expected[0].row)


@pytest.mark.parametrize("form", ["{path}", "{server}/gradio_api/file={path}"])
def test_uploaded_picture_is_searched(server: str, searcher: Searcher, shirt: Path, form: str) -> None:
    """Named by the path that the upload returns, or by its URL, as `gradio upload-mcp` does."""
    [path] = httpx.post(f"{server}/gradio_api/upload", files={"files": ("a b.png", shirt.read_bytes())}).json()
    image = form.format(server=server, path=path.replace(" ", "%20") if "server" in form else path)
    hits = answer(ask(server, "search", image=image, k=3))["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in searcher.search(shirt, 3)]


def test_explain_takes_its_picture_as_a_data_url_or_an_upload(twins_server: str, twins: Path, shirt: Path) -> None:
    """As a data URL or an upload; without a picture, `id` is needed instead."""
    one, other = Searcher.open(twins).gallery.ids[:2]
    [path] = httpx.post(f"{twins_server}/gradio_api/upload", files={"files": shirt.read_bytes()}).json()
    found = [answer(ask(twins_server, "explain", hit=one, image=image)) for image in (data_url(shirt), path)]
    assert found[0] == found[1]
    heat = found[0]["query"]
    assert sum(map(sum, heat["cells"])) + heat["bias"] == pytest.approx(found[0]["cosine"], abs=1e-5)
    assert answer(ask(twins_server, "explain", hit=one, id=other))["cosine"] != found[0]["cosine"]
    assert "give either image or id, not both" in refusal(ask(twins_server, "explain", hit=one))
    assert "not both" in refusal(ask(twins_server, "explain", hit=one, image=path, id=other))


def test_mcp_tools_offer_refined_text_and_duplicate_search(twins_server: str, twins: Path) -> None:
    searcher = Searcher.open(twins)
    one, other, third = searcher.gallery.ids[:3]
    query = searcher.query([Part(row=0), Part(row=1), Part(row=2, weight=-1)])
    hits = answer(ask(twins_server, "search_by_id", id=one, like=[other], unlike=[third], fold=True))["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in searcher.find(query, 10, fold=True)]
    hits = answer(ask(twins_server, "search_text", text="a red shirt", k=3))["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in searcher.search_text("a red shirt", 3)]
    groups = answer(ask(twins_server, "duplicates", limit=1))
    assert (len(groups["groups"]), len(groups["groups"][0])) == (1, 3)


def test_search_by_id_and_info_work_as_mcp_tools(server: str, searcher: Searcher) -> None:
    image_id = searcher.gallery.ids[100]
    hits = answer(ask(server, "search_by_id", id=image_id, k=5))["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in searcher.search_by_id(image_id, 5)]
    info = answer(ask(server, "info"))
    assert info["fingerprint"] == searcher.encoder.fingerprint
    assert info["offline"] is False
    assert "no image with the id 'nothing'" in refusal(ask(server, "search_by_id", id="nothing"))


def test_unreadable_picture_in_a_data_url_is_refused(server: str, tmp_path: Path) -> None:
    assert "not a readable picture" in refusal(
        ask(server, "search", image="data:image/png;base64,bm90IGEgcGljdHVyZQ==")
    )
    (tmp_path / "cut.png").write_bytes(noise(tmp_path / "whole.png", 1).read_bytes()[:900])
    assert "cut short" in refusal(ask(server, "search", image=data_url(tmp_path / "cut.png")))


@pytest.mark.parametrize("tool", ["search", "search_by_id", "explain"])
def test_path_of_a_server_file_is_refused(server: str, tmp_path: Path, shirt: Path, tool: str) -> None:
    """It must not be copied to the uploads either, where everyone could read it, as Gradio's own server does."""
    secret = tmp_path / f"{tmp_path.name}.png"
    secret.write_bytes(shirt.read_bytes())
    file, first = {"path": str(secret), **FILE}, "id" if tool == "search_by_id" else "image"
    for arguments in (
        {first: file},
        {first: str(secret)},
        {first: secret.as_uri()},
        {first: f"{server}/gradio_api/file={secret}"},
        {first: data_url(shirt), "where": {"label": file}},
        {first: data_url(shirt), "where": {"label": [file]}},
        {first: data_url(shirt), "where": {"label": {"=": file}}},
        {first: data_url(shirt), "where": {"label": {"<": [file]}}},
        {first: data_url(shirt), "where": file},
        {first: data_url(shirt), "k": file},
        {first: data_url(shirt), "hit": file},
        {first: data_url(shirt), "like": [file]},
        {first: data_url(shirt), "region": [file, file, file, file]},
        {first: data_url(shirt), "other": file},
    ):
        assert "hits" not in refusal(ask(server, tool, **arguments))
    uploads = Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir()) / "gradio")
    assert uploads.is_dir()
    assert not list(uploads.rglob(secret.name))


@pytest.fixture(scope="module")
def tools(searcher: Searcher, starter: Path) -> Tools:
    page = create_app(searcher)
    page.uploads = Uploads()
    return Tools(page)


@pytest.mark.parametrize(
    "value",
    [
        {"where": {"label": {"!=": {"path": "/etc/hosts", **FILE}}}},
        {"where": {"label": {"path": "/etc/hosts", **FILE}}},
        {"k": [{"path": "x", "meta": "anything"}]},
    ],
)
def test_file_object_is_refused_whatever_the_schema_allows(tools: Tools, value: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match="an argument must not be a file object"):
        tools.convert_strings_to_filedata(value, [["image"]])


def test_data_url_picture_is_an_upload(tools: Tools, shirt: Path) -> None:
    taken = tools.convert_strings_to_filedata({"image": data_url(shirt), "k": 3}, [["image"]])
    path = Path(taken["image"]["path"])
    assert path.read_bytes() == shirt.read_bytes()
    assert tools.blocks.uploads.holds(str(path))
    for wrong in ("data:image/png,AAAA", "data:image/png;base64,A$"):
        with pytest.raises(QueryError, match="not valid base64"):
            tools.convert_strings_to_filedata({"image": wrong}, [["image"]])


@pytest.fixture
def neighbour(shirt: Path) -> Iterator[tuple[str, list[str]]]:
    """Another server on the same machine that holds a picture: its address, and the requests it has received."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(shirt.read_bytes())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_server_does_not_fetch_addresses_of_its_own_network(server: str, neighbour: tuple[str, list[str]]) -> None:
    address, asked = neighbour
    assert httpx.get(f"http://{address}/picture.png").status_code == 200
    for host in (address, address.replace("127.0.0.1", "localhost"), address.replace("127.0.0.1", "[::ffff:7f00:1]")):
        url = f"http://{host}/picture.png"
        assert "hits" not in refusal(ask(server, "search", image=url))
        answer = httpx.post(f"{server}/gradio_api/call/search", json={"data": [{"path": url, **FILE}, 3, -1.0, None]})
        assert answer.status_code == 422
        assert "it must be a public https address" in answer.json()["detail"] or "only https" in answer.json()["detail"]
    assert asked == ["/picture.png"]


def test_app_starts_without_the_mcp_package_and_says_so(starter: Path) -> None:
    code = """
import sys
sys.modules["mcp"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "mcp" else found(name, *rest)
from pathlib import Path
from retrieval import Searcher
from retrieval.hub.pull import Resolved
from retrieval.ui import create_app, launch
import httpx
app = create_app(Searcher.open(sys.argv[1]))
_, address, _ = launch(app, prevent_thread_lock=True, quiet=True)
print(httpx.get(address + "config").json()["mcp_server"], httpx.get(address + "gradio_api/mcp/").status_code)
"""
    run = python("-c", code, starter)
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    assert [line for line in said if "MCP" in line] == [
        "No MCP: the package mcp is not installed (pip install -r requirements.txt)."
    ]
    assert said[-1] == "False 404"
