"""Opening a source: a folder of images, a list, a parquet file, a dataset folder, or the name of a Hub dataset.

Images are passed on undecoded: only `retrieval.images.open` decodes.
"""

from __future__ import annotations

from retrieval.errors import SourceError
from retrieval.sources import datasets as origins
from retrieval.sources.base import Source
from retrieval.sources.folder import image_folder, is_image_folder, split_folders
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
    """Open a folder, a list, a parquet file, a dataset folder or a Hub dataset; all its splits, or those named.

    `label_level` says which folder is the label in a folder of images: 1 for those in the source itself, 2 for those
    inside them, and so on; by default, it is the innermost one that is a class. `split` is one name, or several in the
    desired order (`train+validation`). `config` is a configuration declared in the dataset card. `revision` is a
    branch, tag or commit on the Hub; `owner/name@revision` as the name also works. Only what is read is downloaded, all
    of it from one commit. With `allow_private`, addresses in private networks are fetched too. Raises SourceError if
    the source does not exist, contains no image, or lacks the requested column, label level, split, configuration or
    revision.
    """
    path = origins.find_local(name, revision)
    if path and is_image_folder(path, config):
        return image_folder(path, label_column, split, label_level)
    if label_level is not None:
        raise SourceError(f"{name} is no folder of images, so it has no label level: use a label column instead.")
    if path and is_list(path):
        if config:
            raise SourceError(f"{name} is a list and has no configurations: leave out {config!r}.")
        return image_list(path, image_column, label_column, split, allow_private=allow_private)
    origin = origins.open_origin(name, path, config, revision)
    is_own = path is not None and path.is_file()
    return data_set(origin, image_column, label_column, split, is_own=is_own, allow_private=allow_private)


def split_names(name: str, *, config: str | None = None, revision: str | None = None) -> tuple[str, ...]:
    """The splits of a source under their own names, for example `("train", "validation")`.

    A folder of images has splits if one subfolder's name means `train` and another's means `validation` or `test` (see
    `part_of_split`). Every other subfolder is then a split under its own name. Otherwise `train` is the only split.
    Those of a list are the values of its column `split`.

    Raises SourceError if the source does not exist.
    """
    path = origins.find_local(name, revision)
    if path and is_list(path):
        return list_splits(path)
    if path is None or not is_image_folder(path, config):
        return tuple(origins.streams(name, origins.open_origin(name, path, config, revision).builder, None))
    return tuple(split_folders(path)) or ("train",)


def pinned(name: str, *, config: str | None = None, revision: str | None = None) -> str:
    """A name that always refers to the same source: for a Hub dataset, the current commit is appended.

    Raises SourceError like `open_source`.
    """
    path = origins.find_local(name, revision)
    if path:
        return name
    about = origins.open_origin(name, path, config, revision).about
    return f"{about['name']}@{about['revision']}"
