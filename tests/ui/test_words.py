"""Search by text: an artifact with a text model, served and searched in a real Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import expect_rows, keep_screenshot, rows_of, served, visit
from playwright.sync_api import Browser, expect
from text_models import write_clip

from retrieval import Encoder, Searcher, TextEncoder, build_artifact, open_source
from retrieval.search import Part


@pytest.fixture(scope="module")
def words(tmp_path_factory, pictures: Path, encoder: Encoder):
    """A searcher of an artifact that understands text, and the address where it is served."""
    folder = tmp_path_factory.mktemp("words")
    text = TextEncoder.create(str(write_clip(folder / "clip")))
    build_artifact(open_source(str(pictures)), folder / "artifact", encoder, text=text)
    searcher = Searcher.open(folder / "artifact")
    with served(searcher) as address:
        yield searcher, address


def test_text_is_searched_alone_and_with_a_picture(browser: Browser, words) -> None:
    searcher, address = words
    with visit(browser, address) as page:
        page.locator("#words textarea, #words input").fill("red shirt")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text("results for “red shirt”")
        cosines = searcher.text.store.vectors(np.arange(60)) @ searcher.text.encoder.embed_texts(["red shirt"])[0]
        best = rows_of(searcher, Part(words="red shirt"))
        assert best[0] == int(np.argmax(cosines))
        expect_rows(page, best)
        expect(page.locator("#hits .chance")).to_have_count(0)
        liked = best[4]
        page.locator(f"#hits [data-do=like][data-row='{liked}']").click()
        expect(page.locator("#parts .part")).to_have_count(2)
        expect_rows(page, rows_of(searcher, Part(words="red shirt"), Part(row=liked)))
        keep_screenshot(page, "words")
        page.locator("#parts [data-do=away]").first.click()
        expect(page.locator("#words textarea, #words input")).to_have_value("")
        expect(page.locator("#status")).not_to_contain_text("red shirt")


def test_without_a_text_model_there_is_no_text_box(browser: Browser, server: str) -> None:
    with visit(browser, server) as page:
        expect(page.locator("#words")).to_have_count(0)
