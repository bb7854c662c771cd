"""Which image is it? The file and the attributes of a result, in a real Chromium."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import LOOKS, ROWS, SIZES, keep_screenshot, open_tab, serious_findings, served, visit
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from retrieval import Encoder, Hit, Searcher, build_artifact, open_source

LONG = "https://shop.example/p?name=" + "very-long-" * 12  # wider than a phone


@pytest.fixture(scope="module")
def shop(tmp_path_factory, pictures: Path, encoder: Encoder):
    """A searcher of 24 labelled pictures with a price and an address each, two of them saved twice; and its server."""
    folder = tmp_path_factory.mktemp("shop")
    rows = [("file_name", "price", "sold", "page", "note")]
    for number, path in enumerate(sorted(pictures.rglob("*.png"))[:24]):
        name = f"{path.parent.name}/{path.stem}-{number}.png"
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(path.read_bytes())
        rows.append((name, str(10 + number), "yes", LONG + str(number), "" if number % 2 else "javascript:alert(1)"))
        if number < 2:
            copy = name.replace(".png", "-copy.jpg")
            Image.open(path).convert("RGB").save(folder / "in" / copy, quality=95)
            rows.append((copy, "5", "no", LONG + "copy", ""))
    with (folder / "in" / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    build_artifact(open_source(str(folder / "in")), folder / "artifact", encoder, originals=True)
    searcher = Searcher.open(folder / "artifact")
    with served(searcher, [folder / "in"]) as address:
        yield searcher, address


def check_card(card: Locator, searcher: Searcher, row: int) -> None:
    """The card shows the file of this row beside its label, and its attributes when they are asked for."""
    [image] = searcher.gallery.take([row])
    expect(card.locator(".name")).to_have_text(image.label or "")
    expect(card.locator(".file")).to_have_text(Path(image.source).name)
    expect(card.locator("dl")).not_to_be_visible()
    card.locator(".facts summary").click()
    expect(card.locator("dl")).to_be_visible()
    names, values = card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts()
    expected = {"Source": image.source} | {
        name: str(value) for name, value in image.attributes.items() if value is not None
    }
    assert dict(zip(names, values, strict=True)) == expected
    [link] = card.locator("dl a").all()
    assert link.get_attribute("href") == image.attributes["page"]
    assert link.get_attribute("target") == "_blank"
    assert "noopener" in (link.get_attribute("rel") or "")
    original = card.locator("a.original")
    expect(original).to_have_text("Original")
    assert original.get_attribute("href") == f"./original/{image.id}"
    assert {"noopener", "noreferrer"} <= set((original.get_attribute("rel") or "").split())


@pytest.mark.parametrize(("size", "theme"), LOOKS)
def test_hit_shows_its_file_and_its_attributes_on_demand(
    browser: Browser, axe: Path, shop, size: str, theme: str
) -> None:
    searcher, address = shop
    with visit(browser, address, size, query=f"?__theme={theme}") as page:
        page.locator("#examples .pic").first.click()
        expect(page.locator("#hits .hit").first).to_be_visible()
        for card in page.locator("#hits .hit").all()[:2]:
            check_card(card, searcher, int(card.get_attribute("data-row") or ""))
        link = page.locator("#hits .hit a.original").first
        answer = page.request.get(f"{address}/{link.get_attribute('href')}")
        assert hashlib.sha256(answer.body()).hexdigest().startswith(str(link.get_attribute("href")).rpartition("/")[2])
        assert serious_findings(page, axe) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is too wide"
        page.locator("#hits .hit").first.scroll_into_view_if_needed()
        keep_screenshot(page, f"{size}-{theme}-details")


@pytest.mark.parametrize("size", SIZES)
def test_group_of_near_duplicates_shows_files_and_attributes(browser: Browser, axe: Path, shop, size: str) -> None:
    searcher, address = shop
    with visit(browser, address, size) as page:
        open_tab(page, "Duplicates")
        page.locator("#find").click()
        expect(page.locator("#groups .card").first).to_be_visible()
        for card in page.locator("#groups .card").all()[:2]:
            check_card(card, searcher, int(card.locator(".pic").get_attribute("data-row") or ""))
        assert serious_findings(page, axe) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is too wide"
        keep_screenshot(page, f"{size}-group-details")


def test_details_open_with_the_keyboard(browser: Browser, shop) -> None:
    _, address = shop
    with visit(browser, address) as page:
        page.locator("#examples .pic").first.click()
        card = page.locator("#hits .hit").first
        card.locator(".facts summary").focus()
        page.keyboard.press("Enter")
        expect(card.locator("dl")).to_be_visible()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "A"


def test_why_says_which_images_it_compares(browser: Browser, axe: Path, shop) -> None:
    searcher, address = shop
    with visit(browser, address, "phone") as page:
        asked = page.locator("#examples .pic").first
        asked.click()
        hit = page.locator("#hits .hit").first
        rows = [int(each.get_attribute("data-row") or "") for each in (asked, hit)]
        hit.locator('[data-do="why"]').click()
        expect(page.locator("#why figure")).to_have_count(2)
        for figure, row in zip(page.locator("#why figure").all(), rows, strict=True):
            check_card(figure, searcher, row)
        assert serious_findings(page, axe) == []
        keep_screenshot(page, "phone-why-details")


def expect_hits(page: Page, hits: list[Hit]) -> None:
    """The page shows these results, in this order."""
    expected = json.dumps([hit.row for hit in hits], separators=(",", ":"))
    page.wait_for_function(f"expected => JSON.stringify({ROWS}) === expected", arg=expected)


def test_results_are_narrowed_by_typed_conditions_and_one_is_shown_per_value(browser: Browser, shop) -> None:
    searcher, address = shop
    with visit(browser, address) as page:
        asked = page.locator("#examples .pic").first
        image_id = searcher.gallery.ids[int(asked.get_attribute("data-row") or "")]
        asked.click()
        options = {"id": image_id, "k": 24, "fold": True}
        expect_hits(page, searcher.search(**options))
        box = page.locator("#conditions").get_by_role("textbox")
        box.fill("price >= 12, price<30, sold!=no")
        box.press("Enter")
        where = {"price": {">=": 12, "<": 30}, "sold": {"!=": "no"}}
        expect_hits(page, searcher.search(**options, where=where))
        box.fill("prize<3")
        box.press("Enter")
        expect(page.locator(".toast-body")).to_contain_text("no column 'prize'; did you mean 'price'")
        box.fill("price >= 12, price<30, sold!=no")
        page.locator("#group input").click()
        page.locator("[role=option]", has_text="Label").click()
        grouped = searcher.search(**options, where=where, group_by="label")
        assert 1 < len(grouped) < len(searcher.search(**options, where=where))
        expect_hits(page, grouped)
        page.wait_for_function("location.search.includes('group=label')")
        keep_screenshot(page, "desktop-narrowed")
        link = f"?{urlsplit(page.url).query}"
    with visit(browser, address, query=link) as page:
        expect_hits(page, grouped)
        expect(page.locator("#conditions").get_by_role("textbox")).to_have_value("price >= 12, price<30, sold!=no")
        expect(page.locator("#group input")).to_have_value("Label")
        page.locator('#tools [data-do="clear"]').click()
        expect(page.locator("#group input")).to_have_value("image")
        expect(page.locator("#conditions").get_by_role("textbox")).to_have_value("")
