"""The app follows its artifact: what running searches, open pages and new ones get when it changes."""

from __future__ import annotations

import gc
import json
import re
import shutil
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from browser import served
from conftest import noise
from gradio_client import Client
from visitor import Visitor

from retrieval import Searcher, add_images, open_source, remove_images, sync_artifact
from retrieval.artifact.layout import LAYOUT
from retrieval.ui.reload import Reloader, reloading
from retrieval.ui.serving import Live
from retrieval.ui.visit import Asked, Part, Visit


@pytest.fixture
def live(copied_artifact: Path) -> Live:
    return Live(Searcher.open(copied_artifact))


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """A folder with three new images of a new class."""
    for seed in (901, 902, 903):
        noise(tmp_path / "more" / "novel" / f"{seed}.png", seed)
    return tmp_path / "more"


def settle(reloader: Reloader) -> bool:
    """Look as often as a change needs to be seen as finished; whether a new version is served."""
    return [reloader.look_at_folder() for _ in range(3)].count(True) == 1


def shift_rows(folder: Path, more: Path) -> list[str]:
    """Remove the first two images and add three: no row keeps its number. Returns the ids before."""
    ids = Searcher.open(folder).gallery.ids
    remove_images(folder, ids[:2])
    add_images(folder, open_source(str(more)))
    return ids


def test_a_new_version_is_served_once_and_the_earlier_one_is_freed(
    live: Live, copied_artifact: Path, more: Path
) -> None:
    reloader = Reloader(live, copied_artifact)
    assert not settle(reloader), "nothing has changed"
    before, size = live.now.revision, len(live.now.searcher.gallery)
    old = [weakref.ref(each) for each in (live.now, live.now.searcher, live.now.searcher.store, live.now.artifact)]
    live.now.find_groups(0.9)
    add_images(copied_artifact, open_source(str(more)))
    assert settle(reloader)
    assert live.now.revision != before
    assert len(live.now.searcher.gallery) == size + 3
    assert [hit.label for hit in live.now.searcher.search(more / "novel" / "901.png", k=1)] == ["novel"]
    assert not settle(reloader)
    gc.collect()
    assert [each() for each in old] == [None] * len(old)


