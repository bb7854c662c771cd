"""The file of an exported network, opened once: what is checked is what an engine reads."""

from __future__ import annotations

import os
from pathlib import Path

from retrieval.errors import EncoderError

_MOST_AT_ONCE = 2**31 - 2**12  # bytes that Linux reads in one call


class NetworkFile:
    """A file that stays the same one if another takes its place, also for a forked child, which reads it again."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        """`name` is what errors call it, if that is not the name of the path."""
        self.name = name or path.name
        self._file = path.open("rb")
        self._found = self._state()

    @property
    def size(self) -> int:
        """In bytes."""
        return self._found[0]

    @property
    def descriptor(self) -> int:
        """Of the open file."""
        return self._file.fileno()

    def read(self) -> bytes:
        """All of it."""
        if not hasattr(os, "pread"):
            self._file.seek(0)
            return self._file.read()
        parts, at = [], 0  # the position in the file is shared with children
        while part := os.pread(self._file.fileno(), _MOST_AT_ONCE, at):
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def source(self) -> str | bytes:
        """What an engine can read: a path that leads to this very file or, where there is none, its bytes."""
        path = f"/dev/fd/{self._file.fileno()}"
        if not Path(path).exists():
            return self.read()
        self._file.seek(0)  # on macOS, whoever opens that path reads on from here
        return path

    def loaded(self) -> None:
        """An engine has read it; raises EncoderError if it was written to since it was opened."""
        if self._state() != self._found:
            raise EncoderError(f"{self.name} was changed while it was read: open it again.")
        if not hasattr(os, "fork"):  # no child reads it, and on Windows, a file that is open could not be replaced
            self._file.close()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns
