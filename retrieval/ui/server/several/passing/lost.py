"""What is said to those whose worker has ended: one sentence, in the form that each of Gradio's clients shows."""

from __future__ import annotations

import json
from collections.abc import Sequence

from retrieval.ui import strings

STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
"""Headers of a stream of events."""


def end_of_stream(path: str, events: Sequence[str]) -> bytes:
    """The end of a stream of answers: all events that are still waited for have failed."""
    if "/call/" in path:
        return f"event: error\ndata: {json.dumps(strings.LOST)}\n\n".encode()
    failed = [
        {"msg": "process_completed", "event_id": event, "success": False, "output": {"error": strings.LOST}}
        for event in events
    ]
    return "".join(f"data: {json.dumps(each)}\n\n" for each in [*failed, {"msg": "close_stream"}]).encode()
