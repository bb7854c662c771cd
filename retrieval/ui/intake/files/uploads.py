"""Uploads: read from a form as they come, counted, and written into the folder of uploads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from anyio import to_thread
from gradio.routes import file_upload_statuses
from gradio_client.utils import strip_invalid_filename_characters
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Message, Receive

from retrieval.images.door.files import MAX_BYTES
from retrieval.ui.intake.files.folder import Incoming, Uploads
from retrieval.ui.intake.json_body import check_stated
from retrieval.ui.intake.refusing import RefusedError

_MOST_FILES = 16
_TOLD = 30.0  # seconds that a page can still ask for the progress of an upload that is done
MOST = 4 * MAX_BYTES
"""Bytes of one request."""

_FILE_TOO_LARGE = f"a file is too large: at most {MAX_BYTES // 2**20} MiB are accepted."
_TOO_LARGE = "the upload is too large: at most {most} MiB are accepted at once. Upload fewer files at a time."
_INCOMPLETE = "the upload is incomplete."


class Form:
    """The form of one upload; `read` gives the paths of its files, or leaves none."""

    def __init__(self, uploads: Uploads, headers: dict[bytes, bytes], progress: str | None) -> None:
        """`progress` is the id under which a page asks how far it is.

        Raises RefusedError for what the headers already show to be wrong.
        """
        kind, options = parse_options_header(headers.get(b"content-type"))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 200:
            raise RefusedError(415, "files are uploaded as multipart/form-data, in a field called files.")
        self._most = min(MOST, uploads.most)  # more than there is room for would have to wait for itself
        self._too_large = _TOO_LARGE.format(most=self._most // 2**20)
        check_stated(headers, self._most, self._too_large)
        self._uploads, self._progress = uploads, progress
        self._files: list[Incoming] = []
        self._taken, self._ended = 0, False
        self._pending: list[tuple[Incoming, bytes]] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._value,
                "on_header_end": self._header,
                "on_headers_finished": self._begun,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )
        self._begin()

    async def read(self, receive: Receive) -> list[str]:
        """The paths of the files, once all of them are there; raises RefusedError, and then none is."""
        try:
            await self._read(receive)
            return [str(file.keep()) for file in self._files]
        except MultipartParseError as error:
            self._discard()
            raise RefusedError(400, "the upload cannot be read as multipart/form-data.") from error
        except BaseException:  # also if the task is cancelled
            self._discard()
            raise

    async def _read(self, receive: Receive) -> None:
        more = True
        while more:
            message: Message = await receive()
            if message["type"] != "http.request":  # the client has hung up
                raise RefusedError(400, _INCOMPLETE)
            body, more = message.get("body", b""), message.get("more_body", False)
            self._taken += len(body)
            if self._taken > self._most:
                raise RefusedError(413, self._too_large)
            self._parser.write(body)
            if self._pending:
                await to_thread.run_sync(self._write)
        if not self._files:
            raise RefusedError(400, "the upload has no file: send at least one, in a field called files.")
        if not self._ended:
            raise RefusedError(400, _INCOMPLETE)

    def _write(self) -> None:
        for file, data in self._pending:
            file.write(data)
        self._pending.clear()

    def _discard(self) -> None:
        for file in self._files:
            file.delete()

    def _begin(self) -> None:
        self._size, self._name, self._said, self._disposition = 0, b"", b"", b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._said += data[start:end]  # of 8 headers and 4 KiB at most: the parser refuses more

    def _header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._said
        self._name, self._said = b"", b""

    def _begun(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            raise RefusedError(400, "the upload has a field that is no file.")
        if len(self._files) >= _MOST_FILES:
            raise RefusedError(413, f"at most {_MOST_FILES} files are accepted at once.")
        self._shown = options[b"filename"].decode("utf-8", "replace")
        self._files.append(self._uploads.new(_name_of(self._shown)))

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > MAX_BYTES:
            raise RefusedError(413, _FILE_TOO_LARGE)
        self._pending.append((self._files[-1], data[start:end]))
        if self._progress:
            file_upload_statuses.append(self._progress, self._shown, data[start:end])

    def _end(self) -> None:
        self._ended = True


async def with_progress(progress: str | None, work: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """Do the work of an upload; a page that asks for its progress is told its end too."""
    if progress is None:
        return await work()
    file_upload_statuses.track(progress)
    try:
        return await work()
    finally:
        file_upload_statuses.set_done(progress)
        asyncio.get_running_loop().call_later(_TOLD, file_upload_statuses.stop_tracking, progress)


def _name_of(given: str) -> str:
    """A name for a file, from that of a visitor."""
    name = str(strip_invalid_filename_characters(Path(given).name))
    return name if name.strip(". ") else "picture"
