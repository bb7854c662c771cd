"""Words for messages: suggest known names that resemble an unknown one; count things; recognise addresses."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import islice

_COMPARED = 5_000  # names; a column with a million distinct values would take 20 seconds
_EFFORT = 4_000_000  # pairs of characters; difflib compares ten million in about a second
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
    lowered = {name.lower(): name for name in _comparable(asked, names)}
    near = difflib.get_close_matches(asked.lower(), lowered, n=most, cutoff=0.5) if lowered else []
    if near:
        return f"did you mean {_listed([lowered[name] for name in near])}?"
    if otherwise is not None:
        return otherwise
    return f"examples: {_listed(names[:_EXAMPLES])}." if names else "there are none."


def _comparable(asked: str, names: list[str]) -> Iterator[str]:
    """The names whose lengths let them resemble `asked`, as many as can be compared in a moment."""
    left = _EFFORT
    for name in names:
        if max(len(name), len(asked)) > 3 * min(len(name), len(asked)):  # then difflib's ratio is below 0.5
            continue
        left -= len(name) * len(asked)
        if left < 0:
            return
        yield name


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
