"""The search in a real Chromium, at the width of a desktop and of a phone."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import (
    ROWS,
    SIZES,
    choose,
    close_list,
    expect_rows,
    keep_screenshot,
    names,
    open_settings,
    open_tab,
    rows,
    rows_of,
    scores,
    served,
    set_number,
    upload,
    visit,
)
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from retrieval import Encoder, Searcher, build_artifact, open_artifact, open_source
from retrieval.images.door.formats import HEIC
from retrieval.search import Part
from training.starter.catalogue import Item, draw


@pytest.fixture(scope="module")
def searcher(starter: Path) -> Searcher:
    return Searcher.open(starter)


def search_for(page: Page, place: int) -> None:
    """Click a result, or an image shown before the first search."""
    name = page.locator("#hits .name").nth(place).inner_text()
    before = rows(page)
    page.locator("#hits .card > .pic").nth(place).click()
    expect(page.locator("#status")).to_contain_text(f"results for {name}")
    page.wait_for_function(f"before => JSON.stringify({ROWS}) !== JSON.stringify(before)", arg=before)


def drag(page: Page, box: tuple[float, float, float, float]) -> None:
    """Select a part of the only picture of the query, in shares of its width and height."""
    page.locator("#parts .frame").scroll_into_view_if_needed()
    frame = page.locator("#parts .frame").bounding_box()
    assert frame
    left, top, right, bottom = box
    page.mouse.move(frame["x"] + left * frame["width"], frame["y"] + top * frame["height"])
    page.mouse.down()
    page.mouse.move(frame["x"] + right * frame["width"], frame["y"] + bottom * frame["height"], steps=4)
    page.mouse.up()


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_finds_similar_ones_and_filters_narrow_them_down(
    browser: Browser, server: str, shirt: Path, size: str
) -> None:
    with visit(browser, server, size) as page:
        expect(page.locator("#status")).to_contain_text("Drop in a picture")
        keep_screenshot(page, f"{size}-empty")
        upload(page, shirt)
        assert len(names(page)) == 24
        assert names(page)[0] == "shirt"
        assert scores(page) == sorted(scores(page), reverse=True)
        expect(page.locator("#status")).to_contain_text("Confident match")
        keep_screenshot(page, f"{size}-hits")

        search_for(page, 1)
        page.wait_for_function("document.querySelector('#status').getBoundingClientRect().top < innerHeight / 2")
        keep_screenshot(page, f"{size}-click")

        choose(page, "label", "mug")
        expect(page.locator("#hits .hit .name").first).to_have_text("mug")
        assert set(names(page)) == {"mug"}
        keep_screenshot(page, f"{size}-filter")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is too wide"


def test_page_shows_the_results_of_the_searcher(browser: Browser, server: str, searcher: Searcher, shirt: Path) -> None:
    with visit(browser, server) as page:
        upload(page, shirt)
        expected = searcher.find(searcher.query([Part(shirt)]), 24, fold=True)
        expect_rows(page, [hit.row for hit in expected])
        shown = page.locator("#hits .hit .chance").all_inner_texts()
        assert shown == [f"{min(round(100 * (hit.chance or 0)), 99)}%" for hit in expected]


def test_thumbnails_are_loaded_and_shown_uncropped(browser: Browser, server: str, shirt: Path) -> None:
    with visit(browser, server) as page:
        upload(page, shirt)
        first = page.locator("#hits img").first
        page.wait_for_function("document.querySelector('#hits img').complete")
        assert first.evaluate("image => image.naturalWidth") > 0
        assert first.evaluate("image => getComputedStyle(image).objectFit") == "contain"
        assert first.get_attribute("alt") == names(page)[0]


def test_filter_counts_respect_the_other_filters(browser: Browser, server: str, searcher: Searcher) -> None:
    with visit(browser, server) as page:
        choose(page, "label", "mug")
        expect(page.locator("#hits .name").first).to_have_text("mug")
        page.locator("#where-colour input").click()
        counts = page.locator("#where-colour [role=option]").all_inner_texts()
        facets = searcher.gallery.facets({"label": "mug"})["colour"]
        assert [re.sub(r"^\W+", "", text) for text in counts] == [f"{value} ({n})" for value, n in facets.items()]
        close_list(page, "colour")
        choose(page, "colour", "red")
        search_for(page, 0)
        found = searcher.gallery.take(rows(page))
        assert {(row.label, row.attributes["colour"]) for row in found} == {("mug", "red")}
        assert len(found) == min(24, facets["red"] - 1), "all images with a rare value are found"


def test_results_per_page_and_minimum_similarity_are_applied(browser: Browser, server: str, shirt: Path) -> None:
    with visit(browser, server) as page:
        upload(page, shirt)
        open_settings(page)
        set_number(page, "#k", "6")
        expect(page.locator("#hits .hit")).to_have_count(6)
        set_number(page, "#min-score", "1")
        expect(page.locator("#status")).to_contain_text("No image matches")
        expect(page.locator("#hits .hit")).to_have_count(0)


def test_show_more_shows_more_results(browser: Browser, server: str, searcher: Searcher, shirt: Path) -> None:
    with visit(browser, server) as page:
        expect(page.locator("#hits .card")).to_have_count(24)
        page.locator("#hits .more").click()
        expect(page.locator("#hits .card")).to_have_count(48)
        upload(page, shirt)
        first = rows(page)
        page.locator("#hits .more").click()
        expect(page.locator("#hits .hit")).to_have_count(48)
        assert rows(page)[:24] == first
        expect_rows(page, rows_of(searcher, Part(shirt), k=48))


def test_undo_and_history_return_to_earlier_searches(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        seen = []
        for place in (3, 1, 2):
            search_for(page, place)
            seen.append(rows(page))
        trail = page.locator("#tools .trail button")
        expect(trail).to_have_count(2)
        choose(page, "colour", "red")
        expect(trail).to_have_count(2)
        page.locator("[data-do=undo]").click()
        expect(page.locator("#where-colour .token")).to_have_count(0)
        expect_rows(page, seen[2])
        page.locator("[data-do=undo]").click()
        expect(trail).to_have_count(1)
        expect_rows(page, seen[1])
        trail.first.click()
        expect(trail).to_have_count(0)
        expect_rows(page, seen[0])
        page.locator("[data-do=clear]").click()
        expect(page.locator("#status")).to_contain_text("Drop in a picture")
        expect(page.locator("#parts .part")).to_have_count(0)


def test_the_browsers_back_button_goes_through_the_searches(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        seen = []
        for place in (3, 1, 2, 4):
            search_for(page, place)
            seen.append(rows(page))
        page.locator("[data-do=undo]").click()
        expect_rows(page, seen[2])
        page.go_back()
        expect_rows(page, seen[1])
        expect(page.locator("#tools .trail button")).to_have_count(1)
        page.locator("#tools .trail button").click()
        expect_rows(page, seen[0])
        page.go_back()
        expect(page.locator("#status")).to_contain_text("Drop in a picture")
        assert "id=" not in page.url
        for hits in seen[:2]:
            page.go_forward()
            expect_rows(page, hits)
        page.go_back()
        expect_rows(page, seen[0])
        page.reload()  # which restores the search by its link
        expect_rows(page, seen[0])
        page.go_forward()
        expect_rows(page, seen[1])


def test_likes_and_dislikes_refine_a_search(browser: Browser, server: str, searcher: Searcher) -> None:
    with visit(browser, server) as page:
        search_for(page, 3)
        page.wait_for_function("location.search.includes('id=')")
        first = searcher.gallery.row_of(parse_qs(urlsplit(page.url).query)["id"][0])
        liked, unliked = rows(page)[2], rows(page)[5]
        page.locator("#hits [data-do=like]").nth(2).click()
        expect(page.locator("#parts .part")).to_have_count(2)
        page.locator(f"#hits [data-do=unlike][data-row='{unliked}']").click()
        expect(page.locator("#parts .part.unlike")).to_have_count(1)
        parts = [Part(row=first), Part(row=liked), Part(row=unliked, weight=-1.0)]
        expect_rows(page, rows_of(searcher, *parts))
        expect(page.locator("#status")).to_contain_text("2 liked and 1 disliked examples")
        expect(page.locator("#hits .chance")).to_have_count(0)
        keep_screenshot(page, "several")
        page.locator("#parts [data-do=turn]").nth(2).click()
        expect(page.locator("#parts .part.unlike")).to_have_count(0)
        page.locator("#parts [data-do=away]").nth(1).click()
        expect(page.locator("#parts .part")).to_have_count(2)
        parts = [Part(row=first), Part(row=unliked)]
        expect_rows(page, rows_of(searcher, *parts))


def test_several_uploads_are_combined(browser: Browser, server: str, searcher: Searcher, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, article in zip(paths, ("mug", "umbrella"), strict=True):
        draw(Item(article, "green", "plain", "front", 77), 128).save(path)
    with visit(browser, server) as page:
        with page.expect_file_chooser() as waiting:
            page.locator("#add").click()
        waiting.value.set_files(paths)
        expect(page.locator("#parts .part")).to_have_count(2)
        expect(page.locator("#status")).to_contain_text("2 liked examples")
        expect_rows(page, rows_of(searcher, *(Part(path) for path in paths)))


@pytest.mark.parametrize("size", SIZES)
def test_selected_part_of_a_picture_is_searched(
    browser: Browser, server: str, searcher: Searcher, tmp_path: Path, size: str
) -> None:
    both = Image.new("RGB", (400, 200), "white")
    both.paste(draw(Item("mug", "green", "plain", "front", 77), 200), (0, 0))
    both.paste(draw(Item("umbrella", "red", "plain", "front", 78), 200), (200, 0))
    both.save(tmp_path / "both.png")
    with visit(browser, server, size) as page:
        upload(page, tmp_path / "both.png")
        drag(page, (0.52, 0.02, 0.98, 0.98))
        expect(page.locator("#status")).to_contain_text("a part of your picture")
        assert names(page)[0] == "umbrella"
        keep_screenshot(page, f"{size}-region")
        drag(page, (0.02, 0.02, 0.48, 0.98))
        expect(page.locator("#hits .hit .name").first).to_have_text("mug")
        page.locator("#parts [data-do=whole]").click()
        expect(page.locator("#parts .region")).to_have_count(0)
        expect_rows(page, rows_of(searcher, Part(tmp_path / "both.png")))
        # The same with the keyboard alone.
        page.locator("#parts .frame").focus()
        for key in ["ArrowRight"] * 5 + ["Shift+ArrowDown"] * 5 + ["Enter"]:
            page.keyboard.press(key)
        expect(page.locator("#status")).to_contain_text("a part of your picture")
        part = Part(tmp_path / "both.png", region=(0.45, 0.25, 0.95, 1.0))
        expect_rows(page, rows_of(searcher, part))


def test_link_restores_a_search(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        choose(page, "colour", "red")
        search_for(page, 2)
        page.locator("#hits [data-do=unlike]").nth(9).click()
        expect(page.locator("#parts .part")).to_have_count(2)
        page.wait_for_function("location.search.includes('unlike=')")
        link, found = urlsplit(page.url), rows(page)
        assert set(parse_qs(link.query)) == {"id", "unlike", "where"}
    with visit(browser, server, query=f"?{link.query}&k=7") as other:
        expect(other.locator("#hits .hit")).to_have_count(7)
        expect_rows(other, found[:7])
        expect(other.locator("#parts .part.unlike")).to_have_count(1)
        expect(other.locator("#where-colour .token")).to_contain_text("red")


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "plain HTTP"])
def test_a_link_is_copied(browser: Browser, server: str, clipboard: bool) -> None:
    with visit(browser, server, query="?__theme=light") as page:
        if not clipboard:  # as when the page is opened from another machine without TLS
            page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        search_for(page, 2)
        page.locator("#tools [data-copy]").click()
        expect(page.locator("#tools [data-copy]")).to_have_text("Copied")
        page.locator("#where-label input").focus()
        page.keyboard.press("ControlOrMeta+v")
        link = urlsplit(page.locator("#where-label input").input_value())
        assert f"{link.scheme}://{link.netloc}" == server
        assert parse_qs(link.query) == {"id": parse_qs(urlsplit(page.url).query)["id"]}


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_can_be_dropped_anywhere(
    browser: Browser, server: str, searcher: Searcher, shirt: Path, size: str
) -> None:
    data = base64.b64encode(shirt.read_bytes()).decode()
    with visit(browser, server, size) as page:
        # Wait until the page listens: then it cancels a dragover.
        page.wait_for_function("!document.dispatchEvent(new DragEvent('dragover', {cancelable: true}))")
        page.evaluate(
            """data => {
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                const dropped = new DataTransfer();
                dropped.items.add(new File([bytes], "mine.png", {type: "image/png"}));
                document.querySelector("#hits").dispatchEvent(
                    new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: dropped}));
            }""",
            data,
        )
        expect(page.locator("#status")).to_contain_text("results for your picture")
        expect_rows(page, rows_of(searcher, Part(shirt)))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?id=nothing", "no image with the id 'nothing'"),
        ("?where={", "filter in this link cannot be read"),
        ("?where={%22lable%22:%22mug%22}", "did you mean 'label'"),
        ("?id=<img src=http://stranger.invalid/x.png>", "<img src=http://stranger.invalid/x.png>"),
        ("?k=0", "k, the number of results"),
    ],
)
def test_an_invalid_link_shows_the_reason(browser: Browser, server: str, query: str, words: str) -> None:
    with visit(browser, server, query=query) as page:
        expect(page.locator(".toast-body")).to_contain_text(words)
        expect(page.locator("#hits .card")).to_have_count(24)


def test_results_can_be_downloaded_as_csv_json_and_zip(
    browser: Browser, server: str, searcher: Searcher, shirt: Path
) -> None:
    with visit(browser, server) as page:
        upload(page, shirt)
        files = {}
        for kind in ("csv", "json", "zip"):
            with page.expect_download() as waiting:
                page.locator(f"[data-save={kind}]").click()
            assert waiting.value.suggested_filename == f"hits.{kind}"
            files[kind] = Path(waiting.value.path()).read_bytes()
        expected = searcher.find(searcher.query([Part(shirt)]), 24, fold=True)
        lines = list(csv.DictReader(io.StringIO(files["csv"].decode())))
        assert [line["id"] for line in lines] == [hit.id for hit in expected]
        assert [line["colour"] for line in lines] == [hit.attributes["colour"] for hit in expected]
        records = json.loads(files["json"])
        assert [record["score"] for record in records] == pytest.approx([hit.score for hit in expected], abs=1e-6)
        assert [record["chance"] for record in records] == pytest.approx([hit.chance for hit in expected], abs=1e-6)
        with zipfile.ZipFile(io.BytesIO(files["zip"])) as archive:
            pictures = [name for name in archive.namelist() if name.endswith(".jpg")]
            assert [archive.read(name) for name in pictures] == [
                searcher.gallery.thumbnail(hit.row) for hit in expected
            ]


def test_results_are_dimmed_without_a_confident_match(browser: Browser, server: str, tmp_path: Path) -> None:
    Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / "noise.png")
    with visit(browser, server) as page:
        upload(page, tmp_path / "noise.png")
        expect(page.locator("#status")).to_contain_text("No confident match")
        expect(page.locator("#hits .grid.unsure")).to_have_count(1)
        assert page.locator("#hits .pic img").first.evaluate("image => +getComputedStyle(image).opacity") < 1
        keep_screenshot(page, "desktop-nothing")


def test_a_file_that_is_not_a_picture_is_refused_with_the_reason(browser: Browser, server: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing of the kind")
    with visit(browser, server) as page:
        page.set_input_files("#query input[type=file]", tmp_path / "broken.png")
        toast = page.locator(".toast-body")
        expect(toast).to_contain_text("damaged")
        assert "Traceback" not in toast.inner_text()
        expect(page.locator("#status")).to_contain_text("Drop in a picture")
        expect(page.locator("#query img")).to_have_count(0)


def drop_from_disk(page: Page, selector: str, path: Path) -> None:
    """Drop a file or folder as from the desktop; a page itself cannot make the latter."""
    box = page.locator(selector).bounding_box()
    assert box is not None
    wire = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        wire.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    wire.detach()


def test_every_way_to_give_a_file_says_what_is_in_it(browser: Browser, server: str, tmp_path: Path) -> None:
    files = {
        "a.pdf": (b"%PDF-1.7 " + bytes(40), "a.pdf is not a readable picture (found: PDF); save the page as a JPEG"),
        "b.jpg": (b"some words, and no picture", "b.jpg is not a readable picture (found: text)"),
        "c.png": (b"", "c.png is empty (0 bytes)"),
        "d.cr2": (
            struct.pack("<2sHI4sI", b"II", 42, 16, b"CR\2\0", 0) + bytes(90),
            "d.cr2 is a RAW photograph (Canon CR2)",
        ),
        "e.raf": (b"FUJIFILMCCD-RAW 0201" + bytes(40), "(found: RAW photograph, Fujifilm RAF); export it as a JPEG"),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    with visit(browser, server) as page:
        expect(page.locator("#query input[type=file]")).to_be_attached()
        for number, (name, (_, words)) in enumerate(files.items()):
            if number % 3 == 0:
                drop_from_disk(page, "#query", tmp_path / name)
            elif number % 3 == 1:
                with page.expect_file_chooser() as waiting:
                    page.locator("#add").click()
                assert "image/*" in (waiting.value.element.get_attribute("accept") or "")
                assert ".heic" in (waiting.value.element.get_attribute("accept") or "")
                waiting.value.set_files(tmp_path / name)
            else:
                page.set_input_files("#query input[type=file]", tmp_path / name)
            toast = page.locator(".toast-body").filter(has_text=words)
            expect(toast).to_have_count(1)
            expect(page.locator(".toast-body").filter(has_text="Only")).to_have_count(0)
            if name == "a.pdf":
                keep_screenshot(page, "desktop-not-a-picture")
        said: list[str] = []
        page.once("dialog", lambda dialog: (said.append(dialog.message), dialog.accept()))
        (tmp_path / "holiday").mkdir()
        with page.expect_event("dialog"):
            drop_from_disk(page, "#status", tmp_path / "holiday")
        assert said == ["holiday is a folder. Drop the pictures in it, not the folder."]


@pytest.mark.skipif(not HEIC, reason="pillow-heif is not installed")
def test_a_picture_of_a_phone_is_searched(browser: Browser, server: str, searcher: Searcher, tmp_path: Path) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    draw(Item("mug", "green", "plain", "front", 77), 128).save(path, "HEIF")
    with visit(browser, server) as page:
        drop_from_disk(page, "#query", path)
        expect(page.locator("#status")).to_contain_text("results for your picture")
        expect_rows(page, rows_of(searcher, Part(path)))
        shown = page.locator("#parts img").first
        page.wait_for_function("image => image.naturalWidth > 0", arg=shown.element_handle())
        keep_screenshot(page, "desktop-heic")


def test_a_picture_can_be_pasted(browser: Browser, server: str, shirt: Path) -> None:
    with visit(browser, server) as page:
        page.evaluate(
            """(encoded) => {
                const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
                const clipboardData = new DataTransfer();
                clipboardData.items.add(new File([bytes], "pasted.png", {type: "image/png"}));
                document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
            }""",
            base64.b64encode(shirt.read_bytes()).decode(),
        )
        expect(page.locator("#status")).to_contain_text("results for your picture")
        assert names(page)[0] == "shirt"


def test_status_says_when_a_query_has_only_dislikes(browser: Browser, server: str, searcher: Searcher) -> None:
    with visit(browser, server, query=f"?unlike={searcher.gallery.ids[0]}") as page:
        expect(page.locator("#status")).to_contain_text("results for images unlike")
        expect(page.locator("#hits .chance")).to_have_count(0)


def test_a_photo_can_be_taken_with_the_camera(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        page.locator("#query [aria-label='Capture from camera']").click()
        page.get_by_text("Click to Access Webcam").click()
        page.wait_for_function("document.querySelector('#query video')?.videoWidth > 0")
        page.locator("#query [aria-label='capture photo']").click()
        expect(page.locator("#status")).to_contain_text("results for your picture")


def test_next_visitor_in_the_same_tab_is_a_new_one(browser: Browser, server: str) -> None:
    """What the other tests of the page rely on."""
    kept = "[localStorage.mine, sessionStorage.mine, document.cookie, window.mine, name, history.length]"
    with visit(browser, server) as page:
        new = page.evaluate(kept)
        page.evaluate("localStorage.mine = sessionStorage.mine = window.mine = name = document.cookie = 'mine=1'")
        search_for(page, 1)
        assert all(one != other for one, other in zip(page.evaluate(kept), new, strict=True))
    with visit(browser, server) as page:
        assert page.evaluate(kept) == new


def test_two_visitors_share_nothing(browser: Browser, server: str, searcher: Searcher, shirt: Path) -> None:
    with visit(browser, server) as one, visit(browser, server) as other:
        upload(one, shirt)
        choose(one, "colour", "red")
        expect_rows(
            one,
            [hit.row for hit in searcher.find(searcher.query([Part(shirt)]), 24, where={"colour": "red"}, fold=True)],
        )
        first = rows(one)
        expect(other.locator("#status")).to_contain_text("Drop in a picture")
        expect(other.locator("#where-colour .token")).to_have_count(0)
        search_for(other, 20)
        theirs = rows(other)
        search_for(other, 1)
        one.locator("#hits .more").click()
        expect(one.locator("#hits .hit")).to_have_count(48)
        assert rows(one)[:24] == first
        assert not set(first) & set(theirs)
        expect(one.locator("#tools .trail")).to_have_count(0)
        expect(other.locator("#tools .trail button")).to_have_count(1)
        expect(one.locator("#parts .part")).to_have_count(1)
        expect(one.locator("#parts img")).to_have_attribute("alt", "your picture")


def test_search_works_by_keyboard_alone(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        page.locator("#hits .card > .pic").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text("results for")
        page.locator("#hits .card > .pic").nth(1).focus()
        for _ in range(3):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.dataset.do") == "why"
        page.keyboard.press("Enter")
        expect(page.locator("#why dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#why dialog")).to_have_count(0)


def test_label_is_shown_as_plain_text(browser: Browser, tmp_path: Path, encoder: Encoder) -> None:
    """Not as Markdown, HTML or a template: otherwise a label could make every visitor's browser call another host."""
    label = "![x](http://stranger.invalid/p.png) <img src=http://stranger.invalid/q.png> *b* ${alert(1)} {{value}} `"
    pictures = []
    for seed in range(3):
        buffer = io.BytesIO()
        draw(Item("mug", "red", "plain", "front", seed // 2), 96).save(buffer, "JPEG" if seed == 1 else "PNG")
        pictures.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": label})
    pq.write_table(pa.Table.from_pylist(pictures), tmp_path / "pictures.parquet")
    build_artifact(open_source(str(tmp_path / "pictures.parquet")), tmp_path / "artifact", encoder)
    card = f"# Card\n\n{label}\n\n<script>window.ran = 1</script> [a](javascript:window.ran=1)"
    named = replace(open_artifact(tmp_path / "artifact"), name="<b>labels</b>", card=card)
    with served(Searcher.of(named)) as server, visit(browser, server, examples=3) as page:
        page.locator("#examples .pic").first.click()
        expect(page.locator("#status")).to_contain_text(f"results for {label}")
        expect(page.locator("#hits .hit .name").first).to_have_text(label)
        expect(page.locator("#parts img")).to_have_attribute("alt", label)
        expect(page.locator(".artifact")).to_contain_text("<b>labels</b>")
        page.locator("[data-do=why]").first.click()
        expect(page.locator("#why dialog")).to_contain_text(label)
        page.keyboard.press("Escape")
        for tab, selector in (("Duplicates", "#groups"), ("Map", "#map"), ("About", "#about")):
            open_tab(page, tab)
            if tab == "Duplicates":
                page.get_by_role("button", name="Find near-duplicates").click()
            expect(page.locator(selector)).to_contain_text("${alert(1)} {{value}}")
        open_tab(page, "Evaluation")
        expect(page.locator("#evaluation")).to_be_visible()
        # That no tab has asked another host for anything is what `visit` checks.
        assert page.evaluate("window.ran === undefined")
        expect(page.locator("img[src*=stranger], [onerror], a[href^=javascript]")).to_have_count(0)
