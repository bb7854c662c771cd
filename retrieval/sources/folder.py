"""Folders of images, with class folders and metadata files (`imagefolder` conventions)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any

from datasets.data_files import SPLIT_KEYWORDS
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

from retrieval.errors import SourceError
from retrieval.sources import columns
from retrieval.sources import datasets as origins
from retrieval.sources.base import RawImage, Source

_METADATA = frozenset(FolderBasedBuilder.METADATA_FILENAMES)
_PART_OF = {keyword: str(part) for part, keywords in SPLIT_KEYWORDS.items() for keyword in keywords}


def part_of_split(split: str) -> str | None:
    """The part that a split's name stands for: `train`, `validation` or `test`; None for any other name.

    >>> [part_of_split(name) for name in ("training", "Val", "dev", "eval", "extra")]
    ['train', 'validation', 'validation', 'test', None]
    """
    return _PART_OF.get(split.lower())


def is_image_folder(folder: Path, config: str | None) -> bool:
    """Whether to read a folder for its images rather than as a dataset.

    A folder with parquet files is a dataset, unless they are image metadata or belong to an artifact inside it. A
    folder for which a configuration is requested is a dataset too: only a dataset card declares configurations.
    """

    def in_artifact(path: Path) -> bool:
        return path.parent != folder and (path.parent / "manifest.json").is_file()

    if config or not folder.is_dir():
        return False
    return not any(p.suffix == ".parquet" and p.name not in _METADATA and not in_artifact(p) for p in _files(folder))


def image_folder(folder: Path, label_column: str | None, split: str | None) -> Source:
    """A folder of images, where class folders give labels *and* metadata columns give attributes.

    `datasets` supports only one of them at a time, drops labels if files lie at different depths, reads only files
    named `test` if there is one, and judges by file extension. So it reads the metadata first, then all the images;
    remaining files are passed on too, and the decoder judges them by content.
    """
    root = folder.resolve()
    options: dict[str, Any] = {"data_dir": escape(str(root))}
    folders = split_folders(root)
    if split is None:
        options["data_files"] = {"train": "**"}  # everything as one split
    elif folders:  # by name: `datasets` skips folders with other names, `Val` and `Training` included
        options["data_files"] = {part: [f"{escape(name)}/**" for name in names] for part, names in folders.items()}
    plain = origins.load_builder(str(folder), "imagefolder", drop_metadata=True, drop_labels=True, **options)
    streams = [origins.streams(str(folder), plain, split)]
    features: dict[str, Any] = {}
    described = origins.load_builder(str(folder), "imagefolder", **options)
    if any(Path(file).name in _METADATA for files in described.config.data_files.values() for file in files):
        streams.insert(0, origins.streams(str(folder), described, split))
        features = dict(next(iter(streams[0].values())).features)
    image = columns.image_column(str(folder), features, None) if features else "image"
    features.pop(image, None)
    label = columns.label_column(str(folder), features, label_column) if features or label_column else None
    kept = columns.kept_columns(features, label)

    def found() -> Iterator[tuple[str, Mapping[str, Any]]]:
        archives = set()
        for stream in (stream for splits in streams for stream in splits.values()):
            for row in origins.read(str(folder), stream):
                path = (row.get(image) or row.get("image") or {}).get("path") or ""
                archives.add(path.rpartition("::")[2])
                yield path, row
        for file in files:
            if str(file) not in archives:
                yield str(file), {}

    def rows() -> Iterator[RawImage]:
        seen = {""}  # a metadata row without a file name
        for path, row in found():
            if path in seen or Path(path).name in _METADATA:
                continue
            seen.add(path)
            source = _as_text(path.replace(str(root) + "/", "", 1))
            own = columns.label_text(row.get(label), features[label]) if label else None
            values = {new: columns.attribute_value(row.get(column), kind) for new, (column, kind) in kept.items()}
            yield RawImage(source, own or _class_folder(source), values, path=path)

    places = [""] if split is None else [name for part in split.split("+") for name in folders.get(part, [])]
    files = [path for place in places for path in _files(root, place) if path.name not in _METADATA]
    if not files and places:
        raise SourceError(f"{folder} is empty: it contains no file that could be an image.")
    known = bool(places) and not any(path.suffix.lower() == ".zip" for path in files)
    fingerprint, total = origins.fingerprint(described, split, label), len(files) if known else None
    classes, about = () if label else _empty_folders(root), origins.about_local(root)
    return Source(rows, columns.attribute_schema(kept), fingerprint, total, classes, about)


def _as_text(path: str) -> str:
    """A path as text that can be written and printed, even if its bytes are not UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def split_folders(root: Path) -> dict[str, list[str]]:
    """Split -> the folders with its images; empty if the folders are classes, not splits."""
    found: dict[str, list[str]] = {part: [] for part in dict.fromkeys(_PART_OF.values())}
    for name in sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        found.setdefault(part_of_split(name) or name, []).append(name)
    are_splits = found["train"] and (found["validation"] or found["test"])
    return {part: names for part, names in found.items() if names} if are_splits else {}


def _files(root: Path, folder: str = "") -> Iterator[Path]:
    """The visible files below a folder, or below one of its subfolders, sorted."""
    for path in sorted((root / folder).rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def _empty_folders(root: Path) -> tuple[str, ...]:
    """Names of the empty folders: classes declared without an image."""
    return tuple(sorted({path.name for path in root.rglob("*") if path.is_dir() and not any(path.iterdir())}))


def _class_folder(source: str) -> str | None:
    inner = source.removeprefix("zip://").split("::")[0] if source.startswith("zip://") else source
    return Path(inner).parent.name or None
