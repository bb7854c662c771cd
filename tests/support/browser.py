"""Helpers of the page tests: visit the page in a browser, upload an image, read the hits, take screenshots."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import free_port
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from retrieval import Searcher
from retrieval.search import Part
from retrieval.ui import create_app, launch

SCREENSHOTS = os.environ.get("LOOKALIKE_SCREENSHOTS")
expect.set_options(timeout=30_000)  # a machine may be busy with other work
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_STILL = """Promise.allSettled(document.getAnimations()
    .filter(one => Number.isFinite(one.effect.getComputedTiming().endTime)).map(one => one.finished))"""
_LEFT = "AbortError: signal is aborted"  # Gradio aborts its own stream when a page is left or loaded again
_IDLE: list[Page] = []  # pages of earlier visits, each in a browser context of its own
ROWS = "[...document.querySelectorAll('#hits .hit')].map((hit) => +hit.dataset.row)"
SIZES = {"desktop": (1440, 900), "phone": (375, 812)}
LOOKS = [("desktop", "light"), ("desktop", "dark"), ("phone", "light")]  # colours do not depend on the size


@contextmanager
def served(searcher: Searcher, originals: Sequence[Path] = (), **options: Any) -> Iterator[str]:
    """Serve the app for a searcher's artifact in this process, with options of `launch`; yields its address."""
    app = create_app(searcher, originals)
    try:
        _, address, _ = launch(app, port=free_port(), prevent_thread_lock=True, quiet=True, **options)
        yield address.rstrip("/")
    finally:
        app.close()


@contextmanager
def visit(browser: Browser, server: str, size: str = "desktop", examples: int = 8, query: str = "") -> Iterator[Page]:
    """Open the page as a new visitor; fails on console errors and on requests to other hosts.

    `query` is appended to the address, e.g. "?__theme=dark".
    """
    page = _IDLE.pop() if _IDLE else browser.new_context(permissions=["camera"]).new_page()
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    errors: list[str] = []
    strangers: list[str] = []
    heard = {
        "console": lambda message: errors.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: errors.append(str(error)),
        "request": lambda r: None if r.url.startswith((server, "data:", "blob:")) else strangers.append(r.url),
    }
    for event, hear in heard.items():
        page.on(event, hear)
    try:
        page.goto(server + query)
        expect(page.locator("#examples img")).to_have_count(examples)
        page.wait_for_function("window.lookalike")  # the scripts of the page run a little later
        yield page
        origin = page.evaluate("origin")
    except BaseException:
        page.context.close()
        raise
    for event, hear in heard.items():
        page.remove_listener(event, hear)
    _forget(page, origin)
    _IDLE.append(page)
    errors = [error for error in errors if _LEFT not in error]
    assert errors == [], errors
    assert strangers == [], strangers


def _forget(page: Page, origin: str) -> None:
    """Make a page that has visited an origin like new; only compiled scripts stay, which take longest to load."""
    page.goto("about:blank")
    page.mouse.move(0, 0)
    browser = page.context.new_cdp_session(page)
    browser.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    browser.send("Network.clearBrowserCookies")
    browser.send("Page.resetNavigationHistory")
    browser.detach()


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#query input[type=file]", path)
    expect(page.locator("#status")).to_contain_text("results for your picture")
    expect(page.locator("#hits .hit").first).to_be_visible()


def names(page: Page) -> list[str]:
    """The names of the hits, best first."""
    return page.locator("#hits .hit .name").all_inner_texts()


def scores(page: Page) -> list[float]:
    """The displayed cosine similarities of the hits."""
    return [float(text) for text in page.locator("#hits .hit .score").all_inner_texts()]


def rows(page: Page) -> list[int]:
    """The gallery rows of the hits."""
    return page.evaluate(ROWS)


def rows_of(searcher: Searcher, *parts: Part, k: int = 24, where: dict[str, Any] | None = None) -> list[int]:
    """The rows that the page should show for a query with these parts."""
    return [hit.row for hit in searcher.find(searcher.query(parts), k, where=where, fold=True)]


def expect_rows(page: Page, expected: list[int]) -> None:
    """Wait until the hits are these rows."""
    try:
        page.wait_for_function(f"expected => JSON.stringify({ROWS}) === JSON.stringify(expected)", arg=expected)
    except PlaywrightTimeoutError:
        assert rows(page) == expected  # fails with the rows in its message


def choose(page: Page, column: str, value: str) -> None:
    """Choose a value in the filter on a column."""
    page.locator(f"#where-{column} input").click()
    page.locator(f"#where-{column} input").fill(value)
    page.locator(f"#where-{column} [role=option]", has_text=re.compile(rf"^\W*{value} \(")).first.click()
    close_list(page, column)


def close_list(page: Page, column: str) -> None:
    """Close the list of a filter; it opens again on the next focus."""
    page.keyboard.press("Escape")
    page.locator(f"#where-{column} input").blur()
    expect(page.locator("[role=option]")).to_have_count(0)


def open_settings(page: Page) -> None:
    """Open the settings. Gradio renders them only then, and text typed before they are complete can be lost."""
    page.locator("#settings > button").click()
    expect(page.locator("#k input[type=number]")).to_have_value("24")
    page.wait_for_timeout(1000)


def set_number(page: Page, selector: str, value: str) -> None:
    """Type into the number box of a slider, again if Gradio was still making it and put its first value back."""
    box = page.locator(f"{selector} input[type=number]")
    for _ in range(20):
        box.fill(value)
        box.press("Tab")
        page.wait_for_timeout(250)
        if box.input_value() == value:
            return


def open_tab(page: Page, name: str) -> None:
    """Open a tab; on a phone it may be in the overflow menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator("#tabs .overflow-menu > button").click()
        tab = page.locator("#tabs .overflow-dropdown button", has_text=name)
    tab.click()


def keep_screenshot(page: Page, name: str) -> None:
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(700)  # for the pictures to fade in
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def serious_findings(page: Page, axe: Path) -> list[str]:
    """Serious and critical violations of WCAG 2 A and AA that axe-core finds in the page: one line per element."""
    page.evaluate(_STILL)  # wait for animations: a colour in transition can fail the contrast check
    page.add_script_tag(path=axe)
    found = page.evaluate("rules => axe.run({runOnly: rules})", _RULES)
    return [
        f"{rule['impact']}: {rule['id']}: {' '.join(map(str, node['target']))}: {node['failureSummary']}".replace(
            "\n", " "
        )
        for rule in found["violations"]
        if rule["impact"] in {"serious", "critical"}
        for node in rule["nodes"]
    ]
