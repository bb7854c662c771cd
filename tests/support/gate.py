"""A port in front of a real server: it can fall silent, close, and open again, while the server knows nothing of it."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread


class Gate:
    """Passes on what comes to `port`, while it is open."""

    def __init__(self, target: tuple[str, int] | Path) -> None:
        """`target` is an address, or the path of a Unix socket."""
        self._target = target
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._flows, self._closed = Event(), False
        self._ends: list[socket.socket] = []
        self.passed = 0
        """Bytes that came from clients."""
        self._flows.set()
        Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Accept, and answer nothing."""
        self._flows.clear()

    def close(self) -> None:
        """End all connections, and each new one at once."""
        self._closed = True
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()
        self._flows.set()

    def open(self) -> None:
        """Pass on again."""
        self._closed = False
        self._flows.set()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._door.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            if self._closed:
                client.close()
                continue
            if isinstance(self._target, Path):
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._target))
            else:
                server = socket.create_connection(self._target)
            self._ends += [client, server]
            Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, start: socket.socket, end: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := start.recv(65_536):
                self.passed += len(data) if counted else 0
                self._flows.wait()
                end.sendall(data)
        for each in (start, end):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
