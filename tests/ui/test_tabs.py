"""The other tabs, and the "Why?" dialogue, in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import SIZES, keep_screenshot, open_tab, rows, served, set_number, upload, visit
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Browser, Page, expect

from retrieval import Encoder, Searcher, build_artifact, open_source
from retrieval.evaluation.duplicates import find_groups


@pytest.fixture(scope="module")
def searcher(starter: Path) -> Searcher:
    return Searcher.open(starter)


def cells(page: Page, picture: int) -> np.ndarray:
    return np.array(json.loads(page.locator("#why svg").nth(picture).get_attribute("data-cells") or ""))


def opacities(page: Page, picture: int) -> list[str]:
    return (
        page.locator("#why svg")
        .nth(picture)
        .evaluate("svg => [...svg.querySelectorAll('rect')].map((cell) => cell.getAttribute('fill-opacity'))")
    )


def test_the_explanation_adds_up_to_the_score(browser: Browser, server: str, shirt: Path) -> None:
    with visit(browser, server) as page:
        upload(page, shirt)
        score = float(page.locator("#hits .hit").first.get_attribute("data-score") or "")
        page.locator("#hits [data-do=why]").first.click()
        expect(page.locator("#why dialog")).to_be_visible()
        keep_screenshot(page, "why")
        said = page.locator("#why .sum").first.inner_text()
        added, bias, total = (float(number) for number in re.findall(r"-?\d\.\d{4}", said)[:3])
        assert added + bias == pytest.approx(total, abs=1.1e-4)
        assert total == pytest.approx(score, abs=5.1e-5)
        assert cells(page, 0).sum() == pytest.approx(added, abs=1e-3)  # of cells rounded to five digits
        assert "thumbnail" in page.locator("#why .sum").nth(1).inner_text()


def test_heat_maps_share_one_colour_scale(browser: Browser, server: str, shirt: Path) -> None:
    with visit(browser, server) as page:
        upload(page, shirt)
        page.mouse.move(0, 0)  # over no cell when the dialogue opens
        page.locator("#hits [data-do=why]").last.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#why dialog")).to_be_visible()
        expect(page.locator("#why .touched")).to_have_count(0)
        maps = [cells(page, picture).ravel() for picture in (0, 1)]
        largest = max(float(np.abs(each).max()) for each in maps)
        for picture, values in enumerate(maps):
            expected = np.abs(values) / largest * 0.75
            assert [float(each) for each in opacities(page, picture)] == pytest.approx(expected.tolist(), abs=2e-3)
            fills = (
                page.locator("#why svg")
                .nth(picture)
                .locator("rect")
                .evaluate_all("all => all.map(r => r.getAttribute('fill'))")
            )
            assert fills == ["#d55e00" if value > 0 else "#0072b2" for value in values]


def test_a_nonlinear_head_cannot_be_explained(browser: Browser, pictures: Path, tmp_path: Path) -> None:
    encoder = Encoder.create("test_resnet", pretrained=False, head="16-relu-8")
    build_artifact(open_source(str(pictures)), tmp_path / "artifact", encoder)
    searcher, said = Searcher.open(tmp_path / "artifact"), "cannot be split into parts of the picture"
    with served(searcher) as server:
        with visit(browser, server) as page:
            page.locator("#hits .card > .pic").first.click()
            page.locator("#hits .hit [data-do=why]").first.click()
            expect(page.locator("#why dialog .cannot")).to_contain_text(said)
            expect(page.locator("#why svg")).to_have_count(0)
        client = Client(server, verbose=False)
        one, other = searcher.gallery.ids[:2]
        with pytest.raises(AppError, match=said):
            client.predict(other, id=one, api_name="/explain")


@pytest.mark.parametrize("size", SIZES)
def test_pointing_at_a_cell_shows_what_matches_it(browser: Browser, server: str, shirt: Path, size: str) -> None:
    with visit(browser, server, size) as page:
        upload(page, shirt)
        page.locator("#hits [data-do=why]").first.click()
        expect(page.locator("#why dialog")).to_be_visible()
        pairs = np.array(json.loads(page.locator("#why .pair").get_attribute("data-pairs") or ""))
        before = opacities(page, 1)
        page.locator("#why rect").nth(5).hover(force=True)
        expect(page.locator("#why .touched")).to_have_count(1)
        expected = np.abs(pairs[5]) / np.abs(pairs[5]).max() * 0.75
        assert [float(each) for each in opacities(page, 1)] == pytest.approx(expected.tolist(), abs=1e-3)
        assert opacities(page, 1) != before
        expect(page.locator("#why .cell").first).to_have_text(f"This cell: {cells(page, 0).ravel()[5]:.4f}")
        page.locator("#why svg").first.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#why .cell").first).to_have_text(f"This cell: {cells(page, 0).ravel()[6]:.4f}")


@pytest.mark.parametrize("size", SIZES)
def test_near_duplicates_are_grouped_and_saved(browser: Browser, twins_server: str, twins: Path, size: str) -> None:
    searcher = Searcher.open(twins)
    groups = find_groups(searcher.store, searcher.pictures.same, 0.8)
    assert groups
    with visit(browser, twins_server, size) as page:
        open_tab(page, "Duplicates")
        set_number(page, "#threshold", "0.8")
        expect(page.locator("#groups .tools")).to_contain_text(f"{len(groups):,} groups")
        keep_screenshot(page, f"{size}-duplicates")
        sizes = [int(text.split()[0]) for text in page.locator("#groups h3").all_inner_texts()]
        assert sizes == [len(group.rows) for group in groups[:20]]
        with page.expect_download() as waiting:
            page.locator("#groups [data-threshold]").click()
        lines = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
        assert len(lines) == sum(len(group.rows) for group in groups)
        page.locator("#groups .pic").first.click()
        expect(page.locator("#status")).to_contain_text("results for")
        expect(page.locator("#hits .hit").first).to_be_visible()


@pytest.mark.parametrize("size", SIZES)
def test_a_click_on_the_map_searches(browser: Browser, server: str, searcher: Searcher, size: str) -> None:
    with visit(browser, server, size) as page:
        open_tab(page, "Map")
        expect(page.locator("#map .legend button").first).to_be_visible()
        canvas = page.locator("#map canvas")
        drawn = canvas.evaluate(
            "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
        )
        assert drawn > 10, "there are points of several colours"
        canvas.focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
            page.keyboard.press(key)
        expect(page.locator("#map .tip img")).to_be_visible()
        keep_screenshot(page, f"{size}-map")
        name = page.locator("#map .tip").inner_text()
        assert name in set(searcher.gallery.labels)
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text(f"results for {name}")
        expect(page.locator("#hits .hit").first).to_be_visible()
        assert len(rows(page)) == 24


@pytest.mark.parametrize("size", SIZES)
def test_hovering_on_the_map_shows_an_image(browser: Browser, server: str, searcher: Searcher, size: str) -> None:
    with visit(browser, server, size) as page:
        open_tab(page, "Map")
        expect(page.locator("#map .legend button").first).to_be_visible()
        page.locator("#map [data-zoom='2']").click()
        box = page.locator("#map canvas").bounding_box()
        assert box
        tip = page.locator("#map .tip img")
        for step in range(100):
            x, y = box["x"] + box["width"] * (30 + 4 * (step % 10)) / 100, box["y"] + box["height"] * (30 + step) / 160
            page.mouse.move(x, y)
            page.wait_for_timeout(50)
            if tip.count():
                break
        expect(tip).to_be_visible()
        name = page.locator("#map .tip").inner_text()
        page.mouse.move(box["x"] + 2, box["y"] + 2)
        expect(tip).to_have_count(0)
        page.mouse.click(x, y)
        expect(page.locator("#status")).to_contain_text(f"results for {name}")


def test_evaluation_and_about_tabs_show_the_artifact(browser: Browser, server: str, starter: Path) -> None:
    metrics = json.loads((starter / "metrics.json").read_text(encoding="utf-8"))
    with visit(browser, server) as page:
        open_tab(page, "Evaluation")
        expect(page.locator("#evaluation table").first).to_contain_text(f"{metrics['leave_one_out']['P@1']:.3f}")
        picture = page.locator("#evaluation .plots img").first
        picture.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('#evaluation .plots img').complete")
        assert picture.evaluate("image => image.naturalWidth") > 300
        keep_screenshot(page, "evaluation")
        open_tab(page, "About")
        expect(page.locator("#about")).to_contain_text(server)
        expect(page.locator("#about h1")).to_have_text("Image search artifact")
        keep_screenshot(page, "about")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is too wide"
