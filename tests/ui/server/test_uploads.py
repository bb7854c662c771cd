"""The folder of uploads: how full it gets, what goes first, and what a disk that cannot be written does."""

from __future__ import annotations

import io
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import WARM, finished
from fastapi import FastAPI
from PIL import Image
from refusing import only_here
from starlette.testclient import TestClient

from retrieval import Searcher
from retrieval.ui import create_app
from retrieval.ui.intake.files.folder import Incoming, Uploads
from retrieval.ui.intake.files.uploads import Form
from retrieval.ui.intake.refusing import RefusedError
from retrieval.ui.server.gradio_app import mount_page
from retrieval.ui.server.settings import ServerSettings

API = "/gradio_api"
BODY = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%s\r\n--b--\r\n'
FORM = {b"content-type": b"multipart/form-data; boundary=b"}


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    """A folder for a million bytes."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    folder = Uploads(10**6)
    yield folder
    folder.close()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def http(artifact: Path) -> Iterator[TestClient]:
    """The page with its middlewares, in this process, with a folder for a million bytes."""
    outer, page = FastAPI(), create_app(Searcher.open(artifact))
    mount_page(outer, page, "/", ServerSettings(), Uploads(10**6))
    with TestClient(outer, raise_server_exceptions=False) as client:
        client.uploads = page.uploads  # type: ignore[attr-defined]
        yield client


def kept(uploads: Uploads, size: int = 1000, name: str = "a.png") -> Path:
    file = uploads.new(name)
    file.write(bytes(size))
    return file.keep()


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def jpeg(seed: int = 0) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (60, 50), (seed % 256, seed // 256, 120)).save(file, "JPEG")
        return file.getvalue()


def upload(http: TestClient, content: bytes = b"") -> Any:
    return http.post(f"{API}/upload", files={"files": ("a.jpg", content or jpeg())})


def search(http: TestClient, path: str) -> str:
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    event = http.post(f"{API}/call/v2/search", json={"image": image, "k": 2}).json()["event_id"]
    return str(http.get(f"{API}/call/search/{event}").text)


@contextmanager
def no_room(at_most: int = 0) -> Iterator[None]:
    """No file can be written beyond so many bytes, as if a quota or the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at_most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def read(uploads: Uploads, *messages: dict[str, Any]) -> list[str]:
    waiting = list(messages)

    async def receive() -> Any:
        return waiting.pop(0)

    return finished(Form(uploads, FORM, None).read(receive))


# What goes


def test_folder_stays_below_its_bound_and_the_oldest_go_first(uploads: Uploads) -> None:
    paths = [kept(uploads, 100_000) for _ in range(20)]
    assert used(uploads.folder) <= uploads.most
    assert [path.exists() for path in paths] == [False] * 11 + [True] * 9
    assert len(list(uploads.folder.iterdir())) == 9


def test_upload_that_was_used_since_goes_later(uploads: Uploads) -> None:
    first, second = kept(uploads, 400_000), kept(uploads, 400_000)
    os.utime(second, (1, time.time() - 60))
    assert uploads.use(str(first))
    third = kept(uploads, 400_000)
    assert [path.exists() for path in (first, second, third)] == [True, False, True]
    assert not uploads.use(str(second))


def test_upload_that_another_process_received_is_used_and_missed_too(uploads: Uploads) -> None:
    with closing(Uploads()) as other:
        path = kept(other)
        os.utime(path, (0, 0))
        assert uploads.use(str(path))
        other.sweep()
        assert path.exists(), "it was used just now"
        other.drop(path)
        assert not uploads.use(str(path))


def test_upload_goes_when_it_was_not_used_for_an_hour(uploads: Uploads) -> None:
    old, new = kept(uploads), kept(uploads)
    os.utime(old, (1, time.time() - 3601))
    os.utime(new, (1, time.time() - 3500))
    uploads.sweep()
    assert (old.exists(), new.exists()) == (False, True)


def test_many_empty_files_count_too(uploads: Uploads) -> None:
    for _ in range(200):
        kept(uploads, 0)
    assert len(list(uploads.folder.iterdir())) == 10**6 // 2**13


def test_what_is_being_received_counts_and_is_not_deleted_for_others(uploads: Uploads) -> None:
    before, half = kept(uploads, 100_000), uploads.new("b.png")
    half.write(bytes(950_000))
    assert not before.exists()
    with pytest.raises(RefusedError, match="try again in 10 seconds") as refused:
        kept(uploads, 100_000)
    assert (refused.value.status, half.path.exists()) == (503, True)
    half.delete()
    kept(uploads, 100_000)


