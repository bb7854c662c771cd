"""Our errors, in words, to whoever asked: a program or a visitor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from typing import Any

import gradio as gr

from retrieval.errors import LookalikeError


@contextmanager
def in_words() -> Iterator[None]:
    """Let our own errors reach a client as the sentence that they hold."""
    try:
        yield
    except LookalikeError as error:
        raise gr.Error(str(error), print_exception=False) from error


def warn(error: LookalikeError | str) -> None:
    """Show a visitor what is wrong; the page takes a warning for HTML, and an error may hold anybody's text."""
    gr.Warning(escape(str(error)))


def staying(handler: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """The handler of an event of the page, which stays as it is and says why where one of our errors is raised."""

    @wraps(handler)
    def handled(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except LookalikeError as error:
            warn(error)
            return [gr.skip()] * outputs if outputs > 1 else gr.skip()

    return handled
