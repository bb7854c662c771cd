"""What a visitor searches for, as a small immutable value: every click makes a new one, so each can be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2s
from typing import Any

from retrieval.errors import QueryError, short
from retrieval.images.filters import Filter, parse, parse_line
from retrieval.images.gallery import Gallery
from retrieval.images.regions import as_region
from retrieval.search import Part
from retrieval.ui.intake.files.folder import touch

MAX_PARTS = 8
MAX_TYPED = 500  # characters of typed conditions
PAGE = 24  # results at first, and with each "Show more"


@dataclass(frozen=True)
class Asked:
    """A query and its filter: what is searched for, among which images (column -> values), and how hits are grouped."""

    parts: tuple[Part, ...] = ()
    where: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    typed: str = ""
    """More conditions, as a visitor has typed them."""
    group: str = ""
    """The column of which each value is shown once; empty: every image is shown."""

    def only(self, part: Part) -> Asked:
        """This part alone, with the same filter."""
        return replace(self, parts=(part,))

    def with_part(self, part: Part) -> Asked:
        """With this part added, or its weight changed if it is there already; raises QueryError for too many parts."""
        others = tuple(one for one in self.parts if not _same(one, part))
        if len(others) >= MAX_PARTS:
            raise QueryError(f"a query has at most {MAX_PARTS} parts: remove one first.")
        return replace(self, parts=(*others, part))

    def without_part(self, place: int) -> Asked:
        """Without that part."""
        return replace(self, parts=self.parts[:place] + self.parts[place + 1 :])

    def changed(self, place: int, **changes: Any) -> Asked:
        """With another region or weight for that part."""
        parts = list(self.parts)
        parts[place] = replace(parts[place], **changes)
        return replace(self, parts=tuple(parts))

    def words(self, words: str) -> Asked:
        """With these words instead of any others; empty words remove them."""
        others = tuple(part for part in self.parts if not part.words)
        return replace(self, parts=(*others, Part(words=words.strip())) if words.strip() else others)

    @property
    def all_words(self) -> str:
        """The words of the query; empty if there are none."""
        return next((part.words for part in self.parts if part.words), "")

    def filtered(self, column: str, values: Sequence[str | None] | None) -> Asked:
        """Limited to images with one of these values in a column, None for having none; None removes that limit."""
        others = tuple(one for one in self.where if one[0] != column)
        return replace(self, where=others if values is None else (*others, (column, tuple(values))))

    def narrowed(self, gallery: Gallery, typed: str, group: str) -> Asked:
        """With these typed conditions, and grouped by this column; raises QueryError for what the gallery lacks."""
        if len(typed) > MAX_TYPED:
            raise QueryError(f"the conditions must have at most {MAX_TYPED} characters, not {len(typed):,}.")
        gallery.rows_where(parse_line(typed))
        if group:
            gallery.groups(group)
        return replace(self, typed=typed.strip(), group=group)

    @property
    def filter(self) -> dict[str, list[str | None]]:
        """The chosen values as `Gallery.rows_where` takes them."""
        return {column: list(values) for column, values in self.where}

    @property
    def conditions(self) -> Filter:
        """The whole filter: the chosen values and the typed conditions."""
        return Filter((*parse(self.filter).conditions, *parse_line(self.typed).conditions))


def carried(visit: Visit, row_now: Callable[[int], int | None], gallery: Gallery) -> Visit:
    """The visit in another artifact: rows renumbered, without those that are gone and limits its gallery cannot have.

    It keeps all its steps, which a page counts.
    """

    def of(asked: Asked) -> Asked:
        parts = []
        for part in asked.parts:
            row = None if part.row is None else row_now(part.row)
            if part.row is None or row is not None:
                parts.append(replace(part, row=row))
        there = [(column, tuple(still_there(gallery, column, values))) for column, values in asked.where]
        where = tuple(one for one in there if one[1])
        typed = asked.typed if _works(gallery.rows_where, parse_line(asked.typed)) else ""
        group = asked.group if asked.group and _works(gallery.groups, asked.group) else ""
        return Asked(tuple(parts), where, typed, group)

    return replace(visit, asked=of(visit.asked), before=tuple(map(of, visit.before)), ahead=tuple(map(of, visit.ahead)))


def _works(look: Callable[..., Any], *arguments: Any) -> bool:
    try:
        look(*arguments)
    except QueryError:  # a column or a value is gone
        return False
    return True


def still_there(gallery: Gallery, column: str, values: Sequence[str | None]) -> list[str | None]:
    """Those of the values in a column's filter that this gallery has; none if it does not have that filter."""
    if column not in gallery.filters:
        return []
    return [value for value in values if _works(gallery.rows_where, {column: [value]})]


