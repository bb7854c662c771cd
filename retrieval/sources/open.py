"""Opening a source: a folder of images, an archive, a list, a parquet file, a dataset folder, or a Hub dataset.

Images are passed on undecoded: only `retrieval.images.open` decodes.
"""

from __future__ import annotations

from pathlib import Path

from retrieval.errors import SourceError
from retrieval.sources import datasets as origins
from retrieval.sources.archives.data_files import settle_files
from retrieval.sources.archives.find import find_tree
from retrieval.sources.archives.patterns import is_pattern
from retrieval.sources.archives.saved import is_saved, open_saved
from retrieval.sources.base import Source
from retrieval.sources.folder import image_folder
from retrieval.sources.folders.labels import split_folders
from retrieval.sources.lists.source import image_list, is_list, list_splits
from retrieval.sources.table import data_set


def open_source(
    name: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    label_level: int | None = None,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    allow_private: bool = False,
) -> Source:
    """Open a folder, an archive, a list, a parquet file, a dataset folder or a Hub dataset; all splits, or those named.

    An archive is a zip or tar file, or a pattern for several in one folder: `shard-{000..009}.tar`.

    `label_level` says which folder is the label in a folder or archive of images: 1 for those in the source itself, 2
    for those inside them, and so on; by default, it is the innermost one that is a class. `split` is one name, or
    several in the desired order (`train+validation`). `config` is a configuration declared in the dataset card.
    `revision` is a branch, tag or commit on the Hub; `owner/name@revision` as the name also works. Only what is read is
    downloaded, all of it from one commit. With `allow_private`, addresses in private networks are fetched too.

    Raises SourceError if the source does not exist, contains no image, or lacks the requested column, label level,
    split, configuration or revision.
    """
    if tree := find_tree(name, config=config, revision=revision):
        if image_column is not None:
            raise _without_columns(name, image_column)
        return image_folder(tree, label_column, split, label_level)
    if label_level is not None:
        raise SourceError(f"{name} is no folder of images, so it has no label level: use a label column instead.")
    path = origins.find_local(name, revision)
    if path and is_list(path):
        if config:
            raise SourceError(f"{name} is a list and has no configurations: leave out {config!r}.")
        return image_list(path, image_column, label_column, split, allow_private=allow_private)
    origin = _open_origin(name, path, config, revision)
    is_own = path is not None and path.is_file()
    return data_set(origin, image_column, label_column, split, is_own=is_own, allow_private=allow_private)


def split_names(name: str, *, config: str | None = None, revision: str | None = None) -> tuple[str, ...]:
    """The splits of a source under their own names, for example `("train", "validation")`.

    A folder or archive of images has splits if one subfolder's name means `train` and another's means `validation` or
    `test` (see `part_of_split`). Every other subfolder is then a split under its own name. An archive in the folder
    counts by its name: `train-000.tar` belongs to `train`. Otherwise `train` is the only split. Those of a
    list are the values of its column `split`.

    Raises SourceError if the source does not exist.
    """
    if tree := find_tree(name, config=config, revision=revision):
        return tuple(split_folders(tree)) or ("train",)
    path = origins.find_local(name, revision)
    if path and is_list(path):
        return list_splits(path)
    return tuple(origins.streams(name, _open_origin(name, path, config, revision).builder, None))


def pinned(name: str, *, config: str | None = None, revision: str | None = None) -> str:
    """A name that always refers to the same source: for a Hub dataset, the current commit is appended.

    Raises SourceError like `open_source`.
    """
    path = origins.find_local(name, revision)
    if path or is_pattern(name):
        return name
    about = _open_origin(name, path, config, revision).about
    return f"{about['name']}@{about['revision']}"


def _without_columns(name: str, image_column: str) -> SourceError:
    return SourceError(
        f"{name} is a folder or archive of images, so it has no image column: leave out {image_column!r}. A metadata "
        "file names its files in the column 'file_name'; a list can be the source itself."
    )


def _open_origin(name: str, path: Path | None, config: str | None, revision: str | None) -> origins.Origin:
    if path and is_saved(path):
        return open_saved(name, path, config)
    origin = origins.open_origin(name, path, config, revision)
    if path:
        settle_files(name, origin.builder)
    return origin
