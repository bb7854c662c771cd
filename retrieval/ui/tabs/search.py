"""The search tab: the query on the left, its results on the right.

The page is a function of a `Visit`, which no two visitors share: every action makes the next one and shows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from retrieval.errors import LookalikeError
from retrieval.search import Part
from retrieval.ui import strings
from retrieval.ui.links import LINK, read_link
from retrieval.ui.pieces.controls import add_button, drop_zone, slider
from retrieval.ui.pieces.errors import staying, warn
from retrieval.ui.pieces.html import for_scripts, script
from retrieval.ui.serving import Live, Served
from retrieval.ui.tabs.narrow import Narrow
from retrieval.ui.tabs.results import Results, examples_of
from retrieval.ui.visit import PAGE, Visit, has_lost

SEARCH = "search"  # the tab
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

    def __init__(self, live: Live) -> None:
        self._live = live
        # One for each visitor: nothing is shared between them. Beside it, the version that its rows belong to.
        self._visit: gr.State = gr.State((Visit(), live.now.revision))
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
        said = f"const folderSentence = {json.dumps(strings.FOLDER_DROPPED)};\n"
        scripts = said + script("acts.js", "region.js", "paste.js")
        self._parts = gr.HTML("", js_on_load=scripts, elem_id="parts", apply_default_css=False)
        self._add = add_button()
        self._words: gr.Textbox | None = None
        if self._live.now.searcher.text:
            self._words = gr.Textbox(
                label=strings.WORDS, placeholder=strings.WORDS_HINT, max_length=_WORDS, elem_id="words"
            )
        now = self._live.now
        examples = examples_of(now)
        self._examples = gr.HTML(examples, js_on_load=script("acts.js"), elem_id="examples", apply_default_css=False)
        self._narrow = Narrow(now.searcher.gallery)
        with gr.Accordion(strings.MORE_SETTINGS, open=False, elem_id="settings"):
            self._fold = gr.Checkbox(True, label=strings.FOLD, elem_id="fold")
            self._k = slider(1, MOST_HITS, PAGE, 1, label=strings.K, elem_id="k")
            about = {"label": strings.MIN_SCORE, "info": strings.MIN_SCORE_INFO}
            self._least = slider(-1, 1, -1, 0.05, elem_id="min-score", **about)

    def _answer(self) -> None:
        """The results, the line above them, and their tools."""
        first = self._results(self._live.now).show(Visit(), PAGE, -1, True)
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
        served, k = self._live.now, PAGE
        results = self._results(served)
        try:
            asked, k = read_link({name: query.getlist(name) for name in query}, served.searcher.gallery)
            k = min(k, MOST_HITS)
            shown = results.show(Visit(asked), k, -1, True)
        except LookalikeError as error:
            warn(error)
            shown = results.show(Visit(), PAGE, -1, True)
        return [k, *shown]

    def _results(self, served: Served) -> Results:
        return Results(served, self._narrow, self._words is not None)

    def renew(self, served: Served) -> Callable[[], None]:
        """Render the tab as new visitors find it; the call that is returned puts it there."""
        results, put_narrow = self._results(served), self._narrow.renew(served.searcher.gallery)
        first, examples = results.show(Visit(), PAGE, -1, True), examples_of(served)

        def put() -> None:
            put_narrow()
            parts = [self._visit, self._parts, self._tools, self._status, self._hits, self._examples]
            for component, value in zip(parts, [*first[:5], examples], strict=True):
                component.value = value

        return put

    def act(
        self,
        event: gr.EventData,
        picture: str | None,
        pictures: list[str] | None,
        held: tuple[Visit, str],
        k: float,
        least: float,
        fold: bool,
        *given: Any,
    ) -> list[Any]:
        """The answer to an action; `given` are the values of the filters, then the words."""
        data = event._data if isinstance(event._data, dict) else {}
        do, served = str(data.get("do")), self._live.now
        results, visit = self._results(served), served.carried(*held)
        # Everything is shown anew if the rows of the page are those of another version.
        before = visit.asked if held[1] == served.revision else None
        if before is None:
            sent, given = given, self._narrow.still_there(served.searcher.gallery, given)
            if has_lost(visit.asked, held[0].asked) or sent != given:
                warn(strings.SEARCH_CHANGED)

        def answer() -> list[Any]:
            if do == "why":
                return [gr.skip()] * len(self._shown) + [results.why(visit, data)]
            if do == "picture":
                changed = visit.to(visit.asked.only(Part(picture))) if picture else visit
            elif do == "pictures":
                changed = visit.to(results.with_pictures(visit.asked, pictures or []))
            else:
                changed = results.changed(visit, data, given)
            return [*results.show(changed, k, least, fold, before, do), ""]

        shown = staying(answer, len(self._shown) + 1)()
        # Empty the upload boxes for the next pictures, even if these could not be read.
        free = [None if do == each else gr.skip() for each in ("picture", "pictures")]
        return [*free, gr.Tabs(selected=SEARCH), *shown]

    def save(self, wanted: dict[str, Any]) -> dict[str, str]:
        """The results that a page shows as a file, for its script: name, type and content in base64."""
        return self._results(self._live.now).file(wanted)
