"""Pictures for the page: thumbnails of the gallery as files, and small JPEGs of what visitors upload.

A thumbnail is written once, when it is first shown, and served as it is, without encoding it again. An upload is always
encoded again, as it may be in a format that browsers do not show.
"""

from __future__ import annotations

import base64
import tempfile
from functools import lru_cache
from pathlib import Path

import gradio as gr
from PIL import Image

from retrieval.images.gallery import Gallery
from retrieval.images.open import open_image, thumbnail_jpeg

PREVIEW = 480  # pixels of the longer side


class ThumbnailFiles:
    """The thumbnails of a gallery in a folder of this process, which Gradio serves and which ends with it."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._folder = tempfile.TemporaryDirectory(prefix="lookalike-")
        self._path = Path(self._folder.name).resolve()
        gr.set_static_paths([self._path])

    def path(self, row: int) -> Path:
        """The file of a row's thumbnail."""
        # Named by its number: an id comes from a file that somebody else may have made.
        path = self._path / f"{row}.jpg"
        if not path.exists():
            with tempfile.NamedTemporaryFile(dir=self._path, delete=False) as file:
                file.write(self._gallery.thumbnail(row))
            Path(file.name).rename(path)  # whole at once: another visitor may ask for it at this moment
        return path

    def url(self, row: int, root: str) -> str:
        """Where a client finds a row's thumbnail; `root` is the address of the app."""
        return f"{root}/gradio_api/file={self.path(row)}"

    def publish(self, name: str, content: bytes) -> str:
        """Serve another picture of the artifact, a plot of its evaluation; returns its URL."""
        path = self._path / name
        path.write_bytes(content)
        return f"./gradio_api/file={path}"

    @staticmethod
    @lru_cache(maxsize=128)
    def preview(path: str, side: int = PREVIEW) -> str:
        """A visitor's picture as a data URL, upright and at most `side` pixels a side; raises ImageError."""
        return data_url(open_image(path, at_least=side), side)


def data_url(picture: Image.Image, side: int = PREVIEW) -> str:
    """A picture, at most `side` pixels a side, as a data URL."""
    jpeg = thumbnail_jpeg(picture, side)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
