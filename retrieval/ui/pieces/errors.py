"""Shows our errors as sentences, to a program or to a visitor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from typing import Any

import gradio as gr

from retrieval.errors import LookalikeError


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Send our own errors to a client as their sentence, without a traceback."""
    try:
        yield
    except LookalikeError as error:
        raise gr.Error(str(error), print_exception=False) from error


def warn(error: LookalikeError | str) -> None:
    """Show a visitor a warning. The page treats it as HTML, and an error may quote anybody's text: it is escaped."""
    gr.Warning(escape(str(error)))


def staying(handler: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """An event handler that, when one of our errors is raised, shows it and leaves the page as it is."""

    @wraps(handler)
    def handled(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except LookalikeError as error:
            warn(error)
            return [gr.skip()] * outputs if outputs > 1 else gr.skip()

    return handled