@pytest.mark.parametrize("name", [LAYOUT.index, LAYOUT.manifest, LAYOUT.gallery])
def test_a_broken_version_is_reported_once_and_the_earlier_one_goes_on(
    live: Live, copied_artifact: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reloader, now = Reloader(live, copied_artifact), live.now
    manifest = copied_artifact / LAYOUT.manifest
    whole = {each: (copied_artifact / each).read_bytes() for each in (name, LAYOUT.manifest)}
    settle(reloader)
    manifest.write_bytes(
        re.sub(rb'"manifest_sha256": "\w{64}"', b'"manifest_sha256": "' + b"1" * 64 + b'"', whole[LAYOUT.manifest])
    )
    if name != LAYOUT.manifest:
        (copied_artifact / name).write_bytes(whole[name][:-10])
    assert not settle(reloader)
    assert not settle(reloader)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert "version before is served" in said[0]
    assert live.now is now
    assert live.now.searcher.search_by_id(now.searcher.gallery.ids[0], k=3)
    for each, content in whole.items():
        (copied_artifact / each).write_bytes(content)
    assert not settle(reloader), "it is the same again"
    assert live.now is now


def test_files_that_are_still_being_copied_are_not_opened(
    live: Live, copied_artifact: Path, more: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = Path(shutil.copytree(copied_artifact, tmp_path / "new"))
    add_images(new, open_source(str(more)))
    reloader, now = Reloader(live, copied_artifact), live.now
    settle(reloader)
    for path in sorted(path for path in new.rglob("*") if path.is_file()):
        target = copied_artifact / path.relative_to(new)
        content = path.read_bytes()
        for part in (content[: len(content) // 2], content):
            # A memory-mapped file must not shrink, so a copy that replaces it is a new file.
            target.unlink(missing_ok=True)
            target.write_bytes(part)
            assert not reloader.look_at_folder()
            assert live.now is now
    assert settle(reloader)
    assert "novel" in live.now.searcher.gallery.labels
    assert len(capsys.readouterr().err.splitlines()) == 1, "only that it was updated"


def test_a_folder_that_vanishes_leaves_the_app_serving(live: Live, copied_artifact: Path) -> None:
    reloader, now = Reloader(live, copied_artifact), live.now
    settle(reloader)
    copied_artifact.rename(copied_artifact.with_name("elsewhere"))
    assert not settle(reloader)
    assert live.now is now
    copied_artifact.with_name("elsewhere").rename(copied_artifact)
    assert not settle(reloader)


def test_rows_of_an_open_page_mean_the_same_images_afterwards(live: Live, copied_artifact: Path, more: Path) -> None:
    of = live.now.revision
    urls = {row: live.now.thumbnails.url(row, "") for row in range(6)}
    thumbnails = {row: live.now.searcher.gallery.thumbnail(row) for row in range(6)}
    labels = {live.now.searcher.gallery.labels[0] or ""}
    ids = shift_rows(copied_artifact, more)
    live.replace(Searcher.open(copied_artifact))
    now = live.now
    for row in range(2, len(ids)):
        assert now.searcher.gallery.ids[now.row(of, row)] == ids[row]
    for row in (0, 1):
        with pytest.raises(Exception, match="no longer in the collection"):
            now.row(of, row)
    for unknown, row in (("0" * 64, 3), (of, len(ids)), ("", 1)):
        with pytest.raises(Exception, match="Reload the page"):
            now.row(unknown, row)
    for row, url in urls.items():
        file = Path(url.removeprefix("/gradio_api/file="))
        assert file.read_bytes() == thumbnails[row], "a picture that a page still shows stays what it was"
        if row > 1:
            assert now.thumbnails.url(now.row(of, row), "") == url
    steps = Visit(
        Asked((Part(row=0), Part(row=5)), (("label", tuple(labels)), ("lost", ("red",)))),
        before=(Asked((Part(row=1),)),),
    )
    carried = now.carried(steps, of)
    assert [now.searcher.gallery.ids[part.row or 0] for part in carried.asked.parts] == [ids[5]]
    assert carried.asked.where == (("label", tuple(labels)),)
    assert carried.before == (Asked(),)
    some = Visit(Asked(where=(("label", (*labels, "lost")),)))
    assert now.carried(some, of).asked.where == (("label", tuple(labels)),), "a limit keeps the values that are left"
    assert now.carried(steps, now.revision) is steps
    assert now.carried(steps, "0" * 64).asked.parts == ()


def test_a_page_outlives_many_updates_in_a_row(live: Live, copied_artifact: Path) -> None:
    of, searcher = live.now.revision, Searcher.open(copied_artifact)
    assert searcher.artifact is not None
    for number in range(10):
        searcher.artifact.manifest["manifest_sha256"] = f"{number:064}"  # what makes it another version
        live.replace(searcher)
    assert live.now.row(of, 3) == 3
    assert live.now.row(f"{4:064}", 3) == 3


@pytest.fixture
def app(live: Live) -> Iterator[str]:
    with served(live) as address:
        yield address


def text_of(answer: str) -> str:
    return json.dumps([json.loads(line[5:]) for line in answer.splitlines() if line.startswith("data:")])


def test_open_pages_and_new_ones_after_an_update(live: Live, app: str, copied_artifact: Path, more: Path) -> None:
    open_page = Visitor(app)
    act, of = open_page.event("act"), live.now.revision
    first = open_page.post(act, do="search", row=5, of=of)
    assert of in first
    ids = shift_rows(copied_artifact, more)
    live.replace(Searcher.open(copied_artifact))
    now = live.now
    gone = open_page.post(act, do="like", row=0, of=of)
    assert "no longer in the collection" in gone
    row = now.row(of, 7)
    liked = open_page.post(act, do="like", row=7, of=of)
    assert now.revision in liked
    assert of not in liked
    found = {ids[5], ids[7]}
    link = re.search(r"\?id=(\w+)&amp;id=(\w+)", liked.encode().decode("unicode_escape"))
    assert link is not None
    assert set(link.groups()) == found, "the link names the images that were searched for"
    assert f'data-row=\\\\"{row}\\\\"' not in liked
    assert "success" in open_page.post(act, do="why", row=9, of=of)
    # A page that is opened now
    config = httpx.get(f"{app}/config").text
    assert now.revision in config
    assert of not in config
    assert f"{len(now.searcher.gallery):,} images" in config.replace("</b>", "").replace("\\u003c/b\\u003e", "")
    new_page = Visitor(app)
    assert now.revision in new_page.post(act, do="search", row=len(now.searcher.gallery) - 1, of=now.revision)


def test_a_filter_whose_value_is_gone_is_said_and_leaves_the_page_usable(
    live: Live, app: str, copied_artifact: Path, more: Path
) -> None:
    label, before = live.now.searcher.gallery.labels[0], len(live.now.searcher.gallery)
    add_images(copied_artifact, open_source(str(more)))
    live.replace(Searcher.open(copied_artifact))
    open_page = Visitor(app)
    act = open_page.event("act")
    open_page.post(act, {"where-label": ["novel"]}, do="filter")
    remove_images(copied_artifact, live.now.searcher.gallery.ids[before:])
    live.replace(Searcher.open(copied_artifact))
    answer = open_page.post(act, {"where-label": ["novel", label]}, do="filter")
    assert "Parts of your search that it no longer has were removed" in answer
    assert live.now.revision in answer, "the page is that of the new version"
    assert f'"value": ["{label}"]' in text_of(answer), "the list shows what it is limited to"
    again = open_page.post(act, {"where-label": [label]}, do="filter")
    assert "log" not in again, "said once"


def test_a_new_page_offers_the_columns_of_today(live: Live, app: str, copied_artifact: Path, more: Path) -> None:
    def controls() -> dict[str, dict[str, Any]]:
        every = [one["props"] for one in httpx.get(f"{app}/config").json()["components"]]
        names = {f"where-{column}" for column in columns} | {"conditions", "group"}
        return {one["elem_id"]: one for one in every if one.get("elem_id") in names}

    columns = live.now.searcher.gallery.filters
    assert all(controls()[f"where-{column}"]["visible"] for column in columns)
    (more / "metadata.csv").write_text("file_name,maker\nnovel/901.png,A\nnovel/902.png,A\nnovel/903.png,B\n")
    sync_artifact(copied_artifact, open_source(str(more)))
    live.replace(Searcher.open(copied_artifact))
    now = controls()
    assert not any(now[f"where-{column}"]["visible"] for column in columns), "lists of columns that are gone"
    assert "maker" in now["conditions"]["info"]
    assert now["group"]["choices"][1:] == [["Maker", "maker"]]


def test_no_search_fails_and_new_rows_are_found_while_the_artifact_is_synced(
    live: Live, app: str, copied_artifact: Path, more: Path
) -> None:
    """Programs search all the time; each answer is that of the gallery before or of the one after."""
    client = Client(app, verbose=False)
    kept = live.now.searcher.gallery.ids[10]
    sizes = {len(live.now.searcher.gallery)}
    ready, new = Event(), next(iter(open_source(str(more)).rows()))

    def ask(number: int) -> list[tuple[int, set[str]]]:
        client, answers = Client(app, verbose=False), []  # one each: a stream that two threads share can end early
        for _ in range(400):
            hits = client.predict(kept, k=1000, api_name="/search_by_id")["hits"]
            answers.append((len(hits) + 1, {hit["label"] for hit in hits}))
            if number == 0:
                ready.set()
            if "novel" in answers[-1][1]:
                return answers
        raise AssertionError("the new images are never found")

    with reloading(live, copied_artifact), ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, number) for number in range(2)]
        ready.wait(30)
        before = client.predict(api_name="/info")["revision"]
        add_images(copied_artifact, open_source(str(more)))
        answers = [answer for each in asked for answer in each.result()]
    sizes.add(len(live.now.searcher.gallery))
    assert {count for count, _ in answers} <= sizes
    assert client.predict(api_name="/info")["revision"] != before
    assert client.predict(kept, where={"label": "novel"}, api_name="/search_by_id")["hits"]
    assert new.label == "novel"
