"""Words for messages: suggest known names that resemble an unknown one; count things; recognise addresses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice

_COMPARED = 5_000  # names; a column with a million distinct values would take 20 seconds
_EXAMPLES = 5


def did_you_mean(asked: str, known: Iterable[str], *, most: int = 3, otherwise: str | None = None) -> str:
    """The end of an error message about an unknown name: the most similar known names, ignoring case.

    `otherwise` is used if nothing is similar; by default, some known names are listed.

    >>> did_you_mean("color", ["colour", "label"])
    "did you mean 'colour'?"
    >>> did_you_mean("price", ["colour", "label"])
    "examples: 'colour', 'label'."
    """
    names = list(islice(known, _COMPARED))
    lowered = {name.lower(): name for name in names}
    if near := [lowered[name] for name in difflib.get_close_matches(asked.lower(), lowered, n=most, cutoff=0.5)]:
        return f"did you mean {_listed(near)}?"
    if otherwise is not None:
        return otherwise
    return f"examples: {_listed(names[:_EXAMPLES])}." if names else "there are none."


def counted(number: int, thing: str) -> str:
    """A number of things.

    >>> counted(1, "image"), counted(1152, "image")
    ('1 image', '1,152 images')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def is_address(text: str) -> bool:
    """Whether a text begins like an address on the web."""
    return text.lower().startswith(("http://", "https://"))
