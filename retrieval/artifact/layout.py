"""Layout: the file names in an artifact."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from retrieval.encoders.files import CONFIG_FILE, EXPORTED_FILE, WEIGHTS_FILE
from retrieval.files.names import DEVICES
from retrieval.images.stored.names import is_unfinished, shard_of

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
    plots, map, text model.

    A large gallery is not one file `gallery.parquet`, but several shards, `gallery-00000-of-00008.parquet`.
    """

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
        """All top-level names that belong to an artifact, shards of a gallery among them."""
        return _Own([*self.names(), self.vectors, Path(self.exported).parts[0], self.plots, self.map, self.text])

    def is_file(self, name: str) -> bool:
        """Whether `name`, a path relative to the folder, is a valid file of an artifact."""
        return name in self.names() or self.is_extra(name) or self.is_shard(name)

    def is_shard(self, name: str) -> bool:
        """Whether `name` is a valid name for a shard of the gallery."""
        return shard_of(name, Path(self.gallery).stem) is not None

    def gallery_of(self, names: Iterable[str]) -> list[str]:
        """The files of the gallery among these names, in row order.

        Raises ValueError unless they are the one file, or all shards of one gallery.
        """
        found = sorted(name for name in names if name == self.gallery or self.is_shard(name))
        shards = [shard_of(name, Path(self.gallery).stem) for name in found]
        if found != [self.gallery] and (not found or shards != [(number, len(found)) for number in range(len(found))]):
            raise ValueError(f"no {self.gallery}, nor all of its shards" if found != [] else f"no {self.gallery}")
        return found

    def gallery_in(self, folder: Path) -> list[str]:
        """The files in the folder that have names of a gallery or of its shards."""
        found = (path.name for path in folder.glob("*.parquet"))
        return sorted(name for name in found if name == self.gallery or self.is_shard(name))

    def telling(self, folder: Path) -> list[str]:
        """The names of files by which a folder with a manifest is known to be an artifact, also a damaged one."""
        return [self.index, self.gallery, *self.gallery_in(folder)]

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


class _Own(list[str]):
    """Names that belong to an artifact; those of shards, finished or not, are too many to list."""

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        return isinstance(name, str) and (LAYOUT.is_shard(name) or is_unfinished(name, LAYOUT.gallery))


_NOT_ALL_HAVE = ("vectors", "exported", "plots", "map", "text", "text_index", "text_vectors")


def _inside(folder: Path, name: str) -> list[str]:
    if (folder / name).is_file():
        return [name]  # a file where a folder is expected
    return sorted(f"{name}/{path.name}" for path in (folder / name).glob("[!.]*"))


LAYOUT = Layout()
