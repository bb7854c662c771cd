"""The page looked over by axe-core: what it finds serious by WCAG 2 A and AA is mended."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import SIZES, serious_findings, upload, visit
from playwright.sync_api import Browser, expect


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_serious_is_found(browser: Browser, axe: Path, server: str, shirt: Path, size: str, theme: str) -> None:
    with visit(browser, server, size, query=f"?__theme={theme}") as page:
        assert page.evaluate("document.body.classList.contains('dark')") == (theme == "dark")
        assert serious_findings(page, axe) == []
        upload(page, shirt)
        assert serious_findings(page, axe) == []
        page.locator("#labels input").click()
        expect(page.locator("#labels [role=option]").first).to_be_visible()
        assert serious_findings(page, axe) == []


def test_what_is_serious_is_found(browser: Browser, axe: Path) -> None:
    page = browser.new_page()
    page.set_content(
        "<html lang=en><title>t</title><main><h1>h</h1><img src=x><p style='color: #aaa; background: #fff'>pale</p>"
    )
    found = serious_findings(page, axe)
    page.close()
    assert [line.split(": ")[:2] for line in found] == [["serious", "color-contrast"], ["critical", "image-alt"]]
