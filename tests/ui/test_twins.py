"""Near-duplicates among the results, grouped into one, in a real Chromium."""

from __future__ import annotations

from pathlib import Path

from browser import expect_rows, keep_screenshot, open_settings, visit
from playwright.sync_api import Browser, expect

from retrieval import Searcher
from retrieval.search import Part


def test_near_duplicates_are_grouped_unless_switched_off(browser: Browser, twins_server: str, twins: Path) -> None:
    searcher = Searcher.open(twins)
    with visit(browser, twins_server) as page:
        button = page.locator("#examples .pic").first
        query = searcher.query([Part(row=int(button.get_attribute("data-row") or ""))])
        button.click()
        hits = searcher.find(query, 24, fold=True)
        expect_rows(page, [hit.row for hit in hits])
        alike = [hit for hit in hits if hit.alike]
        assert alike, "there are near-duplicates to group"
        folded = page.locator("#hits .alike")
        expect(folded).to_have_count(len(alike))
        assert folded.locator("summary").all_inner_texts() == [
            f"+{len(hit.alike)} near-duplicate{'s' if len(hit.alike) > 1 else ''}" for hit in alike
        ]
        folded.first.locator("summary").click()
        pictures = folded.first.locator(".pic")
        expect(pictures.first).to_be_visible()
        assert [int(each.get_attribute("data-row") or "") for each in pictures.all()] == list(alike[0].alike)
        keep_screenshot(page, "alike")
        open_settings(page)
        page.locator("#fold input").uncheck()
        expect_rows(page, [hit.row for hit in searcher.find(query, 24)])
        expect(folded).to_have_count(0)
        page.locator("#fold input").check()
        expect_rows(page, [hit.row for hit in hits])
        folded.first.locator("summary").click()
        pictures.first.click()
        query = searcher.query([Part(row=alike[0].alike[0])])
        expect_rows(page, [hit.row for hit in searcher.find(query, 24, fold=True)])
