"""`serve --workers N`: listen, start the workers, pass requests on until told to stop."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from retrieval.console import WHOLE, Stopping, say
from retrieval.errors import LookalikeError
from retrieval.files.held import PICTURES, HeldFolder
from retrieval.files.system import cores
from retrieval.images.door.files import MAX_BYTES
from retrieval.ui import strings
from retrieval.ui.server.connections.guard import guarded
from retrieval.ui.server.listen import UVICORN, address_of, listen, wait_until_up
from retrieval.ui.server.settings import ServerSettings
from retrieval.ui.server.several.crew import Crew
from retrieval.ui.server.several.job import Job, Shown
from retrieval.ui.server.several.passing.router import Router
from retrieval.ui.server.stop import tell
from retrieval.ui.server.surroundings import reach_this_machine

_LOOK = 0.1
_FOR_ANSWERS = WHOLE - 1.0  # seconds from the signal until those that have not ended yet are ended


def serve_several(shown: Shown, settings: ServerSettings, workers: int, stopping: Stopping) -> bool:
    """Serve the page of an artifact with so many processes; False if that ended without being asked to.

    Raises LookalikeError if the address cannot be listened on, if this system cannot fork a process, or with the
    sentence of a worker that cannot be started.
    """
    if not hasattr(os, "fork"):
        raise LookalikeError("--workers needs a system that can fork processes, such as Linux or macOS; omit it here.")
    if workers > (found := cores()):
        say(strings.MANY_WORKERS.format(workers=workers, cores=found))
    share = _share(settings, workers)
    reach_this_machine()
    pictures = HeldFolder(Path(tempfile.gettempdir()), PICTURES)
    job = Job(shown, share, secrets.token_urlsafe(24), secrets.randbits(63), str(pictures.path), workers)
    # Before there is a thread, or a socket that its processes would keep open.
    crew = Crew(job, max(1, found // workers))

    def clean() -> None:
        crew.kill()
        pictures.close()

    try:
        listener = listen(settings)
        address = address_of(listener)
        with _loop(Router(crew, settings), listener, settings) as front:
            front.wait_for(crew.begin())
            front.router.complete = True
            stopping.serving(clean, strings.STOPPING_NOW)
            _say_where(address, settings, crew)
            while not stopping.asked.wait(_LOOK) and crew.failure is None and front.alive:
                pass
            if stopping.asked.is_set():
                front.wait_for(crew.stop(), _FOR_ANSWERS)
    finally:
        clean()
        _close_tunnels(settings)
    if crew.failure is not None:
        raise crew.failure
    return stopping.asked.is_set()


def _share(settings: ServerSettings, workers: int) -> ServerSettings:
    """The settings of each worker. Raises LookalikeError if its part of the uploads has no room for a large picture."""
    if settings.uploads // workers < MAX_BYTES:
        raise LookalikeError(
            f"--uploads {settings.uploads // 2**20} is divided among {workers} processes, and each needs room for the "
            f"largest picture: give at least {workers * MAX_BYTES // 2**20}."
        )
    return replace(settings, uploads=settings.uploads // workers)


class _Front:
    """The event loop that listens, in a thread of its own: signals are for the main one."""

    def __init__(self, router: Router, listener: Any, settings: ServerSettings) -> None:
        self.router = router
        self._loop = asyncio.new_event_loop()
        config = uvicorn.Config(router, forwarded_allow_ips=settings.forwarders, **UVICORN)
        listener = guarded(listener, config, settings.connections)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()
        wait_until_up(self._server, self._thread, listener)

    @property
    def alive(self) -> bool:
        """Whether it still listens."""
        return self._thread.is_alive()

    def wait_for(self, work: Coroutine[Any, Any, None], seconds: float = 1e9) -> None:
        """Run `work` in the loop, for so long at most. A signal may end the wait by its exception."""
        future, end = asyncio.run_coroutine_threadsafe(work, self._loop), time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                with suppress(TimeoutError):
                    return future.result(_LOOK)  # not longer at once: signals are handled in between
        finally:
            future.cancel()

    def close(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        self._thread.join(timeout=3)

    def _run(self, listener: Any) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve([listener]))


@contextmanager
def _loop(router: Router, listener: Any, settings: ServerSettings) -> Iterator[_Front]:
    front = _Front(router, listener, settings)
    try:
        yield front
    finally:
        front.close()


def _say_where(address: str, settings: ServerSettings, crew: Crew) -> None:
    tell(strings.RUNNING.format(address=address), to=sys.stdout)
    public = None
    if settings.share:
        from retrieval.ui.server.launch import open_tunnel

        parts = urlsplit(address)
        public = open_tunnel(parts.hostname or "127.0.0.1", parts.port or 80)
    if crew.ready and crew.ready[0].about["tools"]:
        tell(strings.RUNNING_TOOLS.format(address=public or address), to=sys.stdout)


def _close_tunnels(settings: ServerSettings) -> None:
    if settings.share:
        from retrieval.ui.server.launch import close_tunnels

        close_tunnels()
