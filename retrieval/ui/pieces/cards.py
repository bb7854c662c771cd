"""The pieces of the search as HTML: hits, the query's parts, the trail, and what is said over the hits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.evaluation.confidence import percent
from retrieval.images.gallery import Row
from retrieval.search import Hit, Part, Searcher
from retrieval.ui import strings
from retrieval.ui.pieces.html import attributes, fill, text
from retrieval.ui.pieces.thumbnails import PREVIEW, Thumbnails
from retrieval.ui.visit import Asked, Visit, is_gone, link_of, mark_of

_STEPS = 8  # of the trail that are shown
_STEP = 128  # pixels of a picture there, which every answer brings again


def name_of(row: Row | Hit) -> str:
    """What a person would call an image: its label, or else where it comes from."""
    return row.label or Path(row.source).name


class Cards:
    """HTML of a gallery's images, and of visitors' pictures."""

    def __init__(self, searcher: Searcher, thumbnails: Thumbnails) -> None:
        self._searcher, self._thumbnails = searcher, thumbnails

    def name(self, part: Part) -> str:
        """What a part of a query is called."""
        if part.words:
            return strings.FOUND_WORDS.format(words=part.words)
        name = strings.FOUND_PICTURE
        if part.row is not None:
            name = name_of(self._searcher.gallery.take([part.row])[0])
        return strings.FOUND_REGION.format(name=name) if part.region else name

    def title(self, asked: Asked) -> str:
        """What a whole query is called."""
        if len(asked.parts) == 1:
            name = self.name(asked.parts[0])
            return name if asked.parts[0].weight > 0 else strings.FOUND_UNLIKE.format(name=name)
        likes = sum(part.weight > 0 for part in asked.parts)
        counts = [(strings.LIKES, likes), (strings.UNLIKES, len(asked.parts) - likes)]
        said = [sentence.format(count=count) for sentence, count in counts if count]
        return said[0] if len(said) == 1 else strings.FOUND_SEVERAL.format(likes=said[0], unlikes=said[1])

    def source(self, part: Part, side: int = PREVIEW) -> str:
        """The address of a part's picture; one of the visitor's own has at most so many pixels a side."""
        if part.row is not None:
            return self._thumbnails.url(part.row, ".")
        return self._thumbnails.preview(str(part.image), side)

    def picture(self, row: int, alt: str) -> str:
        """The thumbnail of a row."""
        return f"<img {attributes(src=self._thumbnails.url(row, '.'), alt=alt, loading='lazy')}>"

    def status(self, asked: Asked, hits: Sequence[Hit]) -> str:
        """What is said over the hits."""
        if not asked.parts:
            return f"<p>{text(strings.EMPTY)}</p>"
        if not hits:
            own = sum(part.row is not None for part in asked.parts)
            return f"<p>{text(strings.NO_OTHERS if own == len(self._searcher.gallery) else strings.NO_HITS)}</p>"
        said = fill(strings.FOUND, count=len(hits), name=self.title(asked))
        best = hits[0].confident
        if best is None:
            why = strings.NO_CHANCE
            if self._searcher.confidence is not None:
                first = asked.parts[0]
                whole = len(asked.parts) == 1 and first.weight > 0 and not (first.words or first.region)
                why = strings.NO_CHANCE_LABEL if whole else strings.NO_CHANCE_OTHERWISE
            return f'<p>{said} <span class="aside">{text(why)}</span></p>'
        verdict = strings.CONFIDENT if best else strings.NOT_CONFIDENT
        badge = f'<strong class="{"sure" if best else "unsure"}">{text(verdict)}</strong>'
        aside = "" if best else f' <span class="aside">{text(strings.NOT_CONFIDENT_WHY)}</span>'
        return f"<p>{badge} {said}{aside}</p>"

    def around(self, rows: Sequence[int], more: bool) -> str:
        """Images to look around at, before anything is asked."""
        taken = self._searcher.gallery.take(rows)
        return self._grid([self.card(row, values) for row, values in zip(rows, taken, strict=True)], more)

    def card(self, row: int, values: Row, number: str = "") -> str:
        """An image to search with."""
        name = name_of(values)
        return (
            f'<li class="card">{self._search_button(row, name)}<div class="line">'
            f'{_name(name)}<span class="numbers">{number}</span></div></li>'
        )

    def hits(self, hits: Sequence[Hit], more: bool) -> str:
        """The hits; dimmed where the best is not confident."""
        unsure = bool(hits) and hits[0].confident is False
        return self._grid([self._hit(hit, unsure) for hit in hits], more, unsure=unsure)

    def _grid(self, items: Sequence[str], more: bool, unsure: bool = False) -> str:
        button = f"<button {attributes(class_='more', data_do='more')}>{text(strings.SHOW_MORE)}</button>"
        classes = "grid unsure" if unsure else "grid"
        return f'<ul class="{classes}">{"".join(items)}</ul>{button if more else ""}'

    def _hit(self, hit: Hit, unsure: bool) -> str:
        name = name_of(hit)
        chance = None if unsure else hit.chance  # which is that of a query whose kind is there
        numbers = f'<span class="score" title="{text(strings.SCORE_TITLE)}">{hit.score:.2f}</span>'
        if chance is not None:
            said = text(strings.CHANCE.format(chance=percent(chance)))
            numbers = f'<span class="chance" title="{text(strings.CHANCE_TITLE)}">{said}</span> · {numbers}'
        buttons = "".join(
            f"<button {attributes(data_do=do, data_row=hit.row, title=said, aria_label=f'{sign} {said}: {name}')}>"
            f"{text(sign)}</button>"
            for do, said, sign in (
                ("like", strings.MORE_LIKE, "+"),
                ("unlike", strings.LESS_LIKE, "−"),
                ("why", strings.WHY_TITLE, strings.WHY),
            )
        )
        data = attributes(data_row=hit.row, data_score=repr(hit.score), data_chance=chance)
        return (
            f'<li class="card hit" {data}>{self._search_button(hit.row, name)}'
            f'<div class="line">{_name(name)}'
            f'<span class="numbers">{numbers}</span></div><div class="acts">{buttons}</div>{self._alike(hit)}</li>'
        )

    def _search_button(self, row: int, name: str) -> str:
        label = strings.SEARCH_LIKE.format(name=name)
        button = attributes(class_="pic", data_do="search", data_row=row, aria_label=label)
        return f"<button {button}>{self.picture(row, name)}</button>"

    def _alike(self, hit: Hit) -> str:
        if not hit.alike:
            return ""
        rows = self._searcher.gallery.take(hit.alike)
        pictures = "".join(
            self._search_button(row, name_of(values)) for row, values in zip(hit.alike, rows, strict=True)
        )
        summary = text(strings.ALIKE.format(count=len(hit.alike)))
        return f'<details class="alike"><summary>{summary}</summary><div>{pictures}</div></details>'

    def examples(self, rows: Sequence[int]) -> str:
        """Pictures to start from."""
        taken = self._searcher.gallery.take(rows)
        pictures = (self._search_button(row, name_of(values)) for row, values in zip(rows, taken, strict=True))
        return f'<p class="caption">{text(strings.EXAMPLES)}</p><div class="strip">{"".join(pictures)}</div>'

    def parts(self, asked: Asked) -> str:
        """The parts of the query: each can be turned to its opposite, taken away, or narrowed to a region."""
        cards = "".join(self._part(place, part) for place, part in enumerate(asked.parts))
        pictures = any(not part.words for part in asked.parts)
        hint = f'<p class="caption">{text(strings.REGION_HINT)}</p>' if pictures else ""
        return f'<div class="parts count-{min(len(asked.parts), 3)}">{cards}</div>{hint}' if cards else ""

    def _part(self, place: int, part: Part) -> str:
        name = self.name(part)
        said, other = (strings.LIKED, strings.UNLIKED) if part.weight > 0 else (strings.UNLIKED, strings.LIKED)
        which = {"data_place": place, "data_part": mark_of(part)}
        turn = attributes(data_do="turn", title=strings.TURN.format(other=other), **which)
        away = attributes(data_do="away", aria_label=strings.TAKE_AWAY.format(name=name), **which)
        whole = attributes(data_do="whole", **which)
        buttons = f"<button {turn}>{text(said)} ⇄</button>"
        buttons += f"<button {whole}>{text(strings.WHOLE)}</button>" if part.region else ""
        buttons += f'<button class="away" {away}>×</button>'
        shown = f'<p class="words">{text(name)}</p>' if part.words else self._frame(which, part, name)
        kind = "like" if part.weight > 0 else "unlike"
        return f'<figure class="part {kind}">{shown}<figcaption>{buttons}</figcaption></figure>'

    def _frame(self, which: dict[str, Any], part: Part, name: str) -> str:
        box = ""
        if part.region:
            left, top, right, bottom = (100 * share for share in part.region)
            size = f"left:{left:.2f}%;top:{top:.2f}%;width:{right - left:.2f}%;height:{bottom - top:.2f}%"
            box = f'<span class="region" style="{size}"></span>'
        label = f"{name}. {strings.REGION_LABEL}"
        frame = attributes(class_="frame", tabindex=0, role="group", aria_label=label, **which)
        return f"<div {frame}><img {attributes(src=self.source(part), alt=name, draggable='false')}>{box}</div>"

    def tools(self, visit: Visit, k: int) -> str:
        """The trail, and what can be done with the whole search."""
        link = link_of(visit.asked, k, self._searcher.gallery)
        buttons = [f"<button {attributes(data_do='undo', disabled=not visit.before)}>{text(strings.UNDO)}</button>"]
        if visit.asked.parts or visit.asked.where:
            buttons.append(f"<button {attributes(data_do='clear')}>{text(strings.CLEAR)}</button>")
        if visit.asked.parts:
            copy = attributes(
                data_copy=True, disabled=not link, title=None if link else strings.NO_LINK, data_done=strings.COPIED
            )
            buttons.append(f"<button {copy}>{text(strings.COPY_LINK)}</button>")
            saves = "".join(
                f"<button {attributes(data_save=kind)}>{kind.upper()}</button>" for kind in ("csv", "json", "zip")
            )
            buttons.append(f'<span class="saves"><span>{text(strings.DOWNLOAD)}</span>{saves}</span>')
        data = attributes(data_link=link, data_step=len(visit.before))
        return f'<div class="tools" {data}>{self._trail(visit)}{"".join(buttons)}</div>'

    def _trail(self, visit: Visit) -> str:
        """The queries before this one, each once for as long as only its filter changed."""
        steps = []
        for place, asked in enumerate(visit.before):
            following = visit.before[place + 1] if place + 1 < len(visit.before) else visit.asked
            if asked.parts and asked.parts != following.parts:
                steps.append((place, asked))
        if not steps:
            return ""
        items = "".join(self._step(place, asked) for place, asked in steps[-_STEPS:])
        return f"<nav {attributes(class_='trail', aria_label=strings.TRAIL)}>{items}</nav>"

    def _step(self, place: int, asked: Asked) -> str:
        label = strings.BACK_TO.format(name=self.title(asked))
        button = attributes(data_do="back", data_step=place, aria_label=label, title=label)
        first = next((part for part in asked.parts if not part.words and not is_gone(part)), None)
        shown = f"<img {attributes(src=self.source(first, _STEP), alt='')}>" if first else text(self.title(asked))
        return f"<button {button}>{shown}</button>"


def _name(name: str) -> str:
    return f'<span class="name" title="{text(name)}">{text(name)}</span>'
