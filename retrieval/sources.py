"""Sources: where the images of a gallery come from, all read through `datasets`, streamed, in a fixed order.

A source is a folder of images (`imagefolder` conventions), a parquet file, a data-set folder, or a data set on the
Hub by its name. Images are handed on undecoded: only `retrieval.images` decodes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder

from retrieval import columns
from retrieval.errors import ImageError, SourceError, first_line
from retrieval.images import read_bytes

_METADATA = frozenset(FolderBasedBuilder.METADATA_FILENAMES)
_HELD_OUT = frozenset({"validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"})
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class RawImage:
    """One image of a source, not yet decoded."""

    source: str
    label: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    data: bytes | None = None
    path: str | None = None

    def read(self) -> bytes:
        """The bytes of the image; raises ImageError where there are none, or too many."""
        if self.data is not None:
            return read_bytes(self.data)
        if not self.path:
            raise ImageError("the row has no image")
        if "://" not in self.path:
            return read_bytes(self.path)
        try:
            with fsspec.open(self.path, "rb") as file:  # inside a zip file, or on the Hub
                return read_bytes(file)
        except ImageError:
            raise
        except Exception as error:  # zip files and the network each have their own kinds
            raise ImageError(f"{Path(self.path).name} cannot be read: {first_line(error)}") from error


@dataclass(frozen=True)
class Source:
    """Images in a fixed order, and what is known of them before the first is read."""

    rows: Callable[[], Iterator[RawImage]]
    schema: pa.Schema  # of the attributes
    fingerprint: str  # of the files' names, sizes and times, or of the revision on the Hub
    total: int | None  # how many rows there are, where that is known
    classes: tuple[str, ...] = ()  # labels that the source declares, whether it has an image of each or not


def open_source(
    name: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str | None = None,
) -> Source:
    """Open a folder, a parquet file, a data-set folder or a data set on the Hub; all its splits, or those named.

    `split` is a name, or several in the order wanted (`train+validation`). Raises
    SourceError where there is no such thing, no image in it, or no such column or split.
    """
    if not name:
        raise SourceError("no source was named: give a folder, a parquet file, or a data set.")
    path = Path(name).expanduser()
    if path.is_dir() and not _is_data_set(path):
        return _image_folder(path, label_column, split)
    root = None if not path.exists() else path if path.is_dir() else path.parent
    return _data_set(name, _builder_of(name, path), root, image_column, label_column, split)


def split_names(name: str) -> tuple[str, ...]:
    """The splits of a source, `("train", "validation")` for one; a folder of images has those that its folders name.

    Raises SourceError where there is no such source.
    """
    path = Path(name).expanduser()
    if not path.is_dir() or _is_data_set(path):
        return tuple(_streams(name, _builder_of(name, path), None))
    folders = {entry.name.lower() for entry in path.iterdir() if entry.is_dir()}
    if "train" not in folders or folders.isdisjoint(_HELD_OUT):  # `datasets` goes by the names of files, too
        return ("train",)
    return tuple(str(split) for split in _builder(name, "imagefolder", data_dir=escape(str(path))).config.data_files)


def _builder_of(name: str, path: Path) -> Any:
    """The `datasets` builder of whatever is not a folder of images."""
    if path.is_dir():
        # `datasets` takes a folder's name for a pattern; what it reads by an escaped one, it reads without its card.
        plain = escape(str(path)) == str(path)
        return _builder(name, str(path)) if plain else _builder(name, "parquet", data_dir=escape(str(path)))
    if path.is_file() and path.suffix == ".parquet":
        return _builder(name, "parquet", data_files=escape(str(path)))
    if path.exists():
        raise SourceError(f"{name} is neither a folder nor a parquet file.")
    if _HUB_NAME.fullmatch(name):
        return _builder(name, name)
    raise SourceError(f"there is no {name} here, and that cannot be the name of a data set on the Hub.")


def _is_data_set(folder: Path) -> bool:
    """Whether it holds parquet files, apart from metadata of images and from the galleries of artifacts in it."""

    def in_artifact(path: Path) -> bool:
        return path.parent != folder and (path.parent / "manifest.json").is_file()

    return any(p.suffix == ".parquet" and p.name not in _METADATA and not in_artifact(p) for p in _files(folder))


def _builder(name: str, path: str, **options: Any) -> Any:
    try:
        return datasets.load_dataset_builder(path, **options)
    except Exception as error:  # datasets and the Hub client each raise their own kinds
        raise SourceError(
            f"{name} is no folder or parquet file here, and cannot be read as a data set: {first_line(error)}"
        ) from error


def _streams(name: str, builder: Any, split: str | None) -> dict[str, Any]:
    try:
        # Undecoded: a broken picture, in whatever column, is no reason to stop.
        streams = {k: s.decode(False) if s.features else s for k, s in builder.as_streaming_dataset().items()}
    except Exception as error:  # a data set's files can be wrong in as many ways as there are formats
        raise SourceError(f"{name} cannot be read: {first_line(error)}") from error
    if split is None:
        return streams
    for part in split.split("+"):
        if part not in streams:
            raise SourceError(f"{name} has no split {part!r}; it has {', '.join(streams)}.")
    return {part: streams[part] for part in split.split("+")}


def _data_set(
    name: str, builder: Any, root: Path | None, image_column: str | None, label_column: str | None, split: str | None
) -> Source:
    streams = _streams(name, builder, split)
    features = dict(next(iter(streams.values())).features or {})
    image = columns.image_column(name, features, image_column)
    label = columns.label_column(name, features, label_column)
    kept = columns.kept_columns({column: kind for column, kind in features.items() if column != image}, label)

    def rows() -> Iterator[RawImage]:
        for split_name, stream in streams.items():
            for number, row in enumerate(_in_words(name, stream)):
                value = row[image] if isinstance(row[image], dict) else {"bytes": row[image]}
                yield RawImage(
                    source=value.get("path") or f"{split_name}/{number}",
                    label=columns.label_text(row[label], features[label]) if label else None,
                    attributes={
                        new: columns.attribute_value(row.get(column), kind) for new, (column, kind) in kept.items()
                    },
                    data=value.get("bytes"),
                    path=_own_path(value.get("path"), root),
                )

    fingerprint = _fingerprint(builder, split, image, label)
    classes = tuple(getattr(features.get(label or ""), "names", None) or ())
    return Source(rows, columns.attribute_schema(kept), fingerprint, _total(builder, streams), classes)


def _own_path(path: str | None, root: Path | None) -> str | None:
    """The path that a row names, where it lies in the data set: else a row could name any file of this machine."""
    if not path or root is None:
        return path if path and path.startswith("hf://") else None
    whole = (root / path).resolve()
    return str(whole) if whole.is_relative_to(root.resolve()) else None


def _image_folder(folder: Path, label_column: str | None, split: str | None) -> Source:
    """A folder of images: class folders are labels *and* metadata columns are attributes.

    `datasets` takes the one or the other, drops the labels where files lie at different depths, reads only files
    named `test` where there is one, and goes by the ends of the names. So it reads the metadata, then all
    the images, and what is left over is handed on too, for the decoder to judge by content.
    """
    root = folder.resolve()
    options: dict[str, Any] = {"data_dir": escape(str(root))}
    if split is None:
        options["data_files"] = {"train": "**"}  # one split of everything
    plain = _builder(str(folder), "imagefolder", drop_metadata=True, drop_labels=True, **options)
    streams = [_streams(str(folder), plain, split)]
    features: dict[str, Any] = {}
    described = _builder(str(folder), "imagefolder", **options)
    if any(Path(file).name in _METADATA for files in described.config.data_files.values() for file in files):
        streams.insert(0, _streams(str(folder), described, split))
        features = dict(next(iter(streams[0].values())).features)
    image = columns.image_column(str(folder), features, None) if features else "image"
    features.pop(image, None)
    label = columns.label_column(str(folder), features, label_column) if features or label_column else None
    kept = columns.kept_columns(features, label)

    def found() -> Iterator[tuple[str, Mapping[str, Any]]]:
        archives = set()
        for stream in (stream for splits in streams for stream in splits.values()):
            for row in _in_words(str(folder), stream):
                path = (row.get(image) or row.get("image") or {}).get("path") or ""
                archives.add(path.rpartition("::")[2])
                yield path, row
        for file in _files(root) if split is None else ():
            if str(file) not in archives:
                yield str(file), {}

    def rows() -> Iterator[RawImage]:
        seen = {""}  # a row of the metadata that names no file
        for path, row in found():
            if path in seen or Path(path).name in _METADATA:
                continue
            seen.add(path)
            source = _as_text(path.replace(str(root) + "/", "", 1))
            own = columns.label_text(row.get(label), features[label]) if label else None
            values = {new: columns.attribute_value(row.get(column), kind) for new, (column, kind) in kept.items()}
            yield RawImage(source, own or _class_folder(source), values, path=path)

    files = [path for path in _files(root) if path.name not in _METADATA]
    if not files:
        raise SourceError(f"{folder} is empty: there is no file in it that could be an image.")
    known = split is None and not any(path.suffix.lower() == ".zip" for path in files)
    fingerprint, total = _fingerprint(described, split, label), len(files) if known else None
    return Source(rows, columns.attribute_schema(kept), fingerprint, total, () if label else _empty_folders(root))


def _in_words(name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except Exception as error:  # as above: what is wrong with a file may show only when its turn comes
        raise SourceError(f"{name} cannot be read: {first_line(error)}") from error


def _fingerprint(builder: Any, *choices: str | None) -> str:
    """A hash of the files, with sizes and times, or with the revision they are of on the Hub, and of the choices."""
    digest = hashlib.sha256(repr((builder.config.name, choices)).encode())
    for split, files in (builder.config.data_files or {}).items():
        stats = [Path(file).stat() for file in files if "://" not in file]
        local = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        digest.update(repr((split, list(files), local, files.origin_metadata)).encode())
    return digest.hexdigest()


def _as_text(path: str) -> str:
    """A path in letters that can be written and printed: its bytes need not be UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def _empty_folders(root: Path) -> tuple[str, ...]:
    """Folders that hold nothing: classes that somebody meant to have."""
    return tuple(sorted({path.name for path in root.rglob("*") if path.is_dir() and not any(path.iterdir())}))


def _class_folder(source: str) -> str | None:
    inner = source.removeprefix("zip://").split("::")[0] if source.startswith("zip://") else source
    return Path(inner).parent.name or None


def _total(builder: Any, streams: Mapping[str, Any]) -> int | None:
    """How many rows the splits have, from the data set's own card or from the ends of local parquet files."""
    known = builder.info.splits or {}
    if all(name in known and known[name].num_examples for name in streams):
        return int(sum(known[name].num_examples for name in streams))
    files = [Path(file) for name in streams for file in (builder.config.data_files or {}).get(name, [])]
    if files and all(file.suffix == ".parquet" and file.is_file() for file in files):
        return int(sum(pq.read_metadata(file).num_rows for file in files))
    return None


__all__ = ["RawImage", "Source", "open_source", "split_names"]
