"""Layout: the file names in an artifact."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from retrieval.encoders.files import CONFIG_FILE, EXPORTED_FILE, WEIGHTS_FILE
from retrieval.files.names import DEVICES

# No path may leave the folder. An adapter file would make transformers load another model from elsewhere.
# Not the names of devices: on Windows, writing to `plots/nul.png` writes nothing.
PLOT = re.compile(rf"plots/(?!(?i:{DEVICES})\.)\w[\w.-]*\.png")
TEXT = re.compile(
    rf"text/((?!adapter_|(?i:{DEVICES})\.)\w[\w.-]*\.(json|txt|model|safetensors|faiss)"
    r"|onnx/(text_model\.onnx|vision_model\.onnx|tokenizer\.json))",
    re.ASCII,
)


@dataclass(frozen=True)
class Layout:
    """The names of an artifact's files, including the optional ones: the vectors of a large index, exported network,
    plots, map, text model."""

    config: str = CONFIG_FILE
    weights: str = WEIGHTS_FILE
    index: str = "index.faiss"
    vectors: str = "index.safetensors"
    gallery: str = "gallery.parquet"
    metrics: str = "metrics.json"
    card: str = "README.md"
    manifest: str = "manifest.json"
    exported: str = EXPORTED_FILE
    plots: str = "plots"
    map: str = "map.npy"
    text: str = "text"
    text_index: str = "text/index.faiss"
    text_vectors: str = "text/index.safetensors"

    def names(self) -> list[str]:
        """The required files, with the manifest last."""
        return [getattr(self, item.name) for item in fields(self) if item.name not in _NOT_ALL_HAVE]

    def own(self) -> list[str]:
        """All top-level names that belong to an artifact."""
        return [*self.names(), self.vectors, Path(self.exported).parts[0], self.plots, self.map, self.text]

    def is_file(self, name: str) -> bool:
        """Whether `name`, a path relative to the folder, is a valid file of an artifact."""
        return name in self.names() or self.is_extra(name)

    def is_extra(self, name: str) -> bool:
        """Whether `name` is a valid name for an optional file."""
        return name in (self.vectors, self.map, self.exported) or bool(PLOT.fullmatch(name) or TEXT.fullmatch(name))

    def plots_in(self, folder: Path) -> list[str]:
        """The contents of the plots folder as `plots/NAME`, without hidden files such as .DS_Store."""
        return _inside(folder, self.plots)

    def exported_in(self, folder: Path) -> list[str]:
        """The contents of the exported network's folder as `onnx/NAME`, without hidden files."""
        return _inside(folder, Path(self.exported).parts[0])

    def text_in(self, folder: Path) -> list[str]:
        """The contents of the text model's folder as `text/NAME` and `text/onnx/NAME`, without hidden files."""
        found = _inside(folder, self.text)
        exported = f"{self.text}/onnx"
        return sorted([*(name for name in found if name != exported), *_inside(folder, exported)])

    def extras_in(self, folder: Path) -> list[str]:
        """Everything found where the optional files go, under valid names or not."""
        single = [name for name in (self.vectors, self.map) if (folder / name).exists()]
        return [*self.exported_in(folder), *self.plots_in(folder), *single, *self.text_in(folder)]


_NOT_ALL_HAVE = ("vectors", "exported", "plots", "map", "text", "text_index", "text_vectors")


def _inside(folder: Path, name: str) -> list[str]:
    if (folder / name).is_file():
        return [name]  # a file where a folder is expected
    return sorted(f"{name}/{path.name}" for path in (folder / name).glob("[!.]*"))


LAYOUT = Layout()
