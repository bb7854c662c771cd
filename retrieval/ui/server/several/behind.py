"""How a worker knows that a request comes from its supervisor, and from which visitor."""

from __future__ import annotations

import hmac
import json
import socket
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.ui.intake.refusing import RefusedError, refuse
from retrieval.ui.limits.visitors import note_refusal, refusal_of
from retrieval.ui.server.listen import BACKLOG, at_once
from retrieval.ui.server.watched.requests import QUIET

HEADER = b"x-lookalike-from"
"""The header that only the supervisor, and the worker itself, can set."""


def origin_of(secret: str, scope: Scope, quiet: bool = False) -> bytes:
    """The value of the header for a request that a visitor has made."""
    about: list[Any] = [scope.get("client"), scope.get("server"), scope.get("scheme", "http"), quiet]
    if refused := refusal_of(scope):  # an event, which the worker's queue answers
        about.append([refused.status, refused.sentence, dict(refused.headers)])
    return f"{secret} {json.dumps(about)}".encode()


@dataclass(frozen=True)
class Behind:
    """The place of a worker: nobody but the supervisor, who knows the secret, gets an answer."""

    secret: str

    @property
    def options(self) -> dict[str, Any]:
        """What uvicorn does differently: nobody but the supervisor connects, and it decides when a connection ends."""
        return {"proxy_headers": False, "timeout_keep_alive": 86_400, "h11_max_incomplete_event_size": 2**17}

    def listen(self) -> socket.socket:
        """A socket for the supervisor alone."""
        return at_once(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))

    @property
    def own_header(self) -> dict[str, str]:
        """What the worker's requests to itself carry."""
        return {HEADER.decode(): self.secret}

    def around(self, app: ASGIApp) -> ASGIApp:
        """The app, which sees each request as the supervisor has received it."""

        async def behind(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                given = next((value for name, value in scope["headers"] if name == HEADER), b"")
                secret, _, about = given.partition(b" ")
                if not hmac.compare_digest(secret, self.secret.encode()):
                    await refuse(RefusedError(403, "this port is for the server itself."), scope, receive, send)
                    return
                scope["headers"] = [each for each in scope["headers"] if each[0] != HEADER]
                if about:
                    client, server, scope["scheme"], scope[QUIET], *refused = json.loads(about)
                    scope["client"], scope["server"] = tuple(client) if client else None, tuple(server or ()) or None
                    if refused:
                        note_refusal(scope, RefusedError(*refused[0]))
            await app(scope, receive, send)

        return behind
