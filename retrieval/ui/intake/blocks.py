"""Gradio's Blocks, whose events fail with sentences, and never fetch what a request names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError

from retrieval.ui import strings
from retrieval.ui.api.arguments import is_file
from retrieval.ui.intake.addresses import Addresses, holds_address
from retrieval.ui.intake.files.folder import Uploads
from retrieval.ui.limits.queue import PageQueue
from retrieval.ui.pieces.thumbnails import PictureFolder

_log = logging.getLogger(__name__)


class PageBlocks(gr.Blocks):  # type: ignore[misc]
    """The page; an error that is not ours is logged, and visitors see a sentence instead of its text."""

    addresses: Addresses
    pictures: PictureFolder
    uploads: Uploads | None = None
    """Set when it is served."""
    _queue: Any

    def queue(self, *arguments: Any, **options: Any) -> PageBlocks:
        """Use a queue that has an end; the arguments are Gradio's."""
        super().queue(*arguments, **options)
        made: Any = self._queue
        self._queue = PageQueue(
            made.live_updates,
            made.max_thread_count,
            made.update_intervals,
            made.max_size,
            self,
            made.default_concurrency_limit,
        )
        return self

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *others: Any, **options: Any) -> Any:
        """The values of an event, checked by the components that they are for.

        Raises gr.Error for an address, which Gradio would fetch here, and for values that a component does not take.
        """
        if holds_address(inputs):
            raise gr.Error(strings.PAGE_ADDRESS, print_exception=False)
        if self.uploads is not None and not all(self.uploads.use(path) for path in _files_in(inputs)):
            raise gr.Error(strings.GONE, print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, *others, **options)
        except gr.Error:
            raise
        except InvalidPathError as error:
            raise gr.Error(strings.NOT_UPLOADED, print_exception=False) from error
        except Exception as error:  # Gradio and pydantic raise almost anything, with paths and classes in its text
            _log.debug("the values of an event were refused", exc_info=error)
            raise gr.Error(strings.NOT_UNDERSTOOD, print_exception=False) from error

    async def process_api(self, *arguments: Any, **options: Any) -> Any:
        """Answer an event; raises gr.Error."""
        try:
            return await super().process_api(*arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            _log.error("an event failed", exc_info=error)
            raise gr.Error(strings.OUR_FAULT, print_exception=False) from error


def _files_in(value: Any) -> Iterator[str]:
    """The paths of all file objects in a value."""
    if is_file(value):
        yield value["path"]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _files_in(part)
