"""What is kept of a session: only what the page itself has put there, and no longer than anybody may need it."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from gradio.state_holder import SessionState, StateHolder

from retrieval.forking import Lock

_KEPT = datetime.timedelta(hours=1)  # for a page that is closed, or has lost its connection
_MOST = 10_000


class Sessions(StateHolder):  # type: ignore[misc]
    """Remembers a session from its first value on: calls of endpoints have none, and leave nothing.

    Gradio would keep a description of the whole page for each of the last 10,000 sessions, which only deep links need.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()
        self._passing: WeakValueDictionary[str, _Session] = WeakValueDictionary()
        self._open: Counter[str] = Counter()

    def __getitem__(self, session_id: str) -> SessionState:
        with self._lock:
            state = self.session_data.get(session_id) or self._passing.get(session_id)
            if state is None:
                state = self._passing[session_id] = _Session(self.blocks, partial(self._keep, session_id))
            if session_id in self.session_data:
                self._touch(session_id)
            return state

    @contextmanager
    def opened(self, session_id: str) -> Iterator[None]:
        """A page is open in this session: it is kept for as long."""
        self._open[session_id] += 1
        try:
            yield
        finally:
            self._open[session_id] -= 1
            if not self._open[session_id]:
                del self._open[session_id]
            with self._lock:
                if session_id in self.session_data:
                    self._touch(session_id)

    def delete_all_expired_state(self, now: datetime.datetime | None = None) -> None:
        """Forget sessions without an open page that nobody has used for an hour; Gradio calls this every second."""
        now = now or datetime.datetime.now()
        with self._lock:
            for session in list(self.session_data):
                if now - self.time_last_used[session] < _KEPT:
                    break  # the others were used later
                self._touch(session) if session in self._open else self._forget(session)

    def _keep(self, session_id: str, state: _Session) -> None:
        with self._lock:
            self.session_data[session_id] = state
            self._touch(session_id)
            if len(self.session_data) > _MOST:
                closed = (session for session in self.session_data if session not in self._open)
                self._forget(next(closed, next(iter(self.session_data))))

    def _touch(self, session_id: str) -> None:
        self.session_data.move_to_end(session_id)
        self.time_last_used[session_id] = datetime.datetime.now()

    def _forget(self, session_id: str) -> None:
        del self.session_data[session_id]
        self.time_last_used.pop(session_id, None)


class _Session(SessionState):  # type: ignore[misc]
    """The values of one session, and the components that it has changed."""

    def __init__(self, blocks: Any, keep: Callable[[_Session], None]) -> None:
        self._keep = keep
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = _KEPT.total_seconds()

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        self.config_values.clear()
        self._keep(self)

    def _update_config(self, key: int) -> None:
        """Nothing: nobody asks for the whole page of a session."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Nothing, as above."""
