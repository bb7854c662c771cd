"""Uploads: how many parts, how large, and with which headers, counted while they pass through to Gradio."""

from __future__ import annotations

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.formparsers import MultiPartException
from starlette.types import Message, Receive

from retrieval.images.door.files import MAX_BYTES
from retrieval.ui.intake.json_body import check_stated
from retrieval.ui.intake.refusing import RefusedError

_MOST_FILES = 16
MOST = 4 * MAX_BYTES
"""Bytes of one request."""
_HEADERS, _HEADER_BYTES = 8, 4096  # of one part

_FILE_TOO_LARGE = f"a file is too large: at most {MAX_BYTES // 2**20} MiB are accepted."
_TOO_LARGE = f"the upload is too large: at most {MOST // 2**20} MiB are accepted at once. Upload fewer files at a time."


class Upload:
    """The body of one upload; `receive` gives it on unchanged until something is wrong with it.

    It then raises MultiPartException, which makes Gradio delete what it has saved so far, and `error` says what to
    answer.
    """

    def __init__(self, receive: Receive, headers: dict[bytes, bytes]) -> None:
        """Raises RefusedError for what the headers already show to be wrong."""
        kind, options = parse_options_header(headers.get(b"content-type"))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 200:
            raise RefusedError(415, "files are uploaded as multipart/form-data, in a field called files.")
        check_stated(headers, MOST, _TOO_LARGE)
        self.error: RefusedError | None = None
        self._receive, self._taken, self._files = receive, 0, 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_bytes,
                "on_header_value": self._header_bytes,
                "on_header_end": self._header,
                "on_headers_finished": self._begun,
                "on_part_data": self._data,
            },
        )
        self._begin()

    async def receive(self) -> Message:
        """The next message of the server."""
        message = await self._receive()
        if message["type"] != "http.request":  # the client has hung up: Gradio would keep half a file for good
            raise self._wrong(RefusedError(400, "the upload is incomplete."))
        try:
            body = message.get("body", b"")
            self._taken += len(body)
            if self._taken > MOST:
                raise RefusedError(413, _TOO_LARGE)
            self._parser.write(body)
            if not message.get("more_body", False) and not self._files:
                raise RefusedError(400, "the upload has no file: send at least one, in a field called files.")
        except RefusedError as error:
            raise self._wrong(error) from error
        except MultipartParseError as error:
            raise self._wrong(RefusedError(400, "the upload cannot be read as multipart/form-data.")) from error
        return message

    def _wrong(self, error: RefusedError) -> MultiPartException:
        self.error = error
        return MultiPartException(error.sentence)

    def _begin(self) -> None:
        self._headers = self._header_size = self._size = 0
        self._field, self._name = b"", b""
        self._disposition = b""

    def _header_bytes(self, data: bytes, start: int, end: int) -> None:
        self._header_size += end - start
        self._disposition += data[start:end]
        if self._header_size > _HEADER_BYTES:
            raise RefusedError(400, f"a part of the upload has headers of more than {_HEADER_BYTES:,} bytes.")

    def _header(self) -> None:
        self._headers += 1
        if self._headers > _HEADERS:
            raise RefusedError(400, f"a part of the upload has more than {_HEADERS} headers.")

    def _begun(self) -> None:
        if b"filename" not in self._disposition.lower():
            raise RefusedError(400, "the upload has a field that is no file.")
        self._files += 1
        if self._files > _MOST_FILES:
            raise RefusedError(413, f"at most {_MOST_FILES} files are accepted at once.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > MAX_BYTES:
            raise RefusedError(413, _FILE_TOO_LARGE)
