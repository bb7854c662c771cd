"""The page in a real Chromium, at the width of a desktop and of a phone."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import SIZES, keep_screenshot, upload, visit
from playwright.sync_api import Browser, Page, expect

from retrieval import Encoder, Searcher, build_artifact, open_source
from retrieval.remote import Resolved
from retrieval.ui import create_app, launch
from training.catalogue import Item, draw


def captions(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("#hits .caption-label").all_inner_texts()]


def choose_label(page: Page, label: str) -> None:
    page.locator("#labels input").fill(label)
    page.locator("#labels [role=option]", has_text=re.compile(rf"^\W*{label} ")).first.click()
    page.keyboard.press("Escape")


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_finds_its_like(browser: Browser, server: str, shirt: Path, size: str) -> None:
    with visit(browser, server, size) as page:
        keep_screenshot(page, f"{size}-empty")
        upload(page, shirt)
        assert len(captions(page)) == 24
        assert all(re.fullmatch(r"\w+ · 0\.\d\d|\w+ · 1\.00", text) for text in captions(page))
        assert captions(page)[0].startswith("shirt")
        keep_screenshot(page, f"{size}-hits")

        page.locator("#hits .thumbnail-item").nth(1).click()
        expect(page.locator("#status")).to_contain_text("most like shirt")
        page.wait_for_function("document.querySelector('#status').getBoundingClientRect().top < innerHeight / 2")
        page.wait_for_timeout(300)  # for the page to stand still under the menu that is opened next
        keep_screenshot(page, f"{size}-click")

        choose_label(page, "mug")
        expect(page.locator("#hits .caption-label").first).to_contain_text("mug")
        assert {text.split(" ")[0] for text in captions(page)} == {"mug"}
        keep_screenshot(page, f"{size}-filter")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page is too wide"


def test_thumbnails_are_loaded_and_whole(browser: Browser, server: str, shirt: Path) -> None:
    with visit(browser, server) as page:
        upload(page, shirt)
        first = page.locator("#hits img").first
        expect(first).to_be_visible()
        page.wait_for_function("document.querySelector('#hits img').complete")
        assert first.evaluate("image => image.naturalWidth") > 0
        assert first.evaluate("image => getComputedStyle(image).objectFit") == "contain"
        assert first.get_attribute("src").endswith(".jpg")


def test_how_many_and_the_minimum_score(browser: Browser, server: str, shirt: Path) -> None:
    with visit(browser, server) as page:
        upload(page, shirt)
        scores = [float(text.rsplit(" ", 1)[1]) for text in captions(page)]
        assert scores == sorted(scores, reverse=True)
        set_slider(page, "#k", "6")
        expect(page.locator("#hits .caption-label")).to_have_count(6)
        set_slider(page, "#min-score", "1")
        expect(page.locator("#status")).to_contain_text("No image passes")
        expect(page.locator("#hits .caption-label")).to_have_count(0)


def set_slider(page: Page, selector: str, value: str) -> None:
    number = page.locator(f"{selector} input[type=number]")
    number.fill(value)
    number.press("Tab")


def test_an_example_starts_a_search_and_clear_ends_it(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        page.locator("#examples .thumbnail-item").nth(2).click()
        expect(page.locator("#status")).to_contain_text("most like")
        expect(page.locator("#hits .caption-label")).to_have_count(24)
        page.locator("#query [aria-label='Remove Image']").click()
        expect(page.locator("#status")).to_contain_text("Give a picture")
        expect(page.locator("#hits .caption-label")).to_have_count(20)


def test_looking_around_starts_a_search_too(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        expect(page.locator("#hits .caption-label")).to_have_count(20)
        name = captions(page)[5]
        assert "·" not in name, "there is no score before there is a query"
        page.locator("#hits .thumbnail-item").nth(5).click()
        expect(page.locator("#status")).to_contain_text(f"most like {name}")


def test_a_file_that_is_no_picture_is_answered_in_words(browser: Browser, server: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing of the kind")
    with visit(browser, server) as page:
        page.set_input_files("#query input[type=file]", tmp_path / "broken.png")
        toast = page.locator(".toast-body.error")
        expect(toast).to_contain_text("damaged")
        assert "Traceback" not in toast.inner_text()


def test_a_photo_from_the_camera(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        page.locator("#query [aria-label='Capture from camera']").click()
        page.get_by_text("Click to Access Webcam").click()
        page.wait_for_function("document.querySelector('#query video')?.videoWidth > 0")
        page.locator("#query [aria-label='capture photo']").click()
        expect(page.locator("#status")).to_contain_text("most like your picture")


def test_two_visitors_do_not_see_each_others_answers(browser: Browser, server: str, shirt: Path) -> None:
    with visit(browser, server) as one, visit(browser, server) as other:
        upload(one, shirt)
        first = captions(one)
        expect(other.locator("#status")).to_contain_text("Give a picture")
        other.locator("#examples .thumbnail-item").last.click()
        expect(other.locator("#status")).to_contain_text("most like")
        theirs = captions(other)
        set_slider(one, "#k", "5")
        expect(one.locator("#hits .caption-label")).to_have_count(5)
        assert captions(one) == first[:5] != theirs[:5]
        assert captions(other) == theirs


def test_a_label_is_shown_as_it_stands(browser: Browser, tmp_path: Path, encoder: Encoder) -> None:
    """Neither Markdown nor HTML: else a label could have every visitor's browser call another host."""
    label = "![x](http://stranger.invalid/p.png) <img src=http://stranger.invalid/q.png> *b*"
    rows = []
    for seed in range(3):
        buffer = io.BytesIO()
        draw(Item("mug", "red", "plain", "front", seed), 48).save(buffer, "PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": label})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pictures.parquet")
    build_artifact(open_source(str(tmp_path / "pictures.parquet")), tmp_path / "artifact", encoder)
    app = create_app(Searcher.open(tmp_path / "artifact"), Resolved(tmp_path, "<b>labels</b>"))
    try:
        _, address, _ = launch(app, prevent_thread_lock=True, quiet=True)
        with visit(browser, address.rstrip("/"), examples=3) as page:
            page.locator("#examples .thumbnail-item").first.click()
            expect(page.locator("#status")).to_contain_text(f"most like {label}")
            expect(page.locator(".artifact")).to_contain_text("<b>labels</b>")
    finally:
        app.close()
