"""A worker: the ordinary server, behind its supervisor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from typing import Any, NoReturn, TextIO

from retrieval.errors import LookalikeError, first_line
from retrieval.images.door.workers.apart import share_workers
from retrieval.ui.following import page_of
from retrieval.ui.server.connections.limits import ConnectionLimits, room_for
from retrieval.ui.server.launch import Server
from retrieval.ui.server.several.behind import Behind
from retrieval.ui.server.several.job import Job
from retrieval.ui.server.stop import leave

STOP = "stop"
"""The line in which a supervisor asks a worker to finish what it has, and end."""


def work(channel: socket.socket) -> NoReturn:
    """Do the job that comes by the channel, until told to stop, or until the supervisor has ended."""
    lines = channel.makefile("r", encoding="utf-8")
    _tell(channel, pid=os.getpid())
    try:
        _serve(channel, lines, Job.from_json(lines.readline()))
    except (LookalikeError, OSError) as error:
        _tell(channel, error=str(error))
    except Exception as error:  # whatever Gradio or another library raises is one sentence too
        said = f"the page could not be started: {type(error).__name__}: {first_line(error)}"
        _tell(channel, error=said)
    leave()


def _serve(channel: socket.socket, lines: TextIO, job: Job) -> None:
    room_for(ConnectionLimits())  # the process that listens may have as many connections to this one as visitors to it
    share_workers(job.workers)
    with Server(job.settings, behind=Behind(job.secret)) as server:
        threading.Thread(target=_obey, args=(lines, server, job.pictures), name="supervisor", daemon=True).start()
        with page_of(job.shown, job.commit, job.pictures, aloud=job.first) as app:
            app.app_id = job.app_id
            server.show(app, quiet=True)
            commit = app.live.now.artifact.commit
            _tell(channel, port=app.server_port, commit=commit, tools=bool(app.mcp_server))
            server.wait()


def _obey(lines: TextIO, server: Server, pictures: str) -> None:
    """Stop when told to, and at once if the supervisor has ended."""
    for line in lines:
        if line.strip() == STOP:
            os.kill(os.getpid(), signal.SIGTERM)
    server.clean()
    shutil.rmtree(pictures, ignore_errors=True)
    os._exit(1)


def _tell(channel: socket.socket, **said: Any) -> None:
    channel.sendall(json.dumps(said).encode() + b"\n")
