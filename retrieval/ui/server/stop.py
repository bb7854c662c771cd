"""How serving ends: what has begun is finished, within ten seconds; a second signal ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from retrieval.ui import strings
from retrieval.ui.server.watched.front import Front

if TYPE_CHECKING:
    import gradio as gr

WHOLE = 10.0  # seconds from the signal to the end of the process
_FOR_ANSWERS = 8.0  # seconds of them for what has begun
_TO_FETCH = 2.0  # seconds of these for an answer that is there, but that nobody has asked for yet
_LOOK = 0.05
_SIGNALS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]


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


@contextmanager
def stopped_by_signals(clean: Callable[[], None], *, aloud: bool = True) -> Iterator[threading.Event]:
    """An event that the first SIGTERM or Ctrl-C sets; the second one, or ten seconds, ends the process.

    `clean` removes what must not stay behind, before such an end. Outside the main thread, which alone can handle
    signals, nothing sets the event.
    """
    asked = threading.Event()

    def end(status: int) -> None:
        try:
            clean()
        finally:
            os._exit(status)  # threads that compute would be waited for

    def handle(number: int, _: FrameType | None) -> None:
        if asked.is_set():
            end(128 + number)
        asked.set()
        if aloud:
            tell(strings.STOPPING_NOW)
        late = threading.Timer(WHOLE - 0.5, end, [0])
        late.daemon = True
        late.start()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield asked
    finally:
        if not asked.is_set():
            for number, handler in before.items():
                signal.signal(number, handler)


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
