"""Links that restore a search: what a visitor searches for, as query parameters of the page's address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from retrieval.errors import QueryError, short
from retrieval.images.filters import parse
from retrieval.images.gallery import Gallery
from retrieval.query import MAX_K
from retrieval.search import Part
from retrieval.ui.visit import PAGE, Asked, is_count

LINK = {"id", "unlike", "where", "filter", "group", "k"}  # the query parameters of a link


def link_of(asked: Asked, k: int, gallery: Gallery) -> str:
    """The query string that restores a search; empty if no link can: it cannot hold uploads, regions or words."""
    parts = [(part, part.row) for part in asked.parts]
    if any(row is None or part.region for part, row in parts) or asked == Asked():
        return ""
    ids = gallery.take([row for _, row in parts if row is not None])
    values = [("id" if part.weight > 0 else "unlike", row.id) for (part, _), row in zip(parts, ids, strict=True)]
    if k != PAGE:
        values.append(("k", str(k)))
    if asked.where:
        values.append(("where", json.dumps(asked.filter, ensure_ascii=False, separators=(",", ":"))))
    values += [(name, text) for name, text in (("filter", asked.typed), ("group", asked.group)) if text]
    return "?" + urlencode(values)


def read_link(query: Mapping[str, Any], gallery: Gallery) -> tuple[Asked, int]:
    """The search that the query parameters of a link ask for, and k; raises QueryError for what the gallery lacks.

    `query` maps each name to the list of its values.
    """
    asked = Asked()
    for name, weight in (("id", 1.0), ("unlike", -1.0)):
        for image_id in query.get(name, []):
            asked = asked.with_part(Part(row=gallery.row_of(image_id), weight=weight))
    for text in query.get("where", [])[:1]:
        try:
            where = dict(json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise QueryError(f"the filter in this link cannot be read: {short(text, 100)!r}.") from error
        gallery.rows_where(where)
        for condition in parse(where).conditions:
            column = condition.column
            if column not in gallery.filters:
                raise QueryError(f"the page has no filter {short(column, 40)!r}, only {', '.join(gallery.filters)}.")
            if condition.operator != "=":
                raise QueryError(
                    f"in a link, {short(column, 40)}{condition.operator} has to be in filter=, not in where=."
                )
            asked = asked.filtered(column, gallery.as_texts(column, condition.values))
    asked = asked.narrowed(gallery, *((query.get(name) or [""])[0] for name in ("filter", "group")))
    count = (query.get("k") or [str(PAGE)])[0]
    if not is_count(count) or not 1 <= int(count) <= MAX_K:
        raise QueryError(f"k, the number of results, must be from 1 to {MAX_K}; the link has {short(count, 40)!r}.")
    return asked, int(count)
