"""The endpoints for refined search, text search and explanations over HTTP, checked against plain numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from retrieval import Searcher
from retrieval.evaluation.duplicates import find_groups
from retrieval.images.open import open_image

FILE = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def client(twins_server: str) -> Client:
    return Client(twins_server, verbose=False)


@pytest.fixture(scope="module")
def searcher(twins: Path) -> Searcher:
    return Searcher.open(twins)


@pytest.fixture(scope="module")
def vectors(searcher: Searcher) -> np.ndarray:
    return searcher.store.vectors(np.arange(len(searcher.store)))


def cosines(vectors: np.ndarray, total: np.ndarray) -> np.ndarray:
    return vectors @ (total / np.linalg.norm(total))


def check(answer: Any, searcher: Searcher, scores: np.ndarray, left_out: tuple[int, ...] = ()) -> None:
    """The hits are the best rows except those left out, in order, each with its own score."""
    rows = [searcher.gallery.row_of(hit["id"]) for hit in answer["hits"]]
    assert len(set(rows)) == len(rows) > 0
    assert not set(rows) & set(left_out)
    best = np.sort(np.delete(scores, left_out))[::-1][: len(rows)]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx(best, abs=1e-5)
    assert scores[rows] == pytest.approx(best, abs=1e-5)


# Liked and disliked examples, part of a picture


def test_liked_and_disliked_examples_refine_a_picture_search(
    client: Client, searcher: Searcher, vectors: np.ndarray, shirt: Path
) -> None:
    ids = searcher.gallery.ids
    refined = {"like": [ids[3], ids[7]], "unlike": [ids[11]]}
    answer = client.predict(handle_file(shirt), k=12, **refined, api_name="/search")
    asked = searcher.encoder.embed_images([open_image(shirt)])[0]
    check(answer, searcher, cosines(vectors, asked + vectors[3] + vectors[7] - vectors[11]), (3, 7, 11))
    assert len(answer["hits"]) == 12


def test_liked_and_disliked_examples_refine_a_search_by_id(
    client: Client, searcher: Searcher, vectors: np.ndarray
) -> None:
    ids = searcher.gallery.ids
    answer = client.predict(ids[0], k=1000, like=[ids[5]], unlike=[ids[9], ids[20]], api_name="/search_by_id")
    scores = cosines(vectors, vectors[0] + vectors[5] - vectors[9] - vectors[20])
    check(answer, searcher, scores, (0, 5, 9, 20))
    assert len(answer["hits"]) == len(vectors) - 4


def test_region_gives_the_results_of_the_cropped_picture(client: Client, shirt: Path, tmp_path: Path) -> None:
    with Image.open(shirt) as picture:
        picture.crop((64, 0, 192, 128)).save(tmp_path / "part.png")
    part = client.predict(handle_file(shirt), k=9, region=[0.25, 0, 0.75, 0.5], api_name="/search")["hits"]
    cropped = client.predict(handle_file(tmp_path / "part.png"), k=9, api_name="/search")["hits"]
    whole = client.predict(handle_file(shirt), k=9, api_name="/search")["hits"]
    assert [hit["id"] for hit in part] == [hit["id"] for hit in cropped]
    assert [hit["score"] for hit in part] == pytest.approx([hit["score"] for hit in cropped], abs=1e-6)
    assert [hit["score"] for hit in part] != pytest.approx([hit["score"] for hit in whole], abs=1e-4)


# Text


def test_text_search_matches_the_text_encoder(client: Client, searcher: Searcher) -> None:
    pictures = [open_image(searcher.gallery.thumbnail(row)) for row in range(len(searcher.gallery))]
    seen, read = searcher.text.encoder.embed_images(pictures), searcher.text.encoder.embed_texts(["a red shirt"])[0]
    check(client.predict(" a red shirt ", k=15, api_name="/search_text"), searcher, cosines(seen, read))
    refined = {"like": [searcher.gallery.ids[2]], "unlike": [searcher.gallery.ids[8]]}
    answer = client.predict("a red shirt", k=15, **refined, api_name="/search_text")
    check(answer, searcher, cosines(seen, read + seen[2] - seen[8]), (2, 8))
    some = client.predict("a red shirt", k=99, where={"copy": "yes"}, min_score=-1, api_name="/search_text")["hits"]
    assert {hit["attributes"]["copy"] for hit in some} == {"yes"}


# Near-duplicates


def folded(searcher: Searcher, vectors: np.ndarray, order: list[int]) -> dict[int, list[int]]:
    """The rule by brute force: in order, each hit joins the first leader that it is a near-duplicate of."""
    followers: dict[int, list[int]] = {}
    for row in order:
        for leader in followers:
            cosine = vectors[leader] @ vectors[row]
            same = searcher.pictures.same(leader, np.array([row]), cosine < 0.95 - 2e-6)[0]
            if same and cosine >= 0.6 - 2e-6:
                followers[leader].append(row)
                break
        else:
            followers[row] = []
    return followers


@pytest.mark.parametrize(
    "where",
    [
        None,
        {"colour": ["teal", "green"]},
        {"copy": "yes"},
        {"colour": {"=": ["teal", "green"], "!=": None}, "copy": {"!=": []}},
    ],
)
@pytest.mark.parametrize("least", [-1.0, 0.5])
def test_folding_near_duplicates_matches_brute_force(
    client: Client, searcher: Searcher, vectors: np.ndarray, where: dict | None, least: float
) -> None:
    scores = vectors @ vectors[1]
    allowed = searcher.gallery.rows_where(where)
    order = [int(row) for row in np.argsort(-scores, kind="stable") if row != 1 and scores[row] >= least]
    order = [row for row in order if allowed is None or row in allowed]
    expected = folded(searcher, vectors, order)
    asked = {"where": where, "min_score": least, "api_name": "/search_by_id"}
    hits = client.predict(searcher.gallery.ids[1], k=100, fold=True, **asked)["hits"]
    ids = searcher.gallery.ids
    assert {hit["id"]: hit["alike"] for hit in hits} == {
        ids[leader]: [ids[row] for row in rows] for leader, rows in expected.items()
    }
    assert where == {"copy": "yes"} or any(hit["alike"] for hit in hits)
    few = client.predict(searcher.gallery.ids[1], k=2, fold=True, **asked)["hits"]
    assert few == hits[:2]
    plain = client.predict(searcher.gallery.ids[1], k=100, **asked)["hits"]
    assert len(plain) == len(order)
    assert all(hit["alike"] == [] for hit in plain)


def test_duplicates_endpoint_gives_the_groups_of_the_gallery(client: Client, searcher: Searcher) -> None:
    expected = find_groups(searcher.store, searcher.pictures.same, 0.95)
    answer = client.predict(api_name="/duplicates")
    assert answer["found"] == len(answer["groups"]) == len(expected) > 10
    for found, group in zip(answer["groups"], expected, strict=True):
        assert [image["id"] for image in found] == [searcher.gallery.ids[row] for row in group.rows]
        assert [image["score"] for image in found] == pytest.approx(group.scores, abs=1e-6)
        assert {image["label"] for image in found} == {None}
    first = answer["groups"][0][1]
    [image] = searcher.gallery.take([expected[0].rows[1]])
    about = image.source, Path(image.source).name, image.attributes
    assert (first["source"], first["file"], first["attributes"]) == about
    assert first["original"] == first["thumbnail"]
    assert httpx.get(first["thumbnail"]).content == searcher.gallery.thumbnail(expected[0].rows[1])
    few = client.predict(threshold=0.95, limit=2, api_name="/duplicates")
    assert (few["found"], few["groups"]) == (answer["found"], answer["groups"][:2])


# Explanations


def check_sums(why: Any) -> None:
    for heat in (why["query"], why["hit"]):
        assert np.sum(heat["cells"]) + heat["bias"] == pytest.approx(heat["sum"], abs=1e-5)
        assert np.shape(heat["cells"])[0] > 1
        assert np.std(heat["cells"]) > 0
        assert heat["box"] == [0, 0, 1, 1]


@pytest.mark.parametrize("region", [None, [0.25, 0, 0.75, 0.5]])
def test_explanation_cells_add_up_to_the_score(client: Client, shirt: Path, region: list[float] | None) -> None:
    hit = client.predict(handle_file(shirt), k=4, region=region, api_name="/search")["hits"][3]
    why = client.predict(hit["id"], image=handle_file(shirt), region=region, api_name="/explain")
    check_sums(why)
    assert why["cosine"] == pytest.approx(hit["score"], abs=1e-5)
    assert why["query"]["sum"] == pytest.approx(why["cosine"], abs=1e-5)


def test_gallery_images_are_explained_from_their_thumbnails(client: Client, searcher: Searcher) -> None:
    image_id = searcher.gallery.ids[4]
    hit = client.predict(image_id, k=3, api_name="/search_by_id")["hits"][2]
    why = client.predict(hit["id"], id=image_id, api_name="/explain")
    check_sums(why)
    assert why["cosine"] == pytest.approx(hit["score"], abs=1e-5)
    assert why["query"]["sum"] == pytest.approx(why["cosine"], abs=0.05)
    assert why["hit"]["sum"] == pytest.approx(why["cosine"], abs=0.05)
    part = client.predict(hit["id"], id=image_id, region=[0, 0, 0.5, 0.5], api_name="/explain")
    assert part["query"]["sum"] == pytest.approx(part["cosine"], abs=1e-5)
    assert part["cosine"] != pytest.approx(why["cosine"], abs=1e-4)


# Missing information and invalid requests


def test_unlabelled_gallery_gives_no_match_probability(client: Client, searcher: Searcher) -> None:
    info = client.predict(api_name="/info")
    assert (info["calibrated"], info["explains"], info["text_model"]) == (False, True, searcher.text.encoder.name)
    answer = client.predict(searcher.gallery.ids[0], api_name="/search_by_id")
    assert answer["confident"] is None
    assert {(hit["chance"], hit["confident"], hit["label"]) for hit in answer["hits"]} == {(None, None, None)}


def said(server: str, name: str, body: str) -> str:
    """The error of an endpoint for a request body that no Gradio client would send."""
    options = {"headers": {"content-type": "application/json"}, "timeout": 60}
    asked = httpx.post(f"{server}/gradio_api/call/v2/{name}", content=body, **options)
    if asked.status_code == 422:  # a value that no gallery could accept
        return asked.json()["detail"]
    answer = httpx.get(f"{server}/gradio_api/call/{name}/{asked.json()['event_id']}", timeout=60).text
    assert answer.startswith("event: error")
    return json.loads(answer.partition("data: ")[2])["error"]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("search_by_id", '"like": "abc"', "like must be a list of gallery ids, not 'abc'"),
        ("search_by_id", '"like": [1, 2]', r"like must be a list of gallery ids, not [1, 2]"),
        ("search_by_id", '"unlike": [null]', "unlike must be a list of gallery ids"),
        ("search_by_id", '"unlike": {"a": 1}', "unlike must be a list of gallery ids"),
        ("search_by_id", '"like": ["nothing"]', "no image with the id 'nothing'"),
        ("search_by_id", f'"like": {json.dumps(["x"] * 101)}', "like must have at most 100 ids, not 101"),
        ("search_by_id", '"unlike": ["ID"]', "cancel each other out"),
        ("search_by_id", '"fold": "false"', "fold must be true or false, not 'false'"),
        ("search_by_id", '"fold": null', "fold must be true or false, not None"),
        ("search_by_id", '"min_score": NaN', "from -1 to 1, not nan"),
        ("search_by_id", f'"min_score": {"9" * 400}', "from -1 to 1"),
        ("search_by_id", f'"k": {"9" * 400}', "k, the number of hits, must be from 1 to 1000"),
        ("search_by_id", '"k": Infinity', "k must be a whole number, not inf"),
        ("search_by_id", '"k": true', "k must be a whole number, not True"),
        ("search_by_id", '"id": 5', "id must be a string, not 5"),
        ("search_by_id", '"id": null', "id must be a string, not None"),
        ("search_by_id", '"id": "' + "x" * 9999 + '"', "…'; it has"),
        ("search_by_id", r'"id": "\ud800"', "no image with the id '?'"),
        ("search_by_id", r'"where": {"colour": "\ud800"}', "no image has colour=?"),
        ("search_by_id", '"where": [["colour", "red"]]', "where must be an object"),
        ("search_text", '"text": ["red"]', "text must be a string, not ['red']"),
        ("search_text", '"text": " "', "the text to search for is empty"),
        ("explain", '"hit": "ID"', "give either image or id, not both"),
        ("explain", '"hit": "nothing", "id": "ID"', "no image with the id 'nothing'"),
        ("explain", '"hit": "ID", "id": "nothing"', "no image with the id 'nothing'"),
        ("explain", '"hit": ["ID"], "id": "ID"', "hit must be a string"),
        ("explain", '"hit": "ID", "id": "ID", "region": [0, 0, 1]', "a region must be [left, top, right, bottom]"),
        ("explain", '"hit": "ID", "image": "photo.jpg"', "No picture was given"),
        ("duplicates", '"threshold": "0.9"', "threshold must be a number, not '0.9'"),
        ("duplicates", '"threshold": 0.5', "a cosine similarity from 0.6 to 1, not 0.5"),
        ("duplicates", '"threshold": NaN', "a cosine similarity from 0.6 to 1, not nan"),
        ("duplicates", '"limit": 0', "limit, the number of groups, must be from 1 to 1000, not 0"),
        ("duplicates", '"limit": "all"', "limit must be a whole number"),
    ],
)
def test_invalid_argument_gives_a_clear_error(
    twins_server: str, searcher: Searcher, name: str, arguments: str, words: str
) -> None:
    first = '"id": "ID", ' if name == "search_by_id" and '"id"' not in arguments else ""
    answer = said(twins_server, name, f"{{{first}{arguments}}}".replace("ID", searcher.gallery.ids[0]))
    assert words in answer
    assert len(answer) < 700
    assert "\n" not in answer


@pytest.mark.parametrize(
    "region",
    ["[0, 0, 1]", "0.5", '"0011"', "[0, 0, 2, 1]", "[0.5, 0, 0.5, 1]", "[]", "{}", '["0", "0", "1", "1"]',
     "[NaN, 0, 1, 1]", "[0, 0, 1, Infinity]", "[-0.1, 0, 1, 1]", "[false, false, true, true]", "[[0], 0, 1, 1]"],
)  # fmt: skip
def test_invalid_region_is_refused(twins_server: str, shirt: Path, region: str) -> None:
    [path] = httpx.post(f"{twins_server}/gradio_api/upload", files={"files": shirt.read_bytes()}).json()
    body = f'{{"image": {json.dumps({"path": path, **FILE})}, "region": {region}}}'
    assert "a region must be [left, top, right, bottom], as fractions of the picture from 0 to 1" in said(
        twins_server, "search", body
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("search", {"image": "SECRET"}),
        ("search", {"image": "OWN", "region": ["SECRET"]}),
        ("search", {"image": "OWN", "like": ["SECRET"]}),
        ("search", {"image": "OWN", "where": {"colour": ["SECRET"]}}),
        ("search", {"image": "OWN", "where": {"colour": {"!=": "SECRET"}}}),
        ("search", {"image": "OWN", "where": {"colour": {"<": ["SECRET"]}}}),
        ("search_by_id", {"id": "SECRET"}),
        ("search_by_id", {"id": "ID", "unlike": "SECRET"}),
        ("search_by_id", {"id": "ID", "fold": "SECRET"}),
        ("search_text", {"text": "SECRET"}),
        ("explain", {"hit": "ID", "image": "SECRET"}),
        ("explain", {"hit": "SECRET", "id": "ID"}),
        ("explain", {"hit": "ID", "image": "OWN", "id": "ID"}),
        ("duplicates", {"threshold": "SECRET"}),
    ],
)
@pytest.mark.parametrize("meta", [{}, FILE])
def test_path_of_a_server_file_is_refused(
    twins_server: str, searcher: Searcher, shirt: Path, name: str, arguments: dict, meta: dict
) -> None:
    [path] = httpx.post(f"{twins_server}/gradio_api/upload", files={"files": shirt.read_bytes()}).json()
    body = json.dumps(arguments).replace('"ID"', json.dumps(searcher.gallery.ids[0]))
    body = body.replace('"SECRET"', json.dumps({"path": str(shirt), **meta}))
    answer = said(twins_server, name, body.replace('"OWN"', json.dumps({"path": path, **FILE})))
    assert "hits" not in answer


def test_starter_supports_explanations_but_not_text_search(server: str, starter: Path) -> None:
    client, searcher = Client(server, verbose=False), Searcher.open(starter)
    one, other = searcher.gallery.ids[:2]
    check_sums(client.predict(other, id=one, api_name="/explain"))
    with pytest.raises(AppError, match="no text model: build it with --text-model"):
        client.predict("a red shirt", api_name="/search_text")
