"""Benchmark the page: what a user waits for, in a real Chromium.

The clock runs inside the page. It starts at the timestamp of the user's event (a file chosen, a key, a click), and
stops when the answer is in the document and its first image has loaded. It never polls.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from retrieval.artifact.load import load_artifact
from retrieval.bench.artifact import seconds_to_answer, serving
from retrieval.errors import LookalikeError, first_line
from retrieval.images.gallery import Gallery, spread_rows
from retrieval.images.open import open_image
from retrieval.installed import needs
from retrieval.stores.recall import Figures, latency

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_OPENED, _TIMES = 8, 21
_PIXELS = 2_000_000
_PATIENCE = 60_000  # milliseconds for one answer
_SETTLED = 300  # milliseconds between two measurements, so one does not disturb the next
_VIEWPORT: Any = {"width": 1440, "height": 900}

# `first`: the first image of an answer has loaded; `all`: all its visible images have. Both in milliseconds.
_CLOCK = """
window.clock = (() => {
  const hits = () => [...document.querySelectorAll("#hits .hit")];
  const rows = () => hits().map((hit) => hit.dataset.row).join();
  const answers = {
    page: () => [...document.querySelectorAll("#hits .card > .pic img")],
    hits: (before) => (rows() && rows() !== before ? hits().map((hit) => hit.querySelector("img")) : []),
    why: () => [...document.querySelectorAll("#why dialog[open] > *")].flatMap((block) => {
      const pictures = [...block.querySelectorAll("img")];
      return pictures.length || !block.matches(".cannot") ? pictures : [null];
    }),
  };
  const loaded = (image) => image === null || (image.complete && image.naturalWidth > 0);
  const inView = (image) => image?.getBoundingClientRect().top < innerHeight;
  let run = {start: 0, answer: "page", before: ""};
  const look = () => {
    if (run.start === undefined || run.all !== undefined) return;
    const images = answers[run.answer](run.before);
    if (!images.length || !loaded(images[0])) return;
    run.first ??= performance.now() - run.start;
    if (images.filter(inView).every(loaded)) run.all = performance.now() - run.start;
  };
  new MutationObserver(look).observe(document, {subtree: true, childList: true, attributes: true});
  document.addEventListener("load", look, true);  // of a picture, which does not bubble
  return {
    arm: ([event, answer]) => {
      run = {answer, before: rows()};
      const started = run;
      document.addEventListener(event, ({timeStamp}) => (started.start = timeStamp), {capture: true, once: true});
    },
    read: () => (run.all === undefined ? null : [run.first, run.all]),
  };
})();
"""
_WEIGHT = """() => {
  const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  return [all.length, all.reduce((sum, one) => sum + one.encodedBodySize, 0) / 1024];
}"""


def bench_ui(folder: Path) -> Figures:
    """Measure what a user of an artifact's page waits for, in milliseconds and relative to the encoder's own latency.

    The app runs in its own process. "first" is the first measurement after its start, and is excluded from the median
    and the 95th percentile. Uploaded images are the artifact's own thumbnails, a different one each time, enlarged to
    photographs. Raises LookalikeError without Playwright or Chromium, or if the page does not answer.
    """
    with _chromium() as browser:  # first of all: it may be missing
        artifact = load_artifact(folder)
        pictures = [_photograph(artifact.gallery.thumbnail(row)) for row in spread_rows(len(artifact.gallery), _TIMES)]
        encoder = latency(lambda picture: artifact.encoder.embed_images([open_image(picture)]), pictures)[0]
        with serving(folder) as (app, address):
            start = seconds_to_answer(app, lambda: httpx.get(address, timeout=60).raise_for_status())
            times, weight = _opening(browser, address)
            with _visit(browser, address) as page:
                measured = {"page": times, **_measured(page, pictures, artifact.gallery)}
    figures: Figures = {
        "images": len(artifact.gallery),
        "encoder": artifact.encoder.name,
        "encoder, one image, p50 ms": encoder,
        "start to first answer s": start,
        "page requests": int(weight[0]),
        "page KiB": weight[1],
    }
    for name, times in measured.items():
        figures |= _summary(name, np.array(times), encoder)
    return figures


def _photograph(thumbnail: bytes) -> bytes:
    """A thumbnail enlarged to a 2-megapixel JPEG, a realistic size to upload and decode."""
    picture = open_image(thumbnail)
    scale = (_PIXELS / (picture.width * picture.height)) ** 0.5
    large = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    large.save(file := io.BytesIO(), "JPEG", quality=90)
    return file.getvalue()


def _summary(name: str, times: Any, encoder: float) -> Figures:
    """Summarise (N, 2) milliseconds: time to the first image, and to all visible ones."""
    warm = times[1:] if len(times) > 1 else times
    p50, p95 = np.percentile(warm[:, 0], [50, 95])
    return {
        f"{name}, first ms": float(times[0, 0]),
        f"{name} p50 ms": float(p50),
        f"{name} p95 ms": float(p95),
        f"{name}, all in view, p50 ms": float(np.median(warm[:, 1])),
        f"{name} p50 / encoder p50": float(p50 / encoder),
    }


def _opening(browser: Browser, address: str) -> tuple[list[list[float]], list[float]]:
    """Open the page in a fresh browser context each time: the times, and the requests and KiB of the first visit."""
    times, weights = [], []
    for _ in range(_OPENED):
        with _visit(browser, address) as page:
            times.append(_read(page))
            page.wait_for_timeout(_SETTLED)
            weights.append(page.evaluate(_WEIGHT))
    return times, weights[0]


def _measured(page: Page, pictures: list[bytes], gallery: Gallery) -> dict[str, list[list[float]]]:
    """Measure each interaction on an open page: name -> the times in order."""
    _read(page)

    def give(time: int) -> None:
        file: Any = {"name": "query.jpg", "mimeType": "image/jpeg", "buffer": pictures[time]}
        page.set_input_files("#query input[type=file]", file)

    def click(time: int) -> None:
        places = page.locator("#hits .hit > .pic")
        places.nth(min(2 + time % 5, places.count() - 1)).click()

    def why(time: int) -> None:
        places = page.locator("#hits .hit > .acts [data-do=why]")
        places.nth(time % min(4, places.count())).click()

    times = {
        "drop": [_timed(page, "change", "hits", give, time) for time in range(len(pictures))],
        "click": [_timed(page, "click", "hits", click, time) for time in range(_TIMES)],
        "why": [],
    }
    for time in range(_TIMES):
        times["why"].append(_timed(page, "click", "why", why, time))
        page.keyboard.press("Escape")
        page.locator("#why dialog").wait_for(state="detached")
    if gallery.filters:
        times["filter"] = [_filtered(page, gallery, gallery.filters[0], time) for time in range(_TIMES)]
    return times


def _filtered(page: Page, gallery: Gallery, column: str, time: int) -> list[float]:
    """Choose the filter value that the fewest hits have, a different one each time, and undo it afterwards."""
    rows = page.evaluate("[...document.querySelectorAll('#hits .hit')].map((hit) => +hit.dataset.row)")
    values = list(gallery.counts(column))
    shown = [str(gallery.table[column][row].as_py()) for row in rows]
    value = min(np.roll(values, -time).tolist(), key=shown.count)
    page.locator(f"#where-{column} input").fill(value)
    option = page.locator(f"#where-{column} [role=option]", has_text=re.compile(rf"^\W*{re.escape(value)} \(")).first
    taken = _timed(page, "pointerdown", "hits", lambda _: option.click(), time)
    page.keyboard.press("Escape")
    page.locator("[data-do=undo]").click()
    page.locator(f"#where-{column} .token").wait_for(state="detached")
    return taken


def _timed(page: Page, event: str, answer: str, act: Callable[[int], None], time: int) -> list[float]:
    page.wait_for_timeout(_SETTLED)
    page.evaluate("clock.arm", [event, answer])
    act(time)
    return _read(page)


def _read(page: Page) -> list[float]:
    """The times from the clock in the page, once it has stopped."""
    page.wait_for_function("clock.read()", polling=100)
    times: list[float] = page.evaluate("clock.read()")
    return times


@contextmanager
def _visit(browser: Browser, address: str) -> Iterator[Page]:
    """A new visitor with an empty cache; the clock is installed before the page loads."""
    with browser.new_context(viewport=_VIEWPORT) as context:
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        page.add_init_script(_CLOCK)
        page.goto(address)
        yield page


def find_chromium() -> str | None:
    """The program of a Chromium installed on this machine, the headless one first, which is the lightest."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser")
    return next((path for path in map(shutil.which, names) if path), None)


@contextmanager
def _chromium() -> Iterator[Browser]:
    """A Chromium installed on this machine, otherwise Playwright's own. Raises LookalikeError if neither works."""
    with needs("bench --ui"):
        from playwright.sync_api import Error, sync_playwright
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=find_chromium())
        except Error as error:
            raise LookalikeError(
                f"bench --ui could not start Chromium: python -m playwright install chromium ({first_line(error)})"
            ) from error
        try:
            yield browser
        except Error as error:
            raise LookalikeError(
                f"the page did not behave as expected: {first_line(error)}; open it to see why"
            ) from error
        finally:
            browser.close()