def has_lost(now: Asked, before: Asked) -> bool:
    """Whether a search that was carried over to another artifact lacks some of what it had."""
    sizes = [
        (len(asked.parts), sum(len(values) for _, values in asked.where), bool(asked.typed), bool(asked.group))
        for asked in (now, before)
    ]
    return sizes[0] != sizes[1]


def is_gone(part: Part) -> bool:
    """Whether it is an uploaded picture that has been deleted meanwhile; one that is there counts as used."""
    return part.image is not None and not touch(str(part.image))


def _same(one: Part, other: Part) -> bool:
    return replace(one, weight=1.0) == replace(other, weight=1.0)


@dataclass(frozen=True)
class Visit:
    """A visitor's current search, and the history around it.

    `before` are the earlier searches, oldest first; `ahead` those that were gone back from, the next one first; `pages`
    how many pages of results are shown.
    """

    asked: Asked = Asked()
    before: tuple[Asked, ...] = ()
    pages: int = 1
    ahead: tuple[Asked, ...] = ()

    def to(self, asked: Asked) -> Visit:
        """The visit with a new search; the same visit if nothing changes."""
        return self if asked == self.asked else Visit(asked, (*self.before, self.asked))

    @property
    def steps(self) -> tuple[Asked, ...]:
        """All searches, oldest first."""
        return (*self.before, self.asked, *self.ahead)

    def at(self, step: int) -> Visit:
        """The visit at that step, from which one can go back and forward."""
        steps = self.steps
        return Visit(steps[step], steps[:step], ahead=steps[step + 1 :])

    def undone(self) -> Visit:
        """The visit one step back, skipping steps whose pictures were deleted."""
        there = [step for step, asked in enumerate(self.before) if not any(map(is_gone, asked.parts))]
        return self.at(there[-1]) if there else self

    def more(self) -> Visit:
        """The visit with another page of results."""
        return replace(self, pages=self.pages + 1)


def after(visit: Visit, pressed: Mapping[str, Any], rows: int) -> Visit:
    """The visit after a button was pressed; `pressed` is its data: `do`, and what to do it to.

    Raises QueryError for an unknown action, a row that is not below `rows`, or a step that does not exist; ImageError
    for an invalid region.
    """
    do, asked = str(pressed.get("do")), visit.asked
    if do == "undo":
        return visit.undone()
    if do == "more":
        return visit.more()
    if do == "clear":
        return visit.to(Asked())
    if do == "back":
        return visit.at(number_of(pressed, "step", len(visit.steps)))
    if do in ("search", "like", "unlike"):
        part = Part(row=number_of(pressed, "row", rows), weight=-1.0 if do == "unlike" else 1.0)
        return visit.to(asked.only(part) if do == "search" else asked.with_part(part))
    if do not in ("away", "turn", "whole", "region"):
        raise QueryError(f"the page sent an unknown action, {short(do, 40)!r}: reload the page.")
    place = _place_of(pressed, asked.parts)
    if place is None:  # already removed by an earlier click
        return visit
    if do == "away":
        return visit.to(asked.without_part(place))
    if do == "turn":
        return visit.to(asked.changed(place, weight=-asked.parts[place].weight))
    return visit.to(asked.changed(place, region=None if do == "whole" else as_region(pressed.get("region"))))


def mark_of(part: Part) -> str:
    """An id of a part for its buttons: its place may have changed by the time a click is handled."""
    return blake2s(repr((part.row, str(part.image), part.words)).encode(), digest_size=8).hexdigest()


def _place_of(pressed: Mapping[str, Any], parts: Sequence[Part]) -> int | None:
    place = int(str(pressed.get("place"))) if is_count(str(pressed.get("place"))) else -1
    there = [at for at, part in enumerate(parts) if mark_of(part) == pressed.get("part")]
    return place if place in there else next(iter(there), None)


def number_of(pressed: Mapping[str, Any], name: str, end: int) -> int:
    """The number in the data of a button, from 0 to below `end`; raises QueryError for anything else."""
    text = str(pressed.get(name))
    if not is_count(text) or int(text) >= end:
        raise QueryError(
            f"the page sent {name} {short(text, 40)!r}, which must be a number below {end}: reload the page."
        )
    return int(text)


def is_count(text: str) -> bool:
    """Whether a text is a whole number of a sensible length."""
    return text.isdecimal() and len(text) < 20  # Python refuses to parse numbers of more than 4,300 digits
