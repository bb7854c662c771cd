"""Whether a worker still answers: one that hangs does not end by itself."""

from __future__ import annotations

import asyncio

from retrieval.ui.server.several.behind import HEADER

_PAUSE = 10.0  # seconds between two questions
_PATIENCE = 30.0  # seconds for an answer: a busy machine is slow, and a worker that starts is not asked yet


async def until_silent(port: int, secret: str) -> None:
    """Ask the worker at this port for its health again and again; returns when it has not answered."""
    while True:
        await asyncio.sleep(_PAUSE)
        try:
            await asyncio.wait_for(_ask(port, secret), _PATIENCE)
        except (TimeoutError, OSError):
            return


async def _ask(port: int, secret: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        headers = f"Host: 127.0.0.1:{port}\r\nConnection: close\r\n{HEADER.decode()}: {secret}\r\n"
        writer.write(f"GET /health HTTP/1.1\r\n{headers}\r\n".encode())
        await writer.drain()
        await reader.readline()  # any answer will do
    finally:
        writer.close()
