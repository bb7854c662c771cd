"""A visitor who does not wait for answers, in a real Chromium: no action is lost or undone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import expect_rows, open_settings, rows, rows_of, served, set_number, visit
from playwright.sync_api import Browser, Page, expect

from retrieval import Searcher
from retrieval.search import Hit, Part


class Slow(Searcher):
    """A searcher that answers slowly, as over a slow connection or on a busy machine."""

    def find(self, *arguments: Any, **options: Any) -> list[Hit]:
        time.sleep(0.4)
        return super().find(*arguments, **options)


@pytest.fixture(scope="module")
def searcher(starter: Path) -> Searcher:
    return Slow.open(starter)


@pytest.fixture(scope="module")
def slow(searcher: Searcher, starter: Path) -> Iterator[str]:
    with served(searcher) as address:
        yield address


def began(page: Page, row: int = 0) -> Part:
    """Click one of the example pictures."""
    page.locator("#examples .pic").nth(row).click()
    expect(page.locator("#hits .hit")).to_have_count(24)
    return Part(row=int(page.locator("#examples .pic").nth(row).get_attribute("data-row") or ""))


def expect_hits(page: Page, searcher: Searcher, parts: list[Part], where: dict[str, Any] | None = None) -> None:
    expect_rows(page, rows_of(searcher, *parts, where=where))


def take(page: Page, column: str, value: str) -> None:
    """Choose a value of a filter without waiting for the answer."""
    box = page.locator(f"#where-{column} input")
    box.click()
    box.fill(value)
    page.keyboard.press("Enter")


def test_several_filters_set_without_waiting_all_apply(browser: Browser, slow: str, searcher: Searcher) -> None:
    with visit(browser, slow) as page:
        part = began(page)
        for column, value in (("colour", "red"), ("colour", "blue"), ("label", "mug")):
            take(page, column, value)
        expect_hits(page, searcher, [part], {"colour": ["red", "blue"], "label": ["mug"]})
        expect(page.locator("#where-colour .token")).to_have_count(2)
        expect(page.locator("#where-label .token")).to_have_count(1)
        page.wait_for_function("location.search.includes('mug') && location.search.includes('blue')")


def test_filter_and_click_without_waiting_both_apply(browser: Browser, slow: str, searcher: Searcher) -> None:
    with visit(browser, slow) as page:
        began(page)
        row = rows(page)[4]
        take(page, "colour", "red")
        page.locator(f"#hits .hit[data-row='{row}'] > .pic").click()
        expect_hits(page, searcher, [Part(row=row)], {"colour": ["red"]})
        expect(page.locator("#where-colour .token")).to_have_count(1)
        expect(page.locator("#tools .trail button")).to_have_count(1)


def test_like_and_dislike_without_waiting_both_apply(browser: Browser, slow: str, searcher: Searcher) -> None:
    with visit(browser, slow) as page:
        part = began(page)
        liked, unliked = rows(page)[2], rows(page)[5]
        for do, row in (("like", liked), ("unlike", unliked)):
            page.locator(f"#hits [data-do={do}][data-row='{row}']").click()
        expect(page.locator("#parts .part")).to_have_count(3)
        expect_hits(page, searcher, [part, Part(row=liked), Part(row=unliked, weight=-1.0)])
        # A double click on a button removes one part, and not the next one too.
        page.locator("#parts [data-do=away]").nth(1).dblclick()
        expect(page.locator("#parts .part")).to_have_count(2)
        expect_hits(page, searcher, [part, Part(row=unliked, weight=-1.0)])


def test_going_back_without_waiting_restores_earlier_searches(browser: Browser, slow: str, searcher: Searcher) -> None:
    with visit(browser, slow) as page:
        parts = []
        for place in range(4):
            parts.append(began(page, place))
            expect_hits(page, searcher, parts[-1:])
        page.evaluate("history.back()")
        page.evaluate("new Promise((done) => setTimeout(done, 100))")
        page.evaluate("history.back()")
        expect_hits(page, searcher, parts[1:2])
        expect(page.locator("#tools .trail button")).to_have_count(1)
        page.locator("#hits .hit > .pic").nth(3).click()
        page.evaluate("history.back()")
        expect_hits(page, searcher, parts[:1])
        page.evaluate("history.back()")
        expect(page.locator("#status")).to_contain_text("Drop in a picture")


def test_number_box_emptied_while_typing_gives_no_error(browser: Browser, slow: str, searcher: Searcher) -> None:
    with visit(browser, slow) as page:
        part = began(page)
        open_settings(page)
        box = page.locator("#k input[type=number]")
        box.fill("")
        box.press("Tab")
        box.fill("9")
        expect(page.locator("#hits .hit")).to_have_count(9)
        assert rows(page) == rows_of(searcher, part, k=9)
        expect(page.locator(".toast-body")).to_have_count(0)


def test_the_last_of_several_thresholds_is_shown(browser: Browser, slow: str, searcher: Searcher) -> None:
    with visit(browser, slow) as page:
        page.get_by_role("tab", name="Duplicates").click()
        set_number(page, "#threshold", "0.82")
        for value in ("0.8", "0.85", "0.9"):
            page.locator("#threshold input[type=number]").fill(value)
            page.locator("#threshold input[type=number]").press("Tab")
        expect(page.locator("#groups")).to_contain_text("No near-duplicates at the threshold 0.9.")
