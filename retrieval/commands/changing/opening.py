"""Opening the source that the options of a command name; a worker on another machine opens it in the same way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from retrieval.commands.printing import noted

if TYPE_CHECKING:
    from retrieval.sources.base import Source


def opened_source(
    name: str,
    image_column: str | None,
    label_column: str | None,
    label_level: int | None,
    split: str | None,
    config: str | None,
    revision: str | None,
    allow_private: bool,
) -> Source:
    """The source that the options name, once its notes are printed."""
    from retrieval.sources.open import open_source

    columns: dict[str, Any] = {"image_column": image_column, "label_column": label_column, "label_level": label_level}
    choices: dict[str, Any] = {"split": split, "config": config, "revision": revision}
    return noted(open_source(name, **columns, **choices, allow_private=allow_private))


def chosen_source(name: str, *chosen: Any) -> Source:
    """The source, with the licence that is the last one of the options."""
    *columns, licence = chosen
    opened = opened_source(name, *columns)
    return replace(opened, about={**opened.about, "license": licence}) if licence else opened
