"""Layout: the names of the files that an artifact is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from retrieval.encoders.files import CONFIG_FILE, WEIGHTS_FILE

# No way out of the folder. An adapter's file would have transformers look for another model elsewhere.
PLOT = re.compile(r"plots/\w[\w.-]*\.png")
TEXT = re.compile(r"text/(?!adapter_)\w[\w.-]*\.(json|txt|model|safetensors|faiss)", re.ASCII)


@dataclass(frozen=True)
class Layout:
    """The names of an artifact's files; and of what not every artifact has: pictures, a map, a model for text."""

    config: str = CONFIG_FILE
    weights: str = WEIGHTS_FILE
    index: str = "index.faiss"
    gallery: str = "gallery.parquet"
    metrics: str = "metrics.json"
    card: str = "README.md"
    manifest: str = "manifest.json"
    plots: str = "plots"
    map: str = "map.npy"
    text: str = "text"
    text_index: str = "text/index.faiss"

    def names(self) -> list[str]:
        """The files that every artifact has, the manifest last."""
        return [getattr(self, item.name) for item in fields(self) if item.name not in _NOT_ALL_HAVE]

    def own(self) -> list[str]:
        """All that belongs to an artifact in its folder."""
        return [*self.names(), self.plots, self.map, self.text]

    def is_file(self, name: str) -> bool:
        """Whether an artifact can have a file of that name, relative to its folder."""
        return name in self.names() or self.is_extra(name)

    def is_extra(self, name: str) -> bool:
        """Whether that is the name of a file which an artifact may have, or not."""
        return name == self.map or bool(PLOT.fullmatch(name) or TEXT.fullmatch(name))

    def plots_in(self, folder: Path) -> list[str]:
        """What lies in the folder of pictures, as `plots/NAME`, hidden files (a Mac's .DS_Store) excepted."""
        return _inside(folder, self.plots)

    def text_in(self, folder: Path) -> list[str]:
        """What lies in the folder of the model for text, as `text/NAME`, hidden files excepted."""
        return _inside(folder, self.text)

    def extras_in(self, folder: Path) -> list[str]:
        """What lies where those files go that not every artifact has, whatever it is called."""
        map_ = [self.map] if (folder / self.map).exists() else []
        return [*self.plots_in(folder), *map_, *self.text_in(folder)]


_NOT_ALL_HAVE = ("plots", "map", "text", "text_index")


def _inside(folder: Path, name: str) -> list[str]:
    if (folder / name).is_file():
        return [name]  # somebody's file of that name
    return sorted(f"{name}/{path.name}" for path in (folder / name).glob("[!.]*"))


LAYOUT = Layout()
