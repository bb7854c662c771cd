"""How serving ends: what has begun is finished, and answers can be fetched; for signals, see `console.Stopping`."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from retrieval.ui.server.watched.front import Front

if TYPE_CHECKING:
    import gradio as gr

_FOR_ANSWERS = 8.0  # seconds of `WHOLE` in `retrieval.console` for what has begun
_TO_FETCH = 2.0  # seconds of these for an answer that is there, but that nobody has asked for yet
_LOOK = 0.05


def finish(front: Front, app: gr.Blocks) -> None:
    """Refuse new work, and wait for what has begun and for its answers to be fetched; at most 8 seconds."""
    front.state = "stopping"
    end, idle_since = time.monotonic() + _FOR_ANSWERS, None
    while (now := time.monotonic()) < end:
        if _computing(app):
            idle_since = None
        else:
            idle_since = idle_since or now
            answered = not front.running and not _unfetched(app)
            if answered or now - idle_since > _TO_FETCH:
                return
        time.sleep(_LOOK)


def leave() -> NoReturn:
    """End the process with status 0 once everything is done, without the seconds that Python needs to free it all."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(0)


def tell(text: str, *, to: TextIO | None = None) -> None:
    """Print a line, by default to standard error; a server does not depend on anybody being there to read it."""
    try:
        print(text, file=to or sys.stderr, flush=True)
    except (OSError, ValueError):  # a pipe that nobody reads any more, a closed file
        return


def _computing(app: gr.Blocks) -> bool:
    """Whether the queue holds or runs an event."""
    queue: Any = app._queue
    return bool(len(queue)) or queue.get_active_worker_count() > 0


def _unfetched(app: gr.Blocks) -> bool:
    """Whether a result waits for the client that asked for it."""
    return any(list(app._queue.pending_event_ids_session.values()))
