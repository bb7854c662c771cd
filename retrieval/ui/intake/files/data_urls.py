"""Pictures inside the JSON of a tool call, as data URLs: written to a file as they come, which the JSON then names."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.types import Receive

from retrieval.images.door.files import MAX_BYTES
from retrieval.ui.intake.files.folder import Incoming, Uploads
from retrieval.ui.intake.json_body import MOST, TOO_LARGE, check_stated
from retrieval.ui.intake.refusing import RefusedError

_START = re.compile(rb'"image"\s*:\s*"data:[^",\\]{0,200};base64,')
_HELD_BACK = 400  # bytes that may be the beginning of a start
_MOST_STATED = MAX_BYTES * 4 // 3 + MOST
WRONG = "the data URL of the picture is not valid base64."
_LARGE = f"the picture is too large: at most {MAX_BYTES // 2**20} MiB are accepted."


class _Picture:
    """A file that receives base64."""

    def __init__(self, file: Incoming) -> None:
        self._file, self._left, self._size = file, b"", 0

    def write(self, text: bytes) -> None:
        text = self._left + text.replace(b"\\", b"")  # JSON may write a slash as \/
        whole = len(text) // 4 * 4
        self._left = text[whole:]
        try:
            content = binascii.a2b_base64(text[:whole], strict_mode=True)
        except binascii.Error as error:
            raise RefusedError(400, WRONG) from error
        self._size += len(content)
        if self._size > MAX_BYTES:
            raise RefusedError(413, _LARGE)
        self._file.write(content)

    @property
    def path(self) -> Path:
        return self._file.path

    def end(self) -> None:
        if self._left:
            raise RefusedError(400, WRONG)

    def keep(self) -> Path:
        return self._file.keep()

    def delete(self) -> None:
        self._file.delete()


class DataUrls:
    """Reads one body, and puts `name(path)` in place of the picture in it."""

    def __init__(self, uploads: Uploads, name: Callable[[Path], str]) -> None:
        self._uploads, self._name = uploads, name
        self._text, self._rest = bytearray(), b""
        self._picture: _Picture | None = None
        self._done: _Picture | None = None

    async def read(self, receive: Receive, headers: dict[bytes, bytes]) -> tuple[bytes, Path | None]:
        """The JSON, and the file of its picture if it has one.

        Raises RefusedError if the picture is over `MAX_BYTES`, the rest over 1 MiB, the base64 is wrong, or there is
        no room, and ConnectionError if the client hangs up. Then no file is left.
        """
        try:
            check_stated(headers, _MOST_STATED, TOO_LARGE)
            more = True
            while more:
                message: Any = await receive()
                if message["type"] != "http.request":
                    raise ConnectionError
                more = message.get("more_body", False)
                self._take(message.get("body", b""), last=not more)
                if len(self._text) > MOST:
                    raise RefusedError(413, TOO_LARGE)
            if self._picture is not None:
                raise RefusedError(400, WRONG)
            return bytes(self._text), self._done.keep() if self._done else None
        except BaseException:
            for picture in (self._picture, self._done):
                if picture is not None:
                    picture.delete()
            raise

    def _take(self, body: bytes, last: bool) -> None:
        rest = self._rest + body
        if self._picture is not None:
            rest = self._go_on(self._picture, rest)
        if self._picture is None and self._done is None and (found := _START.search(rest)):
            self._text += rest[: rest.index(b'"data:', found.start())]
            self._picture = _Picture(self._uploads.new("picture"))
            rest = self._go_on(self._picture, rest[found.end() :])
        if self._picture is not None:
            self._rest = b""
            return
        held = 0 if last or self._done else _HELD_BACK
        self._text += rest[: max(len(rest) - held, 0)]
        self._rest = rest[max(len(rest) - held, 0) :]

    def _go_on(self, picture: _Picture, text: bytes) -> bytes:
        """Write what belongs to the picture; returns what follows it."""
        inside, end, after = text.partition(b'"')
        picture.write(inside)
        if not end:
            return b""
        picture.end()
        self._text += json.dumps(self._name(picture.path)).encode()
        self._picture, self._done = None, picture
        return after
