"""What libraries log while they serve: one line of a kind a second, without tracebacks and without paths."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from types import TracebackType

from starlette.requests import ClientDisconnect

_APART = 1.0  # seconds between two lines of a kind
_MOST_KINDS = 500
_LONGEST = 300
# Those that strangers can make log something, for a program that has handlers of its own; "" is the root itself.
_LOGGERS = ("", "uvicorn.error", "asyncio", "mcp.server.lowlevel.server", "mcp.server.streamable_http")
# A stranger's bad request, which was answered: nothing that the owner of a server can do about. Nor if one hangs up.
_UNSAID = ("Invalid HTTP request received", "Unsupported upgrade request", "No supported WebSocket library")
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.@+-]+){2,}")


class OncePerSecond(logging.Filter):
    """Passes the first line of a kind each second, and says how many were left out since the last one."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int, str], float] = {}
        self._left: dict[tuple[str, int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written; it is shortened to one line."""
        if getattr(record, "is_short", False):
            return True
        error = record.exc_info[1] if record.exc_info else None
        if str(record.msg).startswith(_UNSAID) or isinstance(error, ClientDisconnect):
            return False
        kind = (record.pathname, record.lineno, type(error).__name__)
        now = time.monotonic()
        if now - self._last.get(kind, -_APART) < _APART:
            self._left[kind] = self._left.get(kind, 0) + 1
            return False
        if len(self._last) >= _MOST_KINDS:
            self._last.clear()
            self._left.clear()
        self._last[kind], left = now, self._left.pop(kind, 0)
        record.msg, record.args = _line(record, error) + (f" ({left} more like this)" if left else ""), ()
        record.exc_info = record.exc_text = record.stack_info = None
        record.is_short = True
        return True


def keep_log_short() -> None:
    """Let no stranger fill the log. If nobody has said where it goes, warnings and errors go to standard error."""
    for logger in map(logging.getLogger, _LOGGERS):
        logger.addFilter(_FILTER)
    root = logging.getLogger()
    if not root.handlers and logging.lastResort is not None:
        # Some libraries log with `logging.warning`, which otherwise adds a handler without the filter.
        logging.lastResort.addFilter(_FILTER)
        root.addHandler(logging.lastResort)


def _line(record: logging.LogRecord, error: BaseException | None) -> str:
    try:
        said = record.getMessage()
    except (TypeError, ValueError):
        said = str(record.msg)
    text = "".join(each for each in next(iter(said.strip().splitlines()), "") if each.isprintable())
    text = _PATH.sub(lambda found: Path(found[0].replace("\\", "/")).name, text)
    if error is not None:
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        text = f"{text[:_LONGEST]}: {type(error).__name__}{why}{_place(error.__traceback__)}"
    return text[: 2 * _LONGEST]


def _place(traceback: TracebackType | None) -> str:
    """Where an error was raised: the last two parts of the file's name, and the line."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    file = Path(traceback.tb_frame.f_code.co_filename)
    return f" at {'/'.join(file.parts[-2:])}:{traceback.tb_lineno}"


_FILTER = OncePerSecond()
