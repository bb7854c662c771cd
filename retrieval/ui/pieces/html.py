"""The HTML of the page, from its templates, and its scripts."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from retrieval.errors import LookalikeError
from retrieval.ui import strings

STATIC = Path(__file__).parents[1] / "static"
"""Where scripts, style sheet and icon lie."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(STATIC.with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATES.globals["strings"] = strings
_TEMPLATES.globals["is_address"] = re.compile(r"https?://[^\s/?#]+\S*", re.IGNORECASE).fullmatch


def render(template: str, /, **values: Any) -> str:
    """A file of `templates/` as HTML, filled with values and with the sentences of `strings`.

    Whatever the values hold is escaped, in attributes too. Raises jinja2.UndefinedError for one that is missing.
    """
    return _TEMPLATES.get_template(f"{template}.html").render(values)


def for_scripts(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method wrapped as a function, which is what Gradio lets the page's scripts call.

    Anybody can call it with anything: bad arguments are answered with an `error` in words.
    """

    @wraps(method)
    def called(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except (LookalikeError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            return {"error": str(error)}

    return called


def script(*names: str) -> str:
    """The text of some files of `static/`, one after the other."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)
