"""The endpoints over HTTP, served by `python app.py` in a separate process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import served
from conftest import WARM, free_port, python
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import python_type_to_json_schema
from PIL import Image

from retrieval import Encoder, Searcher, build_artifact, open_source
from retrieval.ui.api.answers import Answer, ExplanationJson, Groups, Info
from training.starter.catalogue import catalogue, draw

PUBLIC = {"search", "search_by_id", "search_text", "explain", "duplicates", "info"}


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return Client(server, verbose=False)


@pytest.fixture(scope="module")
def searcher(starter: Path) -> Searcher:
    return Searcher.open(starter)


def test_search_endpoint_gives_the_hits_of_the_searcher(client: Client, searcher: Searcher, shirt: Path) -> None:
    answer = client.predict(handle_file(shirt), 12, -1.0, None, api_name="/search")
    expected = searcher.search(shirt, 12)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert [hit["attributes"] for hit in answer["hits"]] == [hit.attributes for hit in expected]
    assert [hit["confident"] for hit in answer["hits"]] == [hit.confident for hit in expected]
    assert answer["confident"] == expected[0].confident
    for hit, other in zip(answer["hits"], expected, strict=True):
        known = searcher.confidence is not None
        assert hit["chance"] == (pytest.approx(other.chance, abs=1e-4) if known else None)
        assert (other.chance is not None) == known


def test_a_thumbnail_is_the_stored_file(client: Client, searcher: Searcher, shirt: Path, server: str) -> None:
    hit = client.predict(handle_file(shirt), k=1, api_name="/search")["hits"][0]
    assert hit["thumbnail"].startswith(server)
    response = httpx.get(hit["thumbnail"])
    assert response.headers["content-type"] == "image/jpeg"
    assert response.content == searcher.gallery.thumbnail(searcher.gallery.row_of(hit["id"]))


def test_search_has_defaults_and_applies_filter_and_minimum_score(client: Client, shirt: Path) -> None:
    assert len(client.predict(handle_file(shirt), api_name="/search")["hits"]) == 10
    mugs = client.predict(
        handle_file(shirt), k=7, where={"label": "mug", "colour": ["red", "blue"]}, api_name="/search"
    )
    assert [(hit["label"], hit["attributes"]["colour"] in {"red", "blue"}) for hit in mugs["hits"]] == [
        ("mug", True)
    ] * 7
    scores = [h["score"] for h in client.predict(handle_file(shirt), k=50, api_name="/search")["hits"]]
    least = scores[20]
    above = client.predict(handle_file(shirt), k=50, min_score=least, api_name="/search")["hits"]
    assert len(above) == sum(score >= least for score in scores) < 50


def test_each_value_of_a_column_is_shown_once(client: Client, searcher: Searcher, shirt: Path) -> None:
    asked = {"k": 6, "group_by": "colour", "where": {"label": {"!=": "mug"}}}
    hits = client.predict(handle_file(shirt), **asked, api_name="/search")["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in searcher.search(shirt, **asked)]
    assert len({hit["attributes"]["colour"] for hit in hits}) == 6
    with pytest.raises(AppError, match=r"no column 'color'; did you mean 'colour'"):
        client.predict(handle_file(shirt), group_by="color", api_name="/search")
    with pytest.raises(AppError, match="group_by must be a string"):
        client.predict(handle_file(shirt), group_by=["colour"], api_name="/search")


def test_hit_has_its_file_and_the_thumbnail_where_there_is_no_original(client: Client, searcher: Searcher) -> None:
    hit = client.predict(searcher.gallery.ids[0], k=1, api_name="/search_by_id")["hits"][0]
    assert hit["file"] == Path(hit["source"]).name
    assert hit["original"] == hit["thumbnail"]


def test_search_by_id_leaves_the_image_itself_out(client: Client, searcher: Searcher) -> None:
    image_id = searcher.gallery.ids[100]
    hits = client.predict(image_id, k=5, api_name="/search_by_id")["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in searcher.search_by_id(image_id, 5)]
    assert image_id not in [hit["id"] for hit in hits]


def test_info_describes_the_artifact_and_the_api_lists_its_endpoints(client: Client, searcher: Searcher) -> None:
    info = client.predict(api_name="/info")
    assert info["images"] == len(searcher.gallery)
    assert info["fingerprint"] == searcher.encoder.fingerprint
    assert info["columns"] == ["label", "colour", "pattern", "view"]
    assert info["text_model"] == (searcher.text.encoder.name if searcher.text else "")
    assert (info["calibrated"], info["explains"]) == (searcher.confidence is not None, searcher.encoder.explains)
    api = client.view_api(return_format="dict")
    assert {name.removeprefix("/") for name in api["named_endpoints"]} == PUBLIC
    assert not api["unnamed_endpoints"]
    parameters = {
        p["parameter_name"]: p["python_type"]["type"] for p in api["named_endpoints"]["/search"]["parameters"]
    }
    assert parameters["image"] == "filepath"
    assert parameters["k"] == "int"
    assert parameters["min_score"] == "float"
    assert parameters["fold"] == "bool"


def perhaps(schema: dict) -> dict:
    return {"oneOf": [{"type": "null"}, schema]}


def test_openapi_describes_every_endpoint_with_its_types(server: str, searcher: Searcher, shirt: Path) -> None:
    """Arguments have schemas; results are only described in the text of the call, as Gradio offers no more."""
    paths = httpx.get(f"{server}/gradio_api/openapi.json").json()["paths"]
    asked = {path.removeprefix("/gradio_api/call/v2/"): of["post"] for path, of in paths.items() if "/call/v2/" in path}
    assert asked.keys() == PUBLIC
    schemas = {
        name: post["requestBody"]["content"]["application/json"]["schema"]["properties"] for name, post in asked.items()
    }
    text, value = {"type": "string"}, [{"type": kind} for kind in ("string", "number", "boolean", "null")]
    equal = [*value, {"type": "array", "items": {"anyOf": value}}]
    signs = {
        **{sign: {"anyOf": equal} for sign in ("=", "!=")},
        **{sign: {"anyOf": value[:2]} for sign in ("<", "<=", ">", ">=")},
    }
    where = {"anyOf": [*equal, {"type": "object", "properties": signs}]}
    refined = {
        "k": {"type": "integer"},
        "min_score": {"type": "number"},
        "where": perhaps({"type": "object", "additionalProperties": where}),
        "like": perhaps({"type": "array", "items": text}),
        "unlike": perhaps({"type": "array", "items": text}),
        "fold": {"type": "boolean"},
        "group_by": perhaps(text),
    }
    region = perhaps({"type": "array", "items": {"type": "number"}})
    assert schemas["search"].pop("image")["type"] == "string"
    assert "null" in str(schemas["explain"].pop("image"))
    assert schemas == {
        "search": {"region": region, **refined},
        "search_by_id": {"id": text, **refined},
        "search_text": {"text": text, **refined},
        "explain": {"hit": text, "id": perhaps(text), "region": region},
        "duplicates": {"threshold": {"type": "number"}, "limit": {"type": "integer"}},
        "info": {},
    }
    searches = dict.fromkeys(["search", "search_by_id", "search_text"], Answer)
    for name, result in {**searches, "explain": ExplanationJson, "duplicates": Groups, "info": Info}.items():
        assert str(python_type_to_json_schema(result)) in asked[name]["description"]
        assert f"/gradio_api/call/{name}/{{event_id}}" in paths

    [path] = httpx.post(f"{server}/gradio_api/upload", files={"files": shirt.read_bytes()}).json()
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{server}/gradio_api/call/v2/search", json={"image": image, "k": 2}).json()["event_id"]
    said = httpx.get(f"{server}/gradio_api/call/search/{event}").text
    [answer] = json.loads(said.split("event: complete\ndata: ")[1])
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in searcher.search(shirt, 2)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": 0}, "k, the number of hits, must be from 1 to 1000"),
        ({"k": "many"}, "k must be a whole number"),
        ({"k": 2.5}, "k must be a whole number"),
        ({"min_score": "high"}, "min_score must be a number"),
        ({"min_score": 5.0}, "from -1 to 1"),
        ({"where": {"lable": "mug"}}, "did you mean 'label'"),
        ({"where": {"label": "muk"}}, "did you mean 'mug'"),
        ({"where": {"label": {"like": "mug"}}}, "the filter of 'label' has no operator 'like'; use =, !="),
        ({"where": "label=mug"}, "where must be an object"),
    ],
)
def test_invalid_argument_gives_a_clear_error(client: Client, shirt: Path, arguments: dict, words: str) -> None:
    with pytest.raises(AppError, match=words):
        client.predict(handle_file(shirt), **arguments, api_name="/search")
    assert client.predict(handle_file(shirt), k=1, api_name="/search")["hits"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"this is only a text file, whatever it is called", "not a readable picture"),
        ("notes.png", b"this is only a text file, whatever it is called", "not a readable picture"),
        ("empty.jpg", b"", "empty"),
        ("cut.jpg", None, "damaged|cut short"),
    ],
)
def test_unreadable_picture_gives_a_clear_error(
    client: Client, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    if content is None:
        buffer = io.BytesIO()
        Image.effect_noise((200, 200), 50).save(buffer, "JPEG")
        content = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AppError, match=words) as caught:
        client.predict(handle_file(tmp_path / name), api_name="/search")
    assert "Traceback" not in str(caught.value)


def test_unknown_id_is_named_in_the_error(client: Client) -> None:
    with pytest.raises(AppError, match="no image with the id 'nothing'"):
        client.predict("nothing", api_name="/search_by_id")


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_path_of_a_server_file_is_refused(server: str, shirt: Path, meta: dict) -> None:
    """A picture on the server that nobody uploaded is not searched, and the error does not reveal that it exists."""
    data = [{"path": str(shirt), **meta}, 3, -1.0, None]
    asked = httpx.post(f"{server}/gradio_api/call/search", json={"data": data})
    if meta:
        answer = httpx.get(f"{server}/gradio_api/call/search/{asked.json()['event_id']}").text
        assert "event: error" in answer
        assert "This picture was not uploaded here" in answer
        assert "hits" not in answer
    else:
        assert (asked.status_code, asked.json()["detail"][:21]) == (422, "No picture was given.")


def test_page_events_are_private(server: str) -> None:
    dependencies = httpx.get(f"{server}/config").json()["dependencies"]
    public = {d["api_name"] for d in dependencies if d["api_visibility"] == "public"}
    assert public == PUBLIC
    assert all(d["api_visibility"] == "private" for d in dependencies if d["api_name"] not in public)


def test_concurrent_clients_get_their_own_answers(server: str, searcher: Searcher) -> None:
    ids = searcher.gallery.ids[::97]
    expected = {image_id: [hit.id for hit in searcher.search_by_id(image_id, 5)] for image_id in ids}

    def ask(image_id: str) -> list[str]:
        own = Client(server, verbose=False)
        return [hit["id"] for hit in own.predict(image_id, k=5, api_name="/search_by_id")["hits"]]

    with ThreadPoolExecutor(6) as pool:
        answers = dict(zip(ids, pool.map(ask, ids), strict=True))
    assert answers == expected


def test_column_called_path_is_not_mistaken_for_a_file(tmp_path: Path, encoder: Encoder) -> None:
    rows = []
    for item in catalogue()[:12]:
        buffer = io.BytesIO()
        draw(item, 48).save(buffer, "PNG")
        rows.append(
            {"image": {"bytes": buffer.getvalue(), "path": None}, "label": item.article, "path": f"a/{item.seed}.png"}
        )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pictures.parquet")
    build_artifact(open_source(str(tmp_path / "pictures.parquet")), tmp_path / "artifact", encoder)
    searcher = Searcher.open(tmp_path / "artifact")
    with served(searcher) as address:
        own = Client(address, verbose=False)
        image_id = searcher.gallery.ids[3]
        hits = own.predict(image_id, k=2, where={"path_": ["a/1.png", "a/2.png"]}, api_name="/search_by_id")["hits"]
        assert {hit["attributes"]["path_"] for hit in hits} == {"a/1.png", "a/2.png"}


def test_lists_are_searched_by_their_members(tmp_path: Path, encoder: Encoder) -> None:
    rows = []
    for number, item in enumerate(catalogue()[:12]):
        buffer = io.BytesIO()
        draw(item, 48).save(buffer, "PNG")
        tags = [["summer", "new"], ["winter"], [], None][number % 4]
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "tags": tags, "price": number / 10})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pictures.parquet")
    build_artifact(open_source(str(tmp_path / "pictures.parquet")), tmp_path / "artifact", encoder)
    searcher = Searcher.open(tmp_path / "artifact")
    assert searcher.gallery.facets(None)["tags"] == {"new": 3, "summer": 3, "winter": 3, None: 6}
    with served(searcher) as address:
        own = Client(address, verbose=False)

        def found(where: dict[str, Any]) -> list[tuple[Any, float]]:
            hits = own.predict(searcher.gallery.ids[11], where=where, api_name="/search_by_id")["hits"]
            return sorted(((hit["attributes"]["tags"], hit["attributes"]["price"]) for hit in hits), key=itemgetter(1))

        assert found({"tags": "summer"}) == [(["summer", "new"], price) for price in (0.0, 0.4, 0.8)]
        assert found({"tags": {"!=": ["summer", None]}}) == [(["winter"], price) for price in (0.1, 0.5, 0.9)]
        assert found({"tags": None, "price": {">": 0.3, "<=": 0.6}}) == [([], 0.6)]


def test_port_in_use_is_a_one_line_error(server: str) -> None:
    port = server.rsplit(":", 1)[1]
    run = python("app.py", "--host", "127.0.0.1", "--port", port)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert port in run.stderr.splitlines()[-1]


def test_app_deletes_its_thumbnail_files_on_exit(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = ["app.py", "--host", "127.0.0.1", "--port", free_port()]
    with WARM.start(*command, stdout=subprocess.PIPE, env=environment) as app:
        for line in app.stdout or ():
            if "Running on local URL" in line:
                break
        assert list(tmp_path.glob("lookalike-*/*.jpg"))
        app.send_signal(signal.SIGTERM)
    assert not list(tmp_path.glob("lookalike-*"))
