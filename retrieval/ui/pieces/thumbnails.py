"""Pictures for the page: thumbnails of the gallery as files, and small JPEGs of what visitors upload.

A thumbnail is written once, when it is first shown, and served as it is, without encoding it again. An upload is always
encoded again, as it may be in a format that browsers do not show.
"""

from __future__ import annotations

import base64
import tempfile
from functools import lru_cache
from hashlib import blake2s
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from retrieval.images.door.views import View, within
from retrieval.images.gallery import Gallery
from retrieval.images.open import open_views, thumbnail_jpeg

PREVIEW = 480  # pixels of the longer side


class PictureFolder:
    """A folder that Gradio serves: one of this process, which ends with it, or one that several share."""

    def __init__(self, shared: Path | str | None = None) -> None:
        if shared is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lookalike-")
        self.path = Path(self._folder.name if shared is None else shared).resolve()
        gr.set_static_paths([self.path])


class ThumbnailFiles:
    """The thumbnails of a gallery as files; galleries may share a folder."""

    def __init__(self, gallery: Gallery, folder: PictureFolder | None = None) -> None:
        self._gallery = gallery
        self._folder = folder or PictureFolder()
        self._path = self._folder.path
        self._names: tuple[Any, Any] = gallery.table["id"], gallery.table["sha256"]

    def path(self, row: int) -> Path:
        """The file of a row's thumbnail."""
        # A hash, as an id comes from a file that somebody else may have made. The same image has the same file in each
        # gallery, so what an open page shows stays right after an update.
        name = blake2s(repr([column[row].as_py() for column in self._names]).encode(), digest_size=16).hexdigest()
        path = self._path / f"{name}.jpg"
        if not path.exists():
            with tempfile.NamedTemporaryFile(dir=self._path, delete=False) as file:
                file.write(self._gallery.thumbnail(row))
            Path(file.name).replace(path)  # whole at once: another visitor may ask for it at this moment
        return path

    def url(self, row: int, root: str) -> str:
        """Where a client finds a row's thumbnail; `root` is the address of the app."""
        return f"{root}/gradio_api/file={self.path(row)}"

    def publish(self, name: str, content: bytes) -> str:
        """Serve another picture of the artifact, a plot of its evaluation; returns its URL."""
        path = self._path / f"{blake2s(content, digest_size=16).hexdigest()}-{name}"
        path.write_bytes(content)
        return f"./gradio_api/file={path}"

    @staticmethod
    @lru_cache(maxsize=128)
    def preview(path: str, side: int = PREVIEW) -> str:
        """A visitor's picture as a data URL, upright and at most `side` pixels a side; raises ImageError."""
        return data_url(open_views(path, [View(resize=within(side))], at_least=side)[0], side)


def data_url(picture: Image.Image, side: int = PREVIEW) -> str:
    """A picture, at most `side` pixels a side, as a data URL."""
    jpeg = thumbnail_jpeg(picture, side)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
