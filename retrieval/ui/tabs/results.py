"""The answers of the search tab: all of one answer comes from one version of the artifact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from retrieval.arrays import Ids
from retrieval.errors import LookalikeError, QueryError
from retrieval.images.gallery import spread_rows
from retrieval.query import MAX_K
from retrieval.search import Hit, Part
from retrieval.ui import strings
from retrieval.ui.pieces.downloads import as_download, make_file
from retrieval.ui.pieces.errors import warn
from retrieval.ui.server.watched.metrics import METRICS
from retrieval.ui.serving import Served
from retrieval.ui.tabs.narrow import CONDITIONS, FILTER, GROUP, Narrow
from retrieval.ui.tabs.why import Why
from retrieval.ui.visit import Asked, Visit, after, is_gone, number_of

EXAMPLES = 8


class Results:
    """What a version of the artifact answers; `narrow` are controls of the page, `worded` is whether it takes text."""

    def __init__(self, served: Served, narrow: Narrow, worded: bool) -> None:
        self._served, self._searcher, self._cards = served, served.searcher, served.cards
        self._narrow, self._worded = narrow, worded

    def show(
        self, visit: Visit, k: float, least: float, fold: bool, before: Asked | None = None, do: str = ""
    ) -> list[Any]:
        """All that depends on a visit; `before` is what the page shows now, None at first.

        The first value is what the page gives back: the visit, and the version that its rows belong to.
        """
        asked = visit.asked
        _check_pictures(asked)
        hits, more = self.find(visit, int(k), least, fold)
        with METRICS.stage("render"):
            body = self._cards.hits(hits, more) if asked.parts else self._look_around(visit, int(k))
        status, tools = self._cards.status(asked, hits), self._cards.tools(visit, int(k))
        held = (visit, self._served.revision)
        return [held, self._cards.parts(asked), tools, status, body, *self._controls(asked, before, do)]

    def _controls(self, asked: Asked, before: Asked | None, do: str) -> list[Any]:
        """The values of the filters and the text box; the one that a visitor is changing is left alone."""
        filters = self._narrow.updates(self._searcher.gallery, asked, before, do)
        if not self._worded:
            return filters
        as_it_is = do == "words" or (before is not None and asked.all_words == before.all_words)
        return [*filters, gr.skip() if as_it_is else asked.all_words]

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
        rows: Sequence[int] | Ids = range(len(self._searcher.gallery)) if allowed is None else allowed
        places = spread_rows(len(rows), min(k * visit.pages, MAX_K))
        return self._cards.around([int(rows[place]) for place in places], len(places) < min(len(rows), MAX_K))

    def why(self, visit: Visit, data: dict[str, Any]) -> str:
        """Why the row in the data of a button is similar to the query."""
        _check_pictures(visit.asked)
        row = self._row_in(data)["row"]
        return Why(self._searcher, self._cards).of(visit.asked, row)

    def changed(self, visit: Visit, data: dict[str, Any], given: tuple[Any, ...]) -> Visit:
        """The visit after something was pressed, chosen or typed."""
        asked, do = visit.asked, data.get("do")
        if do == "settings":
            return visit
        if do == "words":
            return visit.to(asked.words(str(given[-1] or "")))
        if do in (FILTER, CONDITIONS, GROUP):
            return visit.to(self._narrow.changed(self._searcher.gallery, asked, str(do), given))
        return after(visit, self._row_in(data), len(self._searcher.gallery))

    def _row_in(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data of a button, with the row that its image has in this version."""
        of = data.get("of", self._served.revision)
        if "row" not in data or of == self._served.revision:
            rows = len(self._searcher.gallery)
            return {**data, "row": number_of(data, "row", rows)} if data.get("do") == "why" else data
        return {**data, "row": self._served.row(str(of), number_of(data, "row", 2**32))}

    def with_pictures(self, asked: Asked, paths: list[str]) -> Asked:
        """With uploaded pictures; a warning for each that cannot be read."""
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

    def file(self, wanted: dict[str, Any]) -> dict[str, str]:
        """The results that a page shows as a file: name, type and content in base64."""
        hits, of = wanted.get("hits") or [], wanted.get("of", self._served.revision)
        if of != self._served.revision and isinstance(hits, list):
            hits = [[self._served.row(str(of), int(row)), *others] for row, *others in hits]
        return as_download(*make_file(str(wanted.get("kind")), hits, self._searcher.gallery))


def _check_pictures(asked: Asked) -> None:
    """Raise QueryError if a visitor's picture has been deleted meanwhile."""
    if any(is_gone(part) for part in asked.parts):
        raise QueryError(strings.GONE)


def examples_of(served: Served) -> str:
    """Images to start with."""
    return served.cards.examples(spread_rows(len(served.searcher.gallery), EXAMPLES))
