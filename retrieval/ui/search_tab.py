"""The search: what is asked for on the left, its hits on the right.

The page is a function of a `Visit`, which each visitor has alone: every event makes the next one and shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import gradio as gr
import numpy as np

from retrieval.errors import LookalikeError, QueryError
from retrieval.gallery import spread_rows
from retrieval.search import MAX_K, Hit, Part, Searcher
from retrieval.ui import strings
from retrieval.ui.answers import staying
from retrieval.ui.asked import LINK, PAGE, Asked, Visit, after, is_gone, number_of, read_link
from retrieval.ui.cards import Cards
from retrieval.ui.downloads import as_download, make_file
from retrieval.ui.drop_zone import drop_zone
from retrieval.ui.filters import add_filters, choices
from retrieval.ui.html import for_scripts, script, text
from retrieval.ui.why import Why

SEARCH = "search"  # the tab
EXAMPLES = 8
_WORDS = 300  # letters
MOST_HITS = 60  # at a time
_REMEMBERED = 256  # vectors of visitors' pictures: a change of filter embeds nothing again
# A new search is shown from its first hit: on a phone they lie under the query, and the one clicked may be far down.
_TO_THE_HITS = """() => {
  const status = document.querySelector("#status"), did = document.body.dataset.did ?? "search";
  delete document.body.dataset.did;
  const away = innerWidth <= 760 || status.getBoundingClientRect().top < 0;
  if (away && ["search", "back", "region"].includes(did)) status.scrollIntoView();
}"""


class SearchTab:
    """The search tab of the Blocks that is being made."""

    def __init__(self, searcher: Searcher, cards: Cards) -> None:
        self._searcher, self._cards = searcher, cards
        self._why = Why(searcher, cards)
        self._vector = lru_cache(_REMEMBERED)(searcher.vector)
        self._columns = searcher.gallery.filters
        self._visit: gr.State = gr.State(Visit())  # a visitor's own: nothing here is shared between visitors
        with gr.Row(elem_classes="search-row"):
            with gr.Column(scale=1, min_width=300, elem_classes="side"):
                self._ask()
            with gr.Column(scale=3, min_width=320):
                self._answer()
        self._settings = [self._visit, self._k, self._least, self._fold]
        self._shown = [self._visit, self._parts, self._tools, self._status, self._hits, *self._filters]
        self._shown += [self._words] if self._words else []
        self._listen()

    def _ask(self) -> None:
        """The query and its settings."""
        self._picture = drop_zone()
        scripts = script("acts.js", "region.js", "paste.js")
        self._parts = gr.HTML("", js_on_load=scripts, elem_id="parts", apply_default_css=False)
        self._add = gr.UploadButton(
            strings.ADD_PICTURES, file_count="multiple", file_types=["image"], size="sm", elem_id="add"
        )
        self._words: gr.Textbox | None = None
        if self._searcher.text:
            self._words = gr.Textbox(
                label=strings.WORDS, placeholder=strings.WORDS_HINT, max_length=_WORDS, elem_id="words"
            )
        examples = self._cards.examples(spread_rows(len(self._searcher.gallery), EXAMPLES))
        self._examples = gr.HTML(examples, js_on_load=script("acts.js"), elem_id="examples", apply_default_css=False)
        self._filters = add_filters(self._searcher.gallery)
        with gr.Accordion(strings.MORE_SETTINGS, open=False, elem_id="settings"):
            self._fold = gr.Checkbox(True, label=strings.FOLD, elem_id="fold")
            self._k = gr.Slider(1, MOST_HITS, value=PAGE, step=1, label=strings.K, elem_id="k")
            self._least = gr.Slider(
                -1, 1, value=-1, step=0.05, label=strings.MIN_SCORE, info=strings.MIN_SCORE_INFO, elem_id="min-score"
            )

    def _answer(self) -> None:
        """The hits and what is said of them."""
        first = self.show(Visit(), PAGE, -1, True)
        self._status = gr.HTML(first[3], elem_id="status", elem_classes="status", apply_default_css=False)
        self._tools = gr.HTML(
            first[2],
            js_on_load=script("acts.js", "files.js", "hits.js"),
            server_functions=[for_scripts(self.save)],
            elem_id="tools",
            apply_default_css=False,
        )
        self._hits = gr.HTML(first[4], js_on_load=script("acts.js"), elem_id="hits", apply_default_css=False)
        self._why_box = gr.HTML("", js_on_load=script("why.js"), elem_id="why", apply_default_css=False)

    def _listen(self) -> None:
        settings = self._settings
        private: dict[str, Any] = {
            "api_visibility": "private",
            "concurrency_id": "search",
            "show_progress": "minimal",
            "show_progress_on": [self._hits],
        }
        stay = partial(staying, outputs=len(self._shown))
        asked = self._picture.upload(
            self.by_picture, [self._picture, *settings], [self._picture, *self._shown], **private
        )
        added = self._add.upload(stay(self.by_pictures), [self._add, *settings], self._shown, **private)
        for done in (asked, added):
            done.success(None, js=_TO_THE_HITS)
        for block in (self._parts, self._tools, self._hits, self._examples):
            acted = block.act(
                staying(self.act, len(self._shown) + 1), settings, [*self._shown, self._why_box], **private
            )
            acted.success(None, js=_TO_THE_HITS)
        for column, dropdown in zip(self._columns, self._filters, strict=True):
            dropdown.input(stay(self._by_filter(column)), [dropdown, *settings], self._shown, **private)
        if self._words:
            self._words.submit(stay(self.by_words), [self._words, *settings], self._shown, **private)
        changed = [self._k.input, self._least.input, self._fold.input]
        gr.on(changed, stay(self.show), settings, self._shown, trigger_mode="always_last", **private)

    def opened(self, request: gr.Request) -> list[Any]:
        """A visit as a link wants it; in the place of one that cannot be, the page as it is, and why."""
        query = request.query_params
        if not query.keys() & LINK:  # the page is right as it is, and a visitor may have begun already
            return [gr.skip()] * (len(self._shown) + 1)
        k = PAGE
        try:
            asked, k = read_link({name: query.getlist(name) for name in query}, self._searcher.gallery)
            k = min(k, MOST_HITS)
            shown = self.show(Visit(asked), k, -1, True)
        except LookalikeError as error:
            gr.Warning(text(error))  # which the page takes for HTML
            shown = self.show(Visit(), PAGE, -1, True)
        return [k, *shown]

    def listen_to_links(self, app: gr.Blocks) -> None:
        """Have the page open as its link says."""
        app.load(self.opened, None, [self._k, *self._shown], api_visibility="private", show_progress="hidden")

    def listen_elsewhere(self, pressed: list[Any], tabs: gr.Tabs) -> None:
        """Have a click on an image of another tab search for its like, here."""
        outputs = [tabs, *self._shown, self._why_box]

        def act(visit: Visit, k: float, least: float, fold: bool, event: gr.EventData) -> list[Any]:
            return [gr.Tabs(selected=SEARCH), *self.act(visit, k, least, fold, event)]

        for listen in pressed:
            stay = staying(act, len(outputs))
            listen(stay, self._settings, outputs, api_visibility="private", concurrency_id="search")

    def show(self, visit: Visit, k: float, least: float, fold: bool, used: str = "") -> list[Any]:
        """All that depends on a visit; the list of values of the column `used` is left as it is."""
        asked = visit.asked
        _check_pictures(asked)
        hits, more = self.find(visit, int(k), least, fold)
        facets = self._searcher.gallery.facets(asked.filter)
        filters = [
            gr.skip()
            if column == used
            else gr.update(choices=choices(facets[column]), value=asked.filter.get(column, []))
            for column in self._columns
        ]
        body = self._cards.hits(hits, more) if asked.parts else self._look_around(visit, int(k))
        words = [next((part.words for part in asked.parts if part.words), "")] if self._searcher.text else []
        status, tools = self._cards.status(asked, hits), self._cards.tools(visit, int(k))
        return [visit, self._cards.parts(asked), tools, status, body, *filters, *words]

    def find(self, visit: Visit, k: int, least: float, fold: bool) -> tuple[list[Hit], bool]:
        """The hits that are shown, and whether there may be more."""
        if not visit.asked.parts:
            return [], False
        wanted = min(k * visit.pages, MAX_K)
        query = self._searcher.query(visit.asked.parts, self._vector)
        one_more = min(wanted + 1, MAX_K)
        hits = self._searcher.find(query, one_more, min_score=least, where=visit.asked.filter, fold=fold)
        return hits[:wanted], len(hits) > wanted

    def _look_around(self, visit: Visit, k: int) -> str:
        allowed = self._searcher.gallery.rows_where(visit.asked.filter)
        rows = np.arange(len(self._searcher.gallery)) if allowed is None else allowed
        places = spread_rows(len(rows), min(k * visit.pages, MAX_K))
        return self._cards.around([int(rows[place]) for place in places], len(places) < min(len(rows), MAX_K))

    def by_picture(self, path: str | None, visit: Visit, *settings: Any) -> list[Any]:
        """A picture alone; the place for it is free for the next one."""
        asked = visit.asked if path is None else visit.asked.only(Part(path))
        shown = staying(self.show, len(self._shown))(visit.to(asked), *settings)
        return [None, *shown]

    def by_pictures(self, paths: list[str], visit: Visit, *settings: Any) -> list[Any]:
        """Pictures beside what is asked for already."""
        asked = visit.asked
        for path in paths:
            try:
                self._vector(Part(path), by_text=False)
                asked = asked.with_part(Part(path))
            except LookalikeError as error:  # the others are no worse for it
                gr.Warning(text(error))
        return self.show(visit.to(asked), *settings)

    def by_words(self, words: str, visit: Visit, *settings: Any) -> list[Any]:
        """Words beside what is asked for already."""
        return self.show(visit.to(visit.asked.words(words)), *settings)

    def _by_filter(self, column: str) -> Callable[..., list[Any]]:
        def by_filter(values: list[str] | None, visit: Visit, k: float, least: float, fold: bool) -> list[Any]:
            return self.show(visit.to(visit.asked.filtered(column, values or [])), k, least, fold, column)

        return by_filter

    def act(self, visit: Visit, k: float, least: float, fold: bool, event: gr.EventData) -> list[Any]:
        """What a button of the page does."""
        data = event._data if isinstance(event._data, dict) else {}
        rows = len(self._searcher.gallery)
        if data.get("do") == "why":
            _check_pictures(visit.asked)
            return [gr.skip()] * len(self._shown) + [self._why.of(visit.asked, number_of(data, "row", rows))]
        return [*self.show(after(visit, data, rows), k, least, fold), ""]

    def save(self, wanted: dict[str, Any]) -> dict[str, str]:
        """The hits that a page shows as a file, for its script: name, type and content in base64."""
        return as_download(*make_file(str(wanted.get("kind")), wanted.get("hits") or [], self._searcher.gallery))


def _check_pictures(asked: Asked) -> None:
    """Raise QueryError where a visitor's picture has been deleted meanwhile."""
    if any(is_gone(part) for part in asked.parts):
        raise QueryError(strings.GONE)
