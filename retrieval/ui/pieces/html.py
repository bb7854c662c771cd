"""Text as HTML, and what its scripts need."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

from retrieval.errors import LookalikeError

STATIC = Path(__file__).parents[1] / "static"
"""Where scripts, style sheet and icon lie."""


def text(value: object) -> str:
    """Anybody's text, which HTML then shows as it stands, in an attribute too."""
    return escape(str(value))


def fill(sentence: str, **values: object) -> str:
    """A sentence of `strings` as HTML, filled with anybody's text, which is shown bold."""
    return text(sentence).format(**{name: f"<strong>{text(value)}</strong>" for name, value in values.items()})


def attributes(**values: Any) -> str:
    """Attributes of a tag, `data_row=3` as data-row="3"; True stands alone, None and False are left out."""
    parts = []
    for name, value in values.items():
        if value is None or value is False:
            continue
        plain = name.rstrip("_").replace("_", "-")
        parts.append(plain if value is True else f'{plain}="{text(value)}"')
    return " ".join(parts)


def for_scripts(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method as what Gradio lets the scripts of the page call: a function, which it marks as such.

    Anybody can call it with anything: where that makes no sense, the answer is an `error` in words.
    """

    @wraps(method)
    def called(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except (LookalikeError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            return {"error": str(error)}

    return called


def script(*names: str) -> str:
    """Scripts of the page, one after the other."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)
