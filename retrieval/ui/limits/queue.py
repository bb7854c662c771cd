"""Gradio's queue with an end: how much waits, for how long, in whose turn, and how long answers are kept."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from typing import Any

import orjson
from gradio.queueing import Event, EventQueue, Queue
from gradio.server_messages import ProcessCompletedMessage
from gradio.utils import run_coro_in_background
from starlette.exceptions import HTTPException
from starlette.requests import Request

from retrieval.ui import strings
from retrieval.ui.intake.refusing import RefusedError
from retrieval.ui.limits.visitors import refusal_of, visitor_of
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.watched.metrics import METRICS

KEPT = 300.0
"""Seconds that an answer is kept for whoever asked for it."""

_MOST_KEPT = 16 * 2**20  # bytes of JSON of all answers that wait to be fetched; in memory they take a few times that
_SWEEP = 5.0  # seconds
_SHOWN = 0.5  # seconds between two messages to all who wait about their place in the queue
_UNREAD = 20  # messages that a session has not fetched, beyond which its refusals are plain HTTP answers
_LONGEST = 600  # seconds that a visitor is told to wait at most


class PageQueue(Queue):  # type: ignore[misc]
    """The queue of the page's events and of the endpoints.

    An event that is one too many is refused with a sentence and the time after which to try again. Gradio's clients and
    the page show sentences only of an event's answer, so there it is one; any other client gets a status and a header.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ANALYTICS_MAX_EVENTS = 1  # for Gradio's own dashboard, which is closed here
        self._seconds: dict[str, float] = {}  # of an event of each kind, lately
        self._seen: dict[str, float] = {}  # when something last happened in a session
        self._answers: dict[str, tuple[str, int]] = {}  # event -> session, bytes; oldest first
        self._told: defaultdict[str, float] = defaultdict(float)
        self.limit(ServerSettings())

    def limit(self, settings: ServerSettings) -> None:
        """How much may wait, in all and of one visitor."""
        self._size, self._of_one = settings.queue_size, settings.visitor_searches

    def start(self) -> None:
        """Begin to work."""
        super().start()
        run_coro_in_background(self._sweep_regularly)

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Put an event in its place; raises HTTPException if it is refused."""
        session, fn = body.session_hash, self.blocks.fns[body.fn_index]
        refused = self.refusal(fn, request, session)
        if refused is None:
            done, event_id, state = await super().push(body, request, username)
            if done:
                self._place(self.event_ids_to_events[event_id])
                self._seen[body.session_hash] = time.monotonic()
            return done, event_id, state
        if body.simple_format or self._unread(session) >= _UNREAD:
            raise HTTPException(refused.status, refused.sentence, dict(refused.headers))
        self._seen[session] = time.monotonic()
        return True, await self._tell(Event(session, fn, request, username), refused.sentence), "success"

    def refusal(self, fn: Any, request: Request, session: str | None) -> RefusedError | None:
        """Why another event is not taken, if it is not."""
        if refused := refusal_of(request.scope):
            return refused
        me = _whose(request, session)
        mine = sum(_who(event) == me for event in list(self.event_ids_to_events.values()))
        queue = self.event_queue_per_concurrency_id.get(fn.concurrency_id)
        waiting = len(queue.queue) if queue else 0
        if visitor_of(request.scope) and mine >= self._of_one:
            METRICS.refused.labels("visitor_searches").inc()
            again = self._wait(queue, mine)
            return RefusedError(429, strings.TOO_MANY.format(most=self._of_one, seconds=again), _after(again))
        # Whoever has nothing waiting finds a place even if others have filled theirs.
        if waiting >= self._size + (0 if mine else self._size // 4):
            METRICS.refused.labels("queue_full").inc()
            again = self._wait(queue, waiting)
            return RefusedError(503, strings.BUSY.format(seconds=again), _after(again))
        return None

    async def process_events(self, events: list[Event], batch: bool, begin_time: float, fn: Any) -> None:
        """Answer events, and note how long that took."""
        start = time.monotonic()
        try:
            await super().process_events(events, batch, begin_time, fn)
        finally:
            took = time.monotonic() - start
            before = self._seconds.get(fn.concurrency_id, took)
            self._seconds[fn.concurrency_id] = before + 0.1 * (took - before)
            for event in events:
                self._seen[event.session_hash] = time.monotonic()

    def send_message(self, event: Event, event_message: Any) -> None:
        """Keep a message for a client; the oldest answers go where all of them become too large."""
        super().send_message(event, event_message)
        if not isinstance(event_message, ProcessCompletedMessage) or not event.alive:
            return
        self._answers[event._id] = event.session_hash, len(orjson.dumps(event_message.output, default=str))
        size = sum(size for _, size in self._answers.values())
        for old, (session, its) in list(self._answers.items())[:-1]:
            if size <= _MOST_KEPT:
                break
            size -= its
            del self._answers[old]
            self._forget(session, old)

    def compute_analytics_summary(self, records: Any) -> Any:
        """Nothing: Gradio would sort all events since the start with pandas after each one."""
        return self.cached_event_analytics_summary

    def broadcast_estimations(self, concurrency_id: str, after: int | None = None) -> None:
        """Tell events their place in the queue, all of them at most twice a second: each gets a message each time."""
        now = time.monotonic()
        if after is None and now - self._told[concurrency_id] < _SHOWN:
            return
        self._told[concurrency_id] = now if after is None else self._told[concurrency_id]
        super().broadcast_estimations(concurrency_id, after)

    def sweep(self, now: float | None = None) -> None:
        """Forget sessions of which nothing is left, and answers that nobody has fetched in time.

        `now` is a time of the monotonic clock.
        """
        busy = {event.session_hash for event in self.event_ids_to_events.values()}
        oldest = (time.monotonic() if now is None else now) - KEPT
        for session in [*self.pending_event_ids_session, *self.pending_messages_per_session]:
            waits, late = self.pending_event_ids_session.get(session), self._seen.get(session, 0.0) < oldest
            if session not in busy and (late or waits == set()):
                self._drop(session)
        waiting = {event for events in self.pending_event_ids_session.values() for event in events}
        self._answers = {event: kept for event, kept in self._answers.items() if event in waiting}
        known = busy | self.pending_event_ids_session.keys() | self.pending_messages_per_session.keys()
        self._seen = {session: when for session, when in self._seen.items() if session in known}

    def _forget(self, session: str, event_id: str) -> None:
        """Forget the messages of one event, if nobody has fetched them."""
        self.pending_event_ids_session.get(session, set()).discard(event_id)
        messages = self.pending_messages_per_session.get(session)
        for _ in range(0 if messages is None else messages.qsize()):
            message = messages.get_nowait()
            if message.event_id != event_id:
                messages.put_nowait(message)

    def _drop(self, session: str) -> None:
        """Forget the messages of a session, and its events that are over."""
        ids = {event._id for event in self.event_ids_to_events.values() if event.session_hash == session}
        if ids:
            self.pending_event_ids_session[session] = ids
            self.pending_messages_per_session[session] = asyncio.Queue()
        else:
            self.pending_event_ids_session.pop(session, None)
            self.pending_messages_per_session.pop(session, None)

    async def _sweep_regularly(self) -> None:
        while not self.stopped:
            self.sweep()
            await asyncio.sleep(_SWEEP)

    def _place(self, event: Event) -> None:
        """Move an event that was put last to where it is its visitor's turn: everybody's first before any second."""
        queue: list[Event] = self.event_queue_per_concurrency_id[event.concurrency_id].queue
        if not queue or queue[-1] is not event:
            return
        turns: defaultdict[str, int] = defaultdict(int)
        rounds = []
        for other in queue:
            turns[_who(other)] += 1
            rounds.append(turns[_who(other)])
        place = next((at for at, turn in enumerate(rounds) if turn > rounds[-1]), len(queue) - 1)
        queue.insert(place, queue.pop())

    def _wait(self, queue: EventQueue | None, ahead: int) -> int:
        """Whole seconds in which so many events will be answered, as far as can be told."""
        if queue is None:
            return 1
        each: float = self._seconds.get(queue.concurrency_id, 1.0) / (queue.concurrency_limit or self.max_thread_count)
        return min(_LONGEST, max(1, math.ceil(each * ahead)))

    def _unread(self, session: str) -> int:
        messages = self.pending_messages_per_session.get(session)
        return 0 if messages is None else int(messages.qsize())

    async def _tell(self, event: Event, sentence: str) -> str:
        """Answer an event with a sentence, without that it waits; returns its id."""
        session = event.session_hash
        async with self.pending_message_lock:
            if session not in self.pending_messages_per_session:
                self.pending_messages_per_session[session] = asyncio.Queue()
            self.pending_event_ids_session.setdefault(session, set()).add(event._id)
        output = {"error": sentence, "title": strings.BUSY_TITLE, "visible": True, "duration": 10}
        self.send_message(event, ProcessCompletedMessage(output=output, success=False, title=strings.BUSY_TITLE))
        return str(event._id)


def _who(event: Event) -> str:
    """Whose turn an event takes."""
    return _whose(event.request, None if event.session_hash == event._id else event.session_hash)


def _whose(request: Request, session: str | None) -> str:
    """A visitor; or of those who cannot be told apart, a session, or all who have none."""
    return visitor_of(request.scope) or f"session {session or ''}"


def _after(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}
