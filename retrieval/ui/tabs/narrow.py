"""Controls that narrow a search: values of columns, typed conditions, and one result per value of a column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from retrieval.images.gallery import Gallery
from retrieval.ui import strings
from retrieval.ui.pieces.controls import add_filters, as_choice, choices, column_title, conditions_box, one_of
from retrieval.ui.visit import MAX_TYPED, Asked, still_there

FILTER, CONDITIONS, GROUP = "filter", "conditions", "group"  # what a visitor does with them
_NAMED = 8  # columns in the hint


class Narrow:
    """The controls of the page, and their part in a search.

    The lists of values are for the columns that the gallery has when the app starts; the one that is searched may be a
    later version.
    """

    def __init__(self, gallery: Gallery) -> None:
        """Add the controls to the Blocks that are being built; those without a use for this gallery are hidden."""
        self._columns = gallery.filters
        names = _groups(gallery)
        with gr.Accordion(strings.FILTERS, open=True, visible=bool(_named(gallery)), elem_id="filters"):
            self.lists = add_filters(gallery)
            self.typed = conditions_box(MAX_TYPED, _hint(gallery))
            self.group = one_of(names, label=strings.GROUP_BY, visible=len(names) > 1, elem_id="group")

    def events(self) -> dict[str, list[Any]]:
        """What a visitor can do, and the events of the controls that do it."""
        lists = [each.input for each in self.lists]
        return {FILTER: lists, CONDITIONS: [self.typed.submit], GROUP: [self.group.input]}

    @property
    def controls(self) -> list[Any]:
        """All controls; `changed` takes their values in this order, `updates` gives theirs."""
        return [*self.lists, self.typed, self.group]

    def changed(self, gallery: Gallery, asked: Asked, do: str, values: Sequence[Any]) -> Asked:
        """The search after the control `do` was used; raises QueryError for conditions that make no sense."""
        typed, group = values[len(self._columns) : len(self._columns) + 2]
        if do == CONDITIONS:
            return asked.narrowed(gallery, str(typed or ""), asked.group)
        if do == GROUP:
            return asked.narrowed(gallery, asked.typed, group)
        for column, chosen in zip(self._columns, values, strict=False):
            asked = asked.filtered(column, chosen or None)  # nothing chosen in a list is no filter
        return asked

    def still_there(self, gallery: Gallery, values: Sequence[Any]) -> tuple[Any, ...]:
        """The values of the controls of a page without those in lists that this gallery, a later one, does not have."""
        lists = zip(self._columns, values, strict=False)
        return (*(still_there(gallery, *one) for one in lists), *values[len(self._columns) :])

    def updates(self, gallery: Gallery, asked: Asked, before: Asked | None, do: str) -> list[Any]:
        """What the controls show now; the one that a visitor is changing is left alone. `before` is None at first."""
        lists: list[Any] = [gr.skip()] * len(self._columns)
        if before is None or asked.conditions != before.conditions:
            facets = gallery.facets(asked.conditions)
            chosen = [asked.filter.get(column, []) for column in self._columns]
            lists = [
                gr.update(
                    choices=choices(facets.get(column, {}), values),
                    **({} if do == FILTER and before else {"value": list(map(as_choice, values))}),
                )
                for column, values in zip(self._columns, chosen, strict=True)
            ]
        same = before is not None and (asked.typed, asked.group) == (before.typed, before.group)
        typed, group = (
            gr.skip() if same or do == own else value
            for own, value in ((CONDITIONS, asked.typed), (GROUP, asked.group))
        )
        return [*lists, typed, group]

    def renew(self, gallery: Gallery) -> Callable[[], None]:
        """Count the values of a new gallery; the call that is returned puts the counts on pages opened from then on."""
        facets, hint, names = gallery.facets(None), _hint(gallery), _groups(gallery)
        lists = [choices(facets.get(column, {})) for column in self._columns]

        def put() -> None:
            for component, values in zip(self.lists, lists, strict=True):
                component.choices, component.visible = values, bool(values)
            self.typed.info = hint
            self.group.choices, self.group.visible = names, len(names) > 1

        return put


def _named(gallery: Gallery) -> list[str]:
    return ["label"] * gallery.has_labels + gallery.attributes


def _hint(gallery: Gallery) -> str:
    """What the box for conditions says: the first of the columns."""
    named = _named(gallery)
    return strings.CONDITIONS_INFO.format(columns=", ".join(named[:_NAMED]) + (" …" if len(named) > _NAMED else ""))


def _groups(gallery: Gallery) -> list[tuple[str, str]]:
    """The choices of what to show one result of: (text, column)."""
    return [(strings.GROUP_BY_NONE, ""), *((column_title(name), name) for name in columns_to_group_by(gallery))]


def columns_to_group_by(gallery: Gallery) -> list[str]:
    """The columns with several values, at least one of them in several rows; lists are none."""
    return [column for column in ["label", *gallery.attributes] if gallery.column(column).has_groups]
