"""Originals over HTTP: those of the gallery's rows, by id, and no other file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from browser import served
from conftest import noise
from gradio_client import Client
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from retrieval import Encoder, Searcher, build_artifact, open_source
from retrieval.errors import SourceError
from retrieval.images.gallery import BASE_SCHEMA, ORIGINAL, Gallery, conform, write_gallery
from retrieval.ui.access.passwords import Accounts
from retrieval.ui.originals import Originals, file_name

SECRET = b"root:x:0:0"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
ADDRESS = "https://shop.example/a.jpg"


def sha256(data: bytes) -> str:
    from hashlib import sha256 as digest

    return digest(data).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several types, files that are none, and links that lead out."""
    root = tmp_path / "photos"
    noise(root / "cats" / "a b ä.png", 1)
    for kind in ("jpg", "webp", "gif", "bmp", "tiff", "avif"):
        Image.new("RGB", (8, 8), kind.encode().hex()[:6].join("#_").strip("_")).save(root / f"one.{kind}")
    both = Image.new("RGB", (8, 8), "red")
    both.save(root / "phone.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    (root / "page.png").write_bytes(SVG)
    (tmp_path / "secret.png").write_bytes(SECRET)
    noise(tmp_path / "private" / "mine.png", 9)
    (root / "link.png").symlink_to(tmp_path / "private" / "mine.png")
    (root / "out").symlink_to(tmp_path / "private")
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    return root


@pytest.fixture
def gallery_of(folder: Path, tmp_path: Path) -> Callable[..., Gallery]:
    """A gallery, as a forger might make it: {id: place of the original}; each hash is the one of the file there."""

    def make(**places: str | None) -> Gallery:
        rows = []
        for name, place in places.items():
            path = folder / place if place and "\0" not in place else folder
            content = path.read_bytes() if path.is_file() else b""
            rows.append({"id": name, "source": "x", "sha256": sha256(content), ORIGINAL: place})
        schema = pa.schema([*BASE_SCHEMA, (ORIGINAL, pa.string())])
        write_gallery(tmp_path / "gallery.parquet", [conform(pa.Table.from_pylist(rows), schema)], schema)
        return Gallery(tmp_path / "gallery.parquet")

    return make


def client(folder: Path, gallery: Gallery) -> TestClient:
    return TestClient(Starlette(routes=Originals([folder]).routes(lambda: gallery)))


def test_each_kind_of_picture_is_served_with_its_type(folder: Path, gallery_of: Callable[..., Gallery]) -> None:
    kinds = {
        "cats/a b ä.png": "image/png",
        "one.jpg": "image/jpeg",
        "one.webp": "image/webp",
        "one.gif": "image/gif",
        "one.bmp": "image/bmp",
        "one.tiff": "image/tiff",
        "one.avif": "image/avif",
        "phone.jpg": "image/jpeg",
    }
    web = client(folder, gallery_of(**{f"id{n}": place for n, place in enumerate(kinds)}))
    for number, (place, kind) in enumerate(kinds.items()):
        answer = web.get(f"/original/id{number}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.content == (folder / place).read_bytes()
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
    assert web.get("/original/id0").headers["content-disposition"] == "inline; filename*=UTF-8''a%20b%20%C3%A4.png"


@pytest.mark.parametrize(
    ("place", "status", "said"),
    [
        ("../secret.png", 403, "does not lie in"),
        ("cats/../../secret.png", 403, "does not lie in"),
        ("link.png", 403, "does not lie in"),
        ("out/mine.png", 403, "does not lie in"),
        ("/etc/hostname", 403, "does not lie in"),
        ("loop.png", 403, "does not lie in"),
        ("a\0b.png", 403, "does not lie in"),
        ("page.png", 415, "not a picture"),
        ("gone.png", 404, "gone.png is missing"),
        ("cats", 404, "missing"),
        ("pipe.png", 404, "missing"),
        ("", 404, "missing"),
        (None, 404, "inside another file"),
        (ADDRESS, 404, "on another server"),
        ("file:///etc/hostname", 404, "missing"),
    ],
)
def test_nothing_but_pictures_of_the_folder_is_served(
    folder: Path, gallery_of: Callable[..., Gallery], place: str | None, status: int, said: str
) -> None:
    answer = client(folder, gallery_of(id=place)).get("/original/id")
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["cats/a b ä.png", "../secret.png", "%2e%2e%2fsecret.png", "", "ID", "id/", "id%00"])
def test_only_an_id_of_the_gallery_names_a_file(folder: Path, gallery_of: Callable[..., Gallery], path: str) -> None:
    web = client(folder, gallery_of(id="cats/a b ä.png"))
    assert web.get(f"/original/{path}", follow_redirects=False).status_code in (307, 404)


def test_file_that_changed_is_not_served_and_one_in_the_next_folder_is(
    folder: Path, gallery_of: Callable[..., Gallery], tmp_path: Path
) -> None:
    gallery = gallery_of(id="cats/a b ä.png")
    noise(folder / "cats" / "a b ä.png", 2)
    answer = client(folder, gallery).get("/original/id")
    assert (answer.status_code, "changed since it was indexed" in answer.text) == (410, True)
    noise(tmp_path / "more" / "cats" / "a b ä.png", 1)
    assert Originals([folder, tmp_path / "more"]).answer(gallery, "id").status_code == 200


def test_a_picture_that_a_client_has_is_not_sent_again(folder: Path, gallery_of: Callable[..., Gallery]) -> None:
    web = client(folder, gallery_of(id="one.jpg"))
    first = web.get("/original/id")
    again = web.get("/original/id", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert web.get("/original/id", headers={"If-None-Match": '"other"'}).status_code == 200
    assert web.post("/original/id").status_code == 405


def test_links_go_to_the_folder_or_the_address(folder: Path, gallery_of: Callable[..., Gallery]) -> None:
    gallery = gallery_of(one="one.jpg", two=ADDRESS, three=None)
    rows = gallery.take([0, 1, 2])
    here, nowhere = Originals([folder]), Originals()
    assert [here.link(gallery, n, row, ".") for n, row in enumerate(rows)] == ["./original/one", ADDRESS, None]
    assert [nowhere.link(gallery, n, row, ".") for n, row in enumerate(rows)] == [None, ADDRESS, None]
    assert nowhere.routes(lambda: gallery) == []
    assert (here.misplaced(gallery), Originals([folder / "cats"]).misplaced(gallery)) == (False, True)
    with pytest.raises(SourceError, match="no such folder"):
        Originals([folder / "nowhere"])


def test_a_link_is_followed_into_another_folder_that_is_given(
    folder: Path, tmp_path: Path, gallery_of: Callable[..., Gallery]
) -> None:
    gallery = gallery_of(a="out/mine.png", b="link.png")
    both = Originals([folder, tmp_path / "private"])
    for image_id in "ab":
        assert both.answer(gallery, image_id).body == (tmp_path / "private" / "mine.png").read_bytes()
        assert Originals([folder]).answer(gallery, image_id).status_code == 403


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("cats/a.jpg", "a.jpg"),
        ("zip://in/b.jpg::more/pictures.zip", "b.jpg"),
        ("https://shop.example/p/c%20d.jpg?size=2#top", "c d.jpg"),
        ("https://shop.example", "https://shop.example"),
        ("http://[x/a.jpg", "http://[x/a.jpg"),
        ("train/12", "12"),
    ],
)
def test_file_name_of_every_kind_of_source(source: str, name: str) -> None:
    assert file_name(source) == name


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Iterator[tuple[Path, Searcher]]:
    """A folder of four pictures, and the searcher of an artifact that was built from it without `originals`."""
    root = tmp_path_factory.mktemp("shop")
    for seed in range(4):
        noise(root / "in" / f"{seed}.png", seed)
    build_artifact(open_source(str(root / "in")), root / "artifact", encoder)
    return root / "in", Searcher.open(root / "artifact")


def test_visitors_have_to_log_in_where_the_page_asks_for_it(shop: tuple[Path, Searcher]) -> None:
    """And an artifact that does not keep originals finds them by its sources."""
    folder, searcher = shop
    [image] = searcher.gallery.take([0])
    with (
        served(searcher, [folder], accounts=Accounts({"me": "right"})) as address,
        httpx.Client(base_url=address) as web,
    ):
        path = Originals([folder]).link(searcher.gallery, 0, image, "")
        assert path == f"/original/{image.id}"
        assert web.get(path).status_code == 401
        [hit] = Client(address, auth=("me", "right"), verbose=False).predict(image.id, k=1, api_name="/search_by_id")[
            "hits"
        ]
        [found] = searcher.search(id=image.id, k=1)
        assert (hit["original"], hit["file"]) == (f"{address}/original/{found.id}", found.source)
        web.post("/login", data={"username": "me", "password": "right"})
        assert web.get(path).content == (folder / image.source).read_bytes()
