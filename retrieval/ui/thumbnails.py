"""Thumbnails as files: written once, when they are first shown, and served as they are, not encoded again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gradio as gr

from retrieval.errors import QueryError
from retrieval.gallery import Gallery


class Thumbnails:
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

    def row_of(self, path: str) -> int:
        """The row whose thumbnail that file is; raises QueryError for any other file."""
        name = Path(path).stem
        if Path(path).parent != self._path or not name.isdigit() or int(name) >= len(self._gallery):
            raise QueryError("that is not a picture of this gallery; reload the page.")
        return int(name)

    def url(self, row: int, root: str) -> str:
        """Where a client finds a row's thumbnail; `root` is the address of the app."""
        return f"{root}/gradio_api/file={self.path(row)}"
