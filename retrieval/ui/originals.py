"""The originals of a gallery: links to them, and a route that serves those in a folder, and no other file.

A file is served only by the id of a row, only from below the folders given, and only if its content is the one that was
indexed: SHA-256 decides. So whatever an artifact says about its rows, it cannot name another file of this machine.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Semaphore
from urllib.parse import quote, unquote, urlsplit

from PIL import Image
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from retrieval.errors import QueryError, SourceError
from retrieval.images.door.checks.heif import is_heif
from retrieval.images.door.files import MAX_BYTES
from retrieval.images.door.formats import FORMATS
from retrieval.images.gallery import ORIGINAL, Gallery, Row, spread_rows
from retrieval.search import Hit
from retrieval.ui import strings
from retrieval.words import is_address

_AT_ONCE = 4  # files in memory
_LOOKED_AT = 100  # rows, to see whether a folder is the right one
_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # a JPEG with a second picture, which many phones write
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
}
_SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


def file_name(source: str) -> str:
    """The file name in a source: a path, an address, or `zip://path inside::path of the zip file`, or `tar://`."""
    if is_address(source):
        try:
            path = urlsplit(source).path
        except ValueError:  # an address that none can be, such as http://[x
            path = ""
        return unquote(path.rstrip("/").rpartition("/")[2]) or source
    inside = source.partition("://")[2].rpartition("::")[0] if source.startswith(("zip://", "tar://")) else source
    return Path(inside).name


class Originals:
    """Where originals are found: in these folders, in this order, or at the addresses that a gallery keeps."""

    def __init__(self, folders: Sequence[Path | str] = ()) -> None:
        """Raises SourceError for a folder that does not exist."""
        for folder in folders:
            if not Path(folder).expanduser().is_dir():
                raise SourceError(
                    f"no such folder: {folder}; --originals takes the folder that the artifact was built from."
                )
        self._folders = [Path(folder).expanduser().resolve() for folder in folders]
        self._free = Semaphore(_AT_ONCE)

    def link(self, gallery: Gallery, row: int, values: Row | Hit, root: str) -> str | None:
        """The address of the original of a row, `root` being the address of the app; None if it is not available."""
        place = _place(gallery, row, values.source)
        if place is None or is_address(place):
            return place
        if not self._folders or (ORIGINAL not in gallery.table.column_names and not self._is_there(place)):
            return None
        return f"{root}/original/{quote(values.id, safe='')}"

    def misplaced(self, gallery: Gallery) -> bool:
        """Whether folders are given, but none of the rows looked at has its original there."""
        rows = spread_rows(len(gallery), _LOOKED_AT)
        places = [_place(gallery, row, values.source) for row, values in zip(rows, gallery.take(rows), strict=True)]
        return bool(self._folders) and not any(place and self._is_there(place) for place in places)

    def routes(self, gallery: Callable[[], Gallery]) -> list[Route]:
        """The route that serves originals of what `gallery()` is at the time; none if no folder is given."""

        def serve(request: Request) -> Response:
            if not may_see(request):
                return _plain(401, strings.LOG_IN)
            return self.answer(gallery(), request.path_params["id"], request.headers.get("if-none-match", ""))

        return [Route("/original/{id}", serve)] if self._folders else []

    def answer(self, gallery: Gallery, image_id: str, known: str = "") -> Response:
        """The original of an image, or a sentence why there is none; `known` are the ETags that a client has."""
        try:
            row = gallery.row_of(image_id)
        except QueryError as error:
            return _plain(404, str(error))
        [values] = gallery.take([row])
        tag = f'"{values.sha256}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=3600", **_SAFE}
        place = _place(gallery, row, values.source)
        if place is None or is_address(place):
            return _plain(404, strings.ORIGINAL_NOT_KEPT)
        if tag in known:
            return Response(status_code=304, headers=headers)
        with self._free:
            return self._file(place, values.sha256, headers)

    def _file(self, place: str, sha256: str, headers: dict[str, str]) -> Response:
        status, why = 404, strings.ORIGINAL_MISSING
        for folder in self._folders:
            path = self._path(folder, place)
            if path is None:
                status, why = 403, strings.ORIGINAL_OUTSIDE
                continue
            data = _read(path)
            if data is None:
                continue
            if hashlib.sha256(data).hexdigest() != sha256:
                status, why = 410, strings.ORIGINAL_CHANGED
            elif kind := _type_of(data):
                name = quote(file_name(place), safe="")
                headers["Content-Disposition"] = f"inline; filename*=UTF-8''{name}"
                return Response(data, media_type=kind, headers=headers)
            else:
                status, why = 415, strings.ORIGINAL_NO_PICTURE
        return _plain(status, why.format(file=place))

    def _is_there(self, place: str) -> bool:
        return any((path := self._path(folder, place)) and path.is_file() for folder in self._folders)

    def _path(self, folder: Path, place: str) -> Path | None:
        """The file at a place in a folder; None if the place, or a link on the way, leads out of all the folders."""
        try:
            path = (folder / place).resolve()
        except (OSError, ValueError, RuntimeError):  # a loop of links, or a name that no file can have
            return None
        return path if any(map(path.is_relative_to, self._folders)) else None


def _place(gallery: Gallery, row: int, source: str) -> str | None:
    """Where a row's original lies: what the gallery keeps, or in one without that column, what its source may be."""
    if ORIGINAL in gallery.table.column_names:
        kept: str | None = gallery.table[ORIGINAL][row].as_py()
        return kept
    return None if "::" in source else source


def _read(path: Path) -> bytes | None:
    """The content of a regular file that a build would read; None if there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            return file.read() if stat.S_ISREG(about.st_mode) and about.st_size <= MAX_BYTES else None
    except OSError:
        return None


def _type_of(data: bytes) -> str | None:
    """The type of a picture by its content, None for anything else."""
    try:
        if is_heif(data):
            return _TYPES["HEIF"]
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _TYPES.get(image.format or "")
    except Exception:  # on malicious files Pillow raises almost anything
        return None


def may_see(request: Request) -> bool:
    """Whether the visitor has logged in, if the app was launched with `auth`."""
    app = request.app
    if getattr(app, "auth", None) is None:
        return True
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(app.tokens.get(request.cookies.get(name)) is not None for name in names)


def _plain(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence, status, headers={"Cache-Control": "no-store", **_SAFE})
