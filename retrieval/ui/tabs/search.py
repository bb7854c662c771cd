"""The search tab: the query on the left, its results on the right.

The page is a function of a `Visit`, which no two visitors share: every action makes the next one and shows it.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from retrieval.errors import LookalikeError, QueryError
from retrieval.images.gallery import spread_rows
from retrieval.query import MAX_K
from retrieval.search import Hit, Part, Searcher
from retrieval.ui import strings
from retrieval.ui.pieces.cards import Cards
from retrieval.ui.pieces.controls import add_button, drop_zone, slider
from retrieval.ui.pieces.downloads import as_download, make_file
from retrieval.ui.pieces.errors import staying, warn
from retrieval.ui.pieces.html import for_scripts, script
from retrieval.ui.tabs.narrow import CONDITIONS, FILTER, GROUP, Narrow
from retrieval.ui.tabs.why import Why
from retrieval.ui.visit import LINK, PAGE, Asked, Visit, after, is_gone, number_of, read_link

SEARCH = "search"  # the tab
EXAMPLES = 8
_WORDS = 300  # characters
MOST_HITS = 60  # at a time
# Scroll to the first result of a new search: on a phone results are below the query, and the click may be far down.
_TO_THE_HITS = """() => {
  const status = document.querySelector("#status"), did = document.body.dataset.did ?? "search";
  delete document.body.dataset.did;
  const away = innerWidth <= 760 || status.getBoundingClientRect().top < 0;
  if (away && ["search", "back", "region"].includes(did)) status.scrollIntoView();
}"""


class SearchTab:
    """Adds the search tab to the Blocks that are being built."""

    def __init__(self, searcher: Searcher, cards: Cards) -> None:
        self._searcher, self._cards = searcher, cards
        self._why = Why(searcher, cards)
        self._narrow = Narrow(searcher.gallery)
        self._visit: gr.State = gr.State(Visit())  # one for each visitor: nothing is shared between them
        with gr.Row(elem_classes="search-row"):
            with gr.Column(scale=1, min_width=300, elem_classes="side"):
                self._ask()
            with gr.Column(scale=3, min_width=320):
                self._answer()
        self._shown = [self._visit, self._parts, self._tools, self._status, self._hits, *self._narrow.controls]
        self._shown += [self._words] if self._words else []

    def _ask(self) -> None:
        """The query and its settings."""
        self._picture = drop_zone()
        scripts = script("acts.js", "region.js", "paste.js")
        self._parts = gr.HTML("", js_on_load=scripts, elem_id="parts", apply_default_css=False)
        self._add = add_button()
        self._words: gr.Textbox | None = None
        if self._searcher.text:
            self._words = gr.Textbox(
                label=strings.WORDS, placeholder=strings.WORDS_HINT, max_length=_WORDS, elem_id="words"
            )
        examples = self._cards.examples(spread_rows(len(self._searcher.gallery), EXAMPLES))
        self._examples = gr.HTML(examples, js_on_load=script("acts.js"), elem_id="examples", apply_default_css=False)
        self._narrow.add()
        with gr.Accordion(strings.MORE_SETTINGS, open=False, elem_id="settings"):
            self._fold = gr.Checkbox(True, label=strings.FOLD, elem_id="fold")
            self._k = slider(1, MOST_HITS, PAGE, 1, label=strings.K, elem_id="k")
            about = {"label": strings.MIN_SCORE, "info": strings.MIN_SCORE_INFO}
            self._least = slider(-1, 1, -1, 0.05, elem_id="min-score", **about)

    def _answer(self) -> None:
        """The results, the line above them, and their tools."""
        first = self.show(Visit(), PAGE, -1, True)
        self._status = gr.HTML(first[3], elem_id="status", elem_classes="status", apply_default_css=False)
        self._tools = gr.HTML(
            first[2],
            js_on_load=script("visit.js", "acts.js", "files.js", "hits.js"),
            server_functions=[for_scripts(self.save)],
            elem_id="tools",
            apply_default_css=False,
        )
        self._hits = gr.HTML(first[4], js_on_load=script("acts.js"), elem_id="hits", apply_default_css=False)
        self._why_box = gr.HTML("", js_on_load=script("why.js"), elem_id="why", apply_default_css=False)

    def listen(self, app: gr.Blocks, tabs: gr.Tabs) -> None:
        """Open the page as its link says, and answer every action of a visitor, in any tab.

        All actions go through `visit.js`, one at a time: no answer can overtake another.
        """
        app.load(self.opened, None, [self._k, *self._shown], api_visibility="private", show_progress="hidden")
        doing = {"picture": [self._picture.upload], "pictures": [self._add.upload]}
        doing |= {"words": [self._words.submit]} if self._words else {}
        doing |= self._narrow.events()
        moved = [self._k.input, self._k.release, self._least.input, self._least.release]
        doing |= {"settings": [*moved, self._fold.input]}
        for do, listeners in doing.items():
            for listen in listeners:
                listen(None, js=f"() => {{ lookalike.act({{do: '{do}'}}); }}", api_visibility="private")
        given = [self._picture, self._add, self._visit, self._k, self._least, self._fold, *self._narrow.controls]
        acted = self._tools.act(
            self.act,
            given + ([self._words] if self._words else []),
            [self._picture, self._add, tabs, *self._shown, self._why_box],
            api_visibility="private",
            concurrency_id="search",
            trigger_mode="multiple",
            show_progress="minimal",
            show_progress_on=[self._hits],
        )
        acted.success(None, js=_TO_THE_HITS)
        for over in (acted.then, acted.failure):
            over(None, js="() => { lookalike.done(); }")

    def opened(self, request: gr.Request) -> list[Any]:
        """The search that a link asks for; for a link that makes no sense, the plain page and a warning."""
        query = request.query_params
        if not query.keys() & LINK:  # the page is right as it is, and a visitor may have begun already
            return [gr.skip()] * (len(self._shown) + 1)
        k = PAGE
        try:
            asked, k = read_link({name: query.getlist(name) for name in query}, self._searcher.gallery)
            k = min(k, MOST_HITS)
            shown = self.show(Visit(asked), k, -1, True)
        except LookalikeError as error:
            warn(error)
            shown = self.show(Visit(), PAGE, -1, True)
        return [k, *shown]

    def show(
        self, visit: Visit, k: float, least: float, fold: bool, before: Asked | None = None, do: str = ""
    ) -> list[Any]:
        """All that depends on a visit; `before` is what the page shows now, None at first."""
        asked = visit.asked
        _check_pictures(asked)
        hits, more = self.find(visit, int(k), least, fold)
        body = self._cards.hits(hits, more) if asked.parts else self._look_around(visit, int(k))
        status, tools = self._cards.status(asked, hits), self._cards.tools(visit, int(k))
        return [visit, self._cards.parts(asked), tools, status, body, *self._controls(asked, before, do)]

    def _controls(self, asked: Asked, before: Asked | None, do: str) -> list[Any]:
        """The values of the filters and the text box; the one that a visitor is changing is left alone."""
        narrow = self._narrow.updates(asked, before, do)
        if not self._searcher.text:
            return narrow
        as_it_is = do == "words" or (before is not None and asked.all_words == before.all_words)
        return [*narrow, gr.skip() if as_it_is else asked.all_words]

    def find(self, visit: Visit, k: int, least: float, fold: bool) -> tuple[list[Hit], bool]:
        """The results to show, and whether there may be more."""
        if not visit.asked.parts:
            return [], False
        wanted = min(k * visit.pages, MAX_K)
        query = self._searcher.query(visit.asked.parts)
        one_more = min(wanted + 1, MAX_K)
        limits: dict[str, Any] = {"where": visit.asked.conditions, "group_by": visit.asked.group or None}
        hits = self._searcher.find(query, one_more, min_score=least, fold=fold, **limits)
        return hits[:wanted], len(hits) > wanted

    def _look_around(self, visit: Visit, k: int) -> str:
        allowed = self._searcher.gallery.rows_where(visit.asked.conditions)
        rows = np.arange(len(self._searcher.gallery)) if allowed is None else allowed
        places = spread_rows(len(rows), min(k * visit.pages, MAX_K))
        return self._cards.around([int(rows[place]) for place in places], len(places) < min(len(rows), MAX_K))

    def act(
        self,
        event: gr.EventData,
        picture: str | None,
        pictures: list[str] | None,
        visit: Visit,
        k: float,
        least: float,
        fold: bool,
        *given: Any,
    ) -> list[Any]:
        """The answer to an action; `given` are the values of the filters, then the words."""
        data = event._data if isinstance(event._data, dict) else {}
        do = str(data.get("do"))

        def answer() -> list[Any]:
            if do == "why":
                _check_pictures(visit.asked)
                row = number_of(data, "row", len(self._searcher.gallery))
                return [gr.skip()] * len(self._shown) + [self._why.of(visit.asked, row)]
            if do == "picture":
                changed = visit.to(visit.asked.only(Part(picture))) if picture else visit
            elif do == "pictures":
                changed = visit.to(self._with_pictures(visit.asked, pictures or []))
            else:
                changed = self._changed(visit, data, given)
            return [*self.show(changed, k, least, fold, visit.asked, do), ""]

        shown = staying(answer, len(self._shown) + 1)()
        # Empty the upload boxes for the next pictures, even if these could not be read.
        free = [None if do == each else gr.skip() for each in ("picture", "pictures")]
        return [*free, gr.Tabs(selected=SEARCH), *shown]

    def _changed(self, visit: Visit, data: dict[str, Any], given: tuple[Any, ...]) -> Visit:
        """The visit after something was pressed, chosen or typed."""
        asked, do = visit.asked, data.get("do")
        if do == "settings":
            return visit
        if do == "words":
            return visit.to(asked.words(str(given[-1] or "")))
        if do in (FILTER, CONDITIONS, GROUP):
            return visit.to(self._narrow.changed(asked, str(do), given))
        return after(visit, data, len(self._searcher.gallery))

    def _with_pictures(self, asked: Asked, paths: list[str]) -> Asked:
        errors = []
        for path in paths:
            try:
                self._searcher.vector(Part(path))
                asked = asked.with_part(Part(path))
            except LookalikeError as error:  # the other pictures are still used
                errors.append(str(error))
        for said in dict.fromkeys(errors):  # too many pictures would each give the same warning
            warn(said)
        return asked

    def save(self, wanted: dict[str, Any]) -> dict[str, str]:
        """The results that a page shows as a file, for its script: name, type and content in base64."""
        return as_download(*make_file(str(wanted.get("kind")), wanted.get("hits") or [], self._searcher.gallery))


def _check_pictures(asked: Asked) -> None:
    """Raise QueryError if a visitor's picture has been deleted meanwhile."""
    if any(is_gone(part) for part in asked.parts):
        raise QueryError(strings.GONE)
