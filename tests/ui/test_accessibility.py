"""The page checked by axe-core: no serious or critical violation of WCAG 2 A and AA."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import LOOKS, close_list, open_tab, serious_findings, upload, visit
from playwright.sync_api import Browser, expect


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_axe_finds_nothing_serious_in_the_search(
    browser: Browser, axe: Path, server: str, shirt: Path, size: str, theme: str
) -> None:
    with visit(browser, server, size, query=f"?__theme={theme}") as page:
        assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
        assert serious_findings(page, axe) == []
        upload(page, shirt)
        page.locator("#hits [data-do=unlike]").nth(3).click()
        expect(page.locator("#parts .part")).to_have_count(2)
        assert serious_findings(page, axe) == []
        page.locator("#where-label input").click()
        expect(page.locator("#where-label [role=option]").first).to_be_visible()
        assert serious_findings(page, axe) == []
        close_list(page, "label")
        page.locator("#settings > button").click()
        page.locator("#hits [data-do=why]").first.click()
        expect(page.locator("#why dialog")).to_be_visible()
        assert serious_findings(page, axe) == []


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_axe_finds_nothing_serious_in_other_tabs(
    browser: Browser, axe: Path, server: str, size: str, theme: str
) -> None:
    with visit(browser, server, size, query=f"?__theme={theme}") as page:
        for tab, shown in (
            ("Duplicates", "#find"),
            ("Map", "#map .legend button"),
            ("Evaluation", "#evaluation table"),
            ("About", "#about h1"),
        ):
            open_tab(page, tab)
            expect(page.locator(shown).first).to_be_visible()
            assert (tab, serious_findings(page, axe)) == (tab, [])


def test_axe_reports_serious_problems_on_a_bad_page(browser: Browser, axe: Path) -> None:
    page = browser.new_page()
    page.set_content(
        "<html lang=en><title>t</title><main><h1>h</h1><img src=x><p style='color: #aaa; background: #fff'>pale</p>"
    )
    found = serious_findings(page, axe)
    page.close()
    assert [line.split(": ")[:2] for line in found] == [["serious", "color-contrast"], ["critical", "image-alt"]]
