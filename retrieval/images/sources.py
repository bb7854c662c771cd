"""Sources of gallery images, all read through `datasets`, streamed, in a fixed order.

A source is a folder of images (`imagefolder` conventions), a parquet file, a dataset folder, or the name of a Hub
dataset. Images are passed on undecoded: only `retrieval.images.open` decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from datasets.data_files import SPLIT_KEYWORDS
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

from retrieval.errors import ImageError, SourceError, first_line
from retrieval.images import columns
from retrieval.images import datasets as origins
from retrieval.images.open import MAX_BYTES, read_bytes

_METADATA = frozenset(FolderBasedBuilder.METADATA_FILENAMES)
_PART_OF = {keyword: str(part) for part, keywords in SPLIT_KEYWORDS.items() for keyword in keywords}


@dataclass(frozen=True)
class RawImage:
    """One undecoded image of a source."""

    source: str
    label: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    data: bytes | None = None
    path: str | None = None
    position: Any = None
    """Where `Source.rows` resumes after this image, as JSON values; None if rows can only be counted."""

    def read(self) -> bytes:
        """The bytes of the image; raises ImageError if there are none, or too many.

        Raises SourceError if the Hub does not deliver them: the image itself may be fine.
        """
        if self.data is not None:
            return read_bytes(self.data)
        if not self.path:
            raise ImageError("the row has no image")
        if "://" not in self.path:
            return read_bytes(self.path)
        try:
            with fsspec.open(self.path, "rb") as file:  # inside a zip file, or on the Hub
                data = file.read(MAX_BYTES + 1)
        except Exception as error:  # zip files and the network raise different exceptions
            if self.path.startswith("hf://") and not isinstance(error, FileNotFoundError):
                raise origins.source_error(self.source, error) from error
            raise ImageError(f"{Path(self.path).name} cannot be read: {first_line(error)}") from error
        return read_bytes(data)


@dataclass(frozen=True)
class Source:
    """Images in a fixed order, and what is known about them before the first one is read."""

    rows: Callable[..., Iterator[RawImage]]
    """`rows()` yields all images, `rows(position)` those after a `RawImage.position`. On resuming, at most the
    last two files before the position are read again."""
    schema: pa.Schema  # types of the attributes
    fingerprint: str  # of the file names, sizes and times, or of the Hub revision
    total: int | None  # number of rows, if known
    classes: tuple[str, ...] = ()  # labels that the source declares, with or without images
    about: Mapping[str, str] = field(default_factory=dict)  # name, config, revision, license; only what is known


def open_source(
    name: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> Source:
    """Open a folder, a parquet file, a dataset folder or a Hub dataset; all its splits, or those named.

    `split` is one name, or several in the desired order (`train+validation`). `config` is a configuration declared in
    the dataset card. `revision` is a branch, tag or commit on the Hub; `owner/name@revision` as the name also works.
    Only what is read is downloaded, all of it from one commit. Raises SourceError if the source does not exist,
    contains no image, or lacks the requested column, split, configuration or revision.
    """
    path = origins.find_local(name, revision)
    if path and _is_image_folder(path, config):
        return _image_folder(path, label_column, split)
    return _data_set(origins.open_origin(name, path, config, revision), image_column, label_column, split)


def split_names(name: str, *, config: str | None = None, revision: str | None = None) -> tuple[str, ...]:
    """The splits of a source under their own names, for example `("train", "validation")`.

    A folder of images has splits if one subfolder's name means `train` and another's means `validation` or `test` (see
    `part_of_split`). Every other subfolder is then a split under its own name. Otherwise `train` is the only split.

    Raises SourceError if the source does not exist.
    """
    path = origins.find_local(name, revision)
    if path is None or not _is_image_folder(path, config):
        return tuple(origins.streams(name, origins.open_origin(name, path, config, revision).builder, None))
    return tuple(_split_folders(path)) or ("train",)


def part_of_split(split: str) -> str | None:
    """The part that a split's name stands for: `train`, `validation` or `test`; None for any other name.

    >>> [part_of_split(name) for name in ("training", "Val", "dev", "eval", "extra")]
    ['train', 'validation', 'validation', 'test', None]
    """
    return _PART_OF.get(split.lower())


def pinned(name: str, *, config: str | None = None, revision: str | None = None) -> str:
    """A name that always refers to the same source: for a Hub dataset, the current commit is appended.

    Raises SourceError like `open_source`.
    """
    path = origins.find_local(name, revision)
    if path:
        return name
    about = origins.open_origin(name, path, config, revision).about
    return f"{about['name']}@{about['revision']}"


def _is_image_folder(folder: Path, config: str | None) -> bool:
    """Whether to read a folder for its images rather than as a dataset.

    A folder with parquet files is a dataset, unless they are image metadata or belong to an artifact inside it. A
    folder for which a configuration is requested is a dataset too: only a dataset card declares configurations.
    """

    def in_artifact(path: Path) -> bool:
        return path.parent != folder and (path.parent / "manifest.json").is_file()

    if config or not folder.is_dir():
        return False
    return not any(p.suffix == ".parquet" and p.name not in _METADATA and not in_artifact(p) for p in _files(folder))


def _data_set(origin: origins.Origin, image_column: str | None, label_column: str | None, split: str | None) -> Source:
    name, root = origin.name, origin.root
    streams = origins.streams(name, origin.builder, split)
    features = dict(next(iter(streams.values())).features or {})
    image = columns.image_column(name, features, image_column)
    label = columns.label_column(name, features, label_column)
    kept = columns.kept_columns({column: kind for column, kind in features.items() if column != image}, label)

    def rows(after: Any = None) -> Iterator[RawImage]:
        for position, row in _positions(name, streams, after):
            value = row[image] if isinstance(row[image], dict) else {"bytes": row[image]}
            numbered = f"{position['split']}/{position['number']}"
            yield RawImage(
                source=(value.get("path") or "").removeprefix(f"{root}/") or numbered,
                label=columns.label_text(row[label], features[label]) if label else None,
                attributes={
                    new: columns.attribute_value(row.get(column), kind) for new, (column, kind) in kept.items()
                },
                data=value.get("bytes"),
                path=_own_path(value.get("path"), root),
                position=position,
            )

    fingerprint, total = (
        origins.fingerprint(origin.builder, split, image, label),
        origins.total(origin.builder, streams),
    )
    classes = tuple(getattr(features.get(label or ""), "names", None) or ())
    return Source(rows, columns.attribute_schema(kept), fingerprint, total, classes, origin.about)


def _positions(name: str, streams: Mapping[str, Any], after: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each row after a position, preceded by its own: split, number in the split, and the state from `datasets`."""
    splits = list(streams)
    for split in splits[splits.index(after["split"]) if after else 0 :]:
        number, state = (after["number"], after["state"]) if after and after["split"] == split else (-1, None)
        streams[split].load_state_dict(state)
        for row in origins.read(name, streams[split]):
            number += 1
            yield {"split": split, "number": number, "state": streams[split].state_dict()}, row


def _own_path(path: str | None, root: str) -> str | None:
    """A row's path if it lies inside the dataset, else None: a row must not reach other files on this machine."""
    if not path:
        return None
    if root.startswith("hf://"):
        own = path.startswith(f"{root}/") and "::" not in path and ".." not in path.split("/")
        return path if own else None
    whole = Path(root, path).resolve()
    return str(whole) if whole.is_relative_to(Path(root).resolve()) else None


def _image_folder(folder: Path, label_column: str | None, split: str | None) -> Source:
    """A folder of images, where class folders give labels *and* metadata columns give attributes.

    `datasets` supports only one of them at a time, drops labels if files lie at different depths, reads only files
    named `test` if there is one, and judges by file extension. So it reads the metadata first, then all the images;
    remaining files are passed on too, and the decoder judges them by content.
    """
    root = folder.resolve()
    options: dict[str, Any] = {"data_dir": escape(str(root))}
    folders = _split_folders(root)
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


def _split_folders(root: Path) -> dict[str, list[str]]:
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


__all__ = ["RawImage", "Source", "open_source", "part_of_split", "pinned", "split_names"]
