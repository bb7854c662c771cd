"""What one cell of a list stands for: a local file, an http(s) address, or the picture itself as base64."""

from __future__ import annotations

import base64
import binascii
import os
import posixpath
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from retrieval.errors import short
from retrieval.sources.base import RawImage
from retrieval.sources.lists.fetch import Fetcher
from retrieval.sources.originals import original_in

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_DATA_URI = re.compile(r"data:[^,]*?(?P<base64>;base64)?,", re.IGNORECASE)
# The first letters of JPEG, PNG, GIF, WebP, TIFF, BMP, AVIF and HEIC in base64.
_PICTURE = re.compile(r"[/_]9j[/_]|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|Qk[0-3]|AAAA.{4,6}Z0eX|AAAA.{2,6}ZnR5c")
_LETTERS = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_SHORTEST = 64  # letters of a picture in base64
_NOT_OWN = "it points outside the data set; only files inside it are read"


@dataclass(frozen=True)
class Place:
    """Where the cells of a source point from."""

    root: str
    """The folder that paths are relative to: a path, or `hf://datasets/owner/name@commit`."""
    fetch: Fetcher
    is_own: bool
    """Whether the user wrote the list, so that its paths may lead anywhere. A stranger's stay inside `root`."""
    is_base64: bool = False
    """Whether every cell is the picture itself, as base64."""

    def resolve(self, cell: str, raw: RawImage) -> RawImage:
        """The row `raw` with the picture that its cell stands for, or with the problem why there is none.

        `source` becomes what the cell says, relative to `root` if it lies inside, and without user name and password;
        for base64, it stays.
        """
        text = cell.strip()
        if not text:
            return replace(raw, problem="the cell is empty")
        if found := _DATA_URI.match(text):
            body = text[found.end() :]
            return _decoded(raw, body if found["base64"] else None)
        if self.is_base64 or _is_base64(text):
            return _decoded(raw, text)
        found = _SCHEME.match(text)
        scheme = found["scheme"].lower() if found else ""
        if scheme in ("http", "https"):
            return replace(raw, source=without_user(text), path=text, fetch=self.fetch)
        if scheme == "file":
            parts = urlsplit(text)
            if parts.netloc not in ("", "localhost"):
                return replace(raw, source=text, problem=f"it lies on another computer, {parts.netloc}")
            cell = unquote(parts.path)
        elif scheme and not (self.root.startswith("hf://") and text.startswith(f"{self.root}/")):
            problem = f"{scheme}:// is not fetched, only http and https" if self.is_own else _NOT_OWN
            return replace(raw, source=without_user(text), problem=problem)
        path = self._local(cell)
        source = cell.strip().removeprefix(f"{self.root}/")
        original = original_in(path, self.root)
        return replace(raw, source=source, path=path, problem=_NOT_OWN if path is None else None, original=original)

    def at(self, name: str) -> str:
        """The place of a path in the list."""
        if self.root.startswith("hf://"):
            return name if name.startswith(f"{self.root}/") else f"{self.root}/{name}"
        return os.path.join(self.root, name)  # noqa: PTH118 - a Path takes three times as long, for each row

    def _local(self, name: str) -> str | None:
        """The file that a path names, also if its blanks, letters or slashes are written in another way."""
        if self.root.startswith("hf://"):
            own = not name.startswith("/") and "::" not in name and ".." not in name.split("/")
            return self.at(name.strip()) if own else None
        path, trimmed = self.at(name), name.strip()
        if not os.path.lexists(path):
            path = self._alike(trimmed)
        if self.is_own or Path(path).resolve().is_relative_to(Path(self.root).resolve()):
            return path
        return None

    def _alike(self, trimmed: str) -> str:
        names = [trimmed, unicodedata.normalize("NFC", trimmed), unicodedata.normalize("NFD", trimmed)]
        names += [posixpath.normpath(trimmed.replace("\\", "/"))]
        return next((path for one in names if os.path.lexists(path := self.at(one))), self.at(trimmed))


def without_user(address: str) -> str:
    """An address without the user name and password in it.

    >>> without_user("https://ann:secret@example.org/1.jpg")
    'https://example.org/1.jpg'
    """
    if "@" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return re.sub(r"//[^/@]*@", "//", address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else address


def _is_base64(text: str) -> bool:
    return len(text) >= _SHORTEST and _PICTURE.match(text) is not None and _LETTERS.fullmatch(text) is not None


def _decoded(raw: RawImage, text: str | None) -> RawImage:
    if text is None:
        return replace(raw, problem="the data: address is not base64")
    try:
        letters = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
        data = base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError):
        return replace(raw, problem=f"the text is not base64: {short(text, 40)}")
    return replace(raw, data=data)
