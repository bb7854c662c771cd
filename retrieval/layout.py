"""Layout: the names of the files that an artifact is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PLOT = re.compile(r"plots/\w[\w.-]*\.png")  # no way out of the folder


@dataclass(frozen=True)
class Layout:
    """The names of an artifact's files, and of its folder of pictures, which not every artifact has."""

    config: str = CONFIG_FILE
    weights: str = WEIGHTS_FILE
    index: str = "index.faiss"
    gallery: str = "gallery.parquet"
    metrics: str = "metrics.json"
    card: str = "README.md"
    manifest: str = "manifest.json"
    plots: str = "plots"

    def names(self) -> list[str]:
        """The files that every artifact has, the manifest last."""
        return [getattr(self, item.name) for item in fields(self) if item.name != "plots"]

    def own(self) -> list[str]:
        """All that belongs to an artifact in its folder."""
        return [*self.names(), self.plots]

    def is_file(self, name: str) -> bool:
        """Whether an artifact can have a file of that name, relative to its folder."""
        return name in self.names() or bool(PLOT.fullmatch(name))

    def plots_in(self, folder: Path) -> list[str]:
        """What lies in the folder of pictures, as `plots/NAME`, hidden files (a Mac's .DS_Store) excepted."""
        if (folder / self.plots).is_file():
            return [self.plots]  # somebody's file of that name
        return sorted(f"{self.plots}/{path.name}" for path in (folder / self.plots).glob("[!.]*"))


LAYOUT = Layout()
