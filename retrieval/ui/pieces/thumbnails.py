"""Pictures for the page: thumbnails of the gallery as files, and small JPEGs of what visitors upload.

A thumbnail is written once, when it is first shown, and served as it is, without encoding it again. An upload is always
encoded again, as it may be in a format that browsers do not show.
"""

from __future__ import annotations

import base64
import tempfile
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2s
from pathlib import Path
from secrets import token_hex
from typing import Any

import gradio as gr
from PIL import Image

from retrieval.errors import LookalikeError
from retrieval.files.held import PICTURES, HeldFolder
from retrieval.files.storing import storing
from retrieval.images.door.views import View, within
from retrieval.images.gallery import Gallery
from retrieval.images.open import open_views, thumbnail_jpeg

_FILES = "/gradio_api/file="
PREVIEW = 480  # pixels of the longer side


class PictureFolder:
    """A folder that Gradio serves: one of this process, which ends with it, or one that several share."""

    def __init__(self, shared: Path | str | None = None) -> None:
        """Raises LookalikeError if the folder for temporary files cannot be written."""
        self._held: HeldFolder | None = None
        if shared is None:
            place = Path(tempfile.gettempdir())
            with storing(place, LookalikeError):
                self._held = HeldFolder(place, PICTURES)
        self.path = self._held.path if self._held else Path(str(shared)).resolve()
        gr.set_static_paths([self.path])

    def close(self) -> None:
        """Delete the folder, unless others share it."""
        if self._held is not None:
            self._held.close()

    def write(self, name: str, content: bytes) -> Path | None:
        """The path of a file with this content; None if it cannot be written.

        It is whole at once: another visitor may ask for it at this moment.
        """
        path = self.path / name
        if path.exists():
            return path
        new = self.path / f".{token_hex(8)}"
        try:
            new.write_bytes(content)
            new.replace(path)
        except OSError:
            with suppress(OSError):
                new.unlink()
            return None
        return path


class ThumbnailFiles:
    """The thumbnails of a gallery as files; galleries may share a folder."""

    def __init__(self, gallery: Gallery, folder: PictureFolder | None = None) -> None:
        self._gallery = gallery
        self._folder = folder or PictureFolder()
        self._names: tuple[Any, Any] = gallery.table["id"], gallery.table["sha256"]

    def url(self, row: int, root: str) -> str:
        """Where a client finds a row's thumbnail; `root` is the address of the app.

        While the disk is full, the thumbnail itself, as a data URL.
        """
        # A hash, as an id comes from a file that somebody else may have made. The same image has the same file in each
        # gallery, so what an open page shows stays right after an update.
        name = blake2s(repr([column[row].as_py() for column in self._names]).encode(), digest_size=16).hexdigest()
        there = self._folder.path / f"{name}.jpg"
        if there.exists():
            return f"{root}{_FILES}{there}"
        content = self._gallery.thumbnail(row)
        path = self._folder.write(there.name, content)
        return _as_data(content, "jpeg") if path is None else f"{root}{_FILES}{path}"

    def publish(self, name: str, content: bytes) -> str:
        """Serve another picture of the artifact, a plot of its evaluation; returns its URL."""
        path = self._folder.write(f"{blake2s(content, digest_size=16).hexdigest()}-{name}", content)
        return _as_data(content, Path(name).suffix[1:]) if path is None else f".{_FILES}{path}"

    @staticmethod
    @lru_cache(maxsize=128)
    def preview(path: str, side: int = PREVIEW) -> str:
        """A visitor's picture as a data URL, upright and at most `side` pixels a side; raises ImageError."""
        return data_url(open_views(path, [View(resize=within(side))], at_least=side)[0], side)


def data_url(picture: Image.Image, side: int = PREVIEW) -> str:
    """A picture, at most `side` pixels a side, as a data URL."""
    return _as_data(thumbnail_jpeg(picture, side), "jpeg")


def _as_data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
