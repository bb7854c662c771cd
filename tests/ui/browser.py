"""What the tests of the page do in a browser: visit it as a person would, give it a picture, keep what they saw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

SCREENSHOTS = os.environ.get("LOOKALIKE_SCREENSHOTS")
SIZES = {"desktop": (1440, 900), "phone": (375, 812)}


@contextmanager
def visit(browser: Browser, server: str, size: str = "desktop", examples: int = 8, query: str = "") -> Iterator[Page]:
    """A visitor of its own, who must see no error in the console and cause no request to another host.

    `query` stands behind the address: "?__theme=dark".
    """
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, permissions=["camera"])
    page = context.new_page()
    errors: list[str] = []
    strangers: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((server, "data:", "blob:")) else strangers.append(r.url))
    page.goto(server + query)
    expect(page.locator("#examples img")).to_have_count(examples)
    yield page
    context.close()
    assert errors == []
    assert strangers == []


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#query input[type=file]", path)
    expect(page.locator("#status")).to_contain_text("most like your picture")
    expect(page.locator("#hits .caption-label").first).to_be_visible()


def keep_screenshot(page: Page, name: str) -> None:
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(700)  # for the pictures to fade in
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")