def test_only_uploads_are_looked_at(uploads: Uploads, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("x")
    os.utime(other, (1, 1))
    assert uploads.use(str(other))
    assert not uploads.use(f"{uploads.folder}/../other")
    assert other.stat().st_mtime == 1
    other.unlink()


def test_folder_that_a_cleaner_deleted_is_made_again(uploads: Uploads) -> None:
    path = kept(uploads)
    path.unlink()
    path.parent.rmdir()
    uploads.folder.rmdir()
    assert not uploads.use(str(path))
    assert kept(uploads).exists()


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.request", "body": BODY[:-9], "more_body": True}, {"type": "http.disconnect"}],
        [{"type": "http.request", "body": BODY[:-9]}],
        [{"type": "http.request", "body": BODY + b"\r\n--x", "more_body": True}, {"type": "http.disconnect"}],
        [{"type": "http.request", "body": BODY, "more_body": True}],  # and then an error of the server
    ],
)
def test_upload_that_breaks_off_leaves_nothing(uploads: Uploads, messages: list[dict[str, Any]]) -> None:
    with pytest.raises((RefusedError, IndexError)):
        read(uploads, *messages)
    assert not list(uploads.folder.iterdir())
    assert uploads._size == 0


def test_names_of_visitors_stay_inside_the_folder(uploads: Uploads) -> None:
    paths = (b"../../x.png", b"/etc/passwd", b"..", b"", b"a\\..\\b.png")
    for name in (*paths, b"\xff\x00.png", b"x" * 4000, b"\xc3\xa4.png"):
        body = BODY.replace(b"a.png", name) % b"x"
        try:
            [path] = read(uploads, {"type": "http.request", "body": body})
        except RefusedError as refused:
            assert refused.status == 400, name
        else:
            assert Path(path).parent.parent == uploads.folder, name
            assert Path(path).read_bytes() == b"x"


# Over HTTP


def test_hundreds_of_uploads_stay_below_the_bound_and_a_search_for_a_gone_one_says_so(http: TestClient) -> None:
    first = upload(http).json()[0]
    uploads: Uploads = http.uploads  # type: ignore[attr-defined]
    most = 0
    for number in range(30):
        files = [("files", (f"{number}.jpg", jpeg(number))) for _ in range(16)]
        assert http.post(f"{API}/upload", files=files).status_code == 200
        most = max(most, len(list(uploads.folder.iterdir())))
    assert most <= 10**6 // 2**13
    assert used(uploads.folder) <= uploads.most
    said = search(http, first)
    assert "Uploaded pictures are deleted an hour after their last use" in said
    assert "event: complete" in search(http, upload(http).json()[0])


def test_upload_for_which_there_is_never_room_is_too_large(http: TestClient) -> None:
    refused = upload(http, bytes(10**6))
    assert (refused.status_code, "too large" in refused.json()["detail"]) == (413, True)


def test_upload_to_a_full_disk_is_refused_with_a_sentence_and_leaves_nothing(http: TestClient) -> None:
    http.uploads.sweep(-1)  # type: ignore[attr-defined]
    path = upload(http).json()[0]
    before = used(http.uploads.folder)  # type: ignore[attr-defined]
    with no_room():
        refused = [upload(http), upload(http, bytes(300_000))]
        url = "data:image/jpeg;base64,AAAA"
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"arguments": {"image": url}}}
        refused.append(http.post(f"{API}/mcp/", json=call))
    for each in refused:
        assert each.status_code == 507
        assert "has no room for this picture on its disk" in each.json()["detail"]
        assert each.headers["Retry-After"]
    assert used(http.uploads.folder) == before  # type: ignore[attr-defined]
    assert "event: complete" in search(http, path)
    assert "event: complete" in search(http, upload(http).json()[0])


def test_thumbnail_that_cannot_be_written_is_sent_itself(artifact: Path) -> None:
    from retrieval.ui.pieces.thumbnails import ThumbnailFiles

    gallery = Searcher.open(artifact).gallery
    thumbnails = ThumbnailFiles(gallery)
    with no_room(10):
        assert thumbnails.url(0, "x").startswith("data:image/jpeg;base64,")
        assert thumbnails.publish("a.png", bytes(20)).startswith("data:image/png;base64,")
    assert not list(thumbnails._folder.path.iterdir())
    assert Path(thumbnails.url(0, "").removeprefix(f"{API}/file=")).read_bytes() == gallery.thumbnail(0)


FAILING = f"""
import sys
sys.path[:0] = {sys.path!r}
from refusing import refuse
from retrieval.ui.intake.files.folder import Uploads
from retrieval.ui.intake.refusing import RefusedError
uploads = Uploads()
begun = uploads.new("a")
for error in ("ENOSPC", "EDQUOT", "EIO", "EROFS"):
    refuse(error, "write", *(["openat", "mkdir"] if error != "EDQUOT" else []))
    for attempt in (lambda: begun.write(b"x"), lambda: uploads.new("b")):
        try:
            attempt()
        except RefusedError as refused:
            print(error, refused.status, refused.sentence)
begun.delete()
print(uploads._size, list(uploads.folder.iterdir()))
"""


@only_here
def test_every_error_of_a_disk_is_the_same_sentence(tmp_path: Path) -> None:
    done = WARM.run("-c", FAILING, env={**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)})
    *said, left = done.stdout.splitlines()
    assert len(said) == 8, done.stderr
    assert all(" 507 The server has no room for this picture on its disk" in line for line in said)
    assert left == "0 []"
    assert done.stderr.count("an upload failed:") == 1


def test_file_of_an_upload_is_what_was_sent(uploads: Uploads) -> None:
    file = Incoming(uploads, "a")
    for part in (b"ab", b"", b"cd"):
        file.write(part)
    assert file.keep().read_bytes() == b"abcd"
