"""What the tests of the page do in a browser: visit it as a person would, give it a picture, keep what they saw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

SCREENSHOTS = os.environ.get("LOOKALIKE_SCREENSHOTS")
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_STILL = """Promise.allSettled(document.getAnimations()
    .filter(one => Number.isFinite(one.effect.getComputedTiming().endTime)).map(one => one.finished))"""
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


def serious_findings(page: Page, axe: Path) -> list[str]:
    """What axe-core finds serious or critical by WCAG 2 A and AA in the page as it stands: a line for each element."""
    page.evaluate(_STILL)  # a colour in transition is neither of the two
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
