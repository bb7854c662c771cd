"""Which sources are files of images: a folder, an archive, or a pattern that names several archives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retrieval.errors import SourceError
from retrieval.sources import datasets as origins
from retrieval.sources.archives import tars
from retrieval.sources.archives.files import File, Found, Tree
from retrieval.sources.archives.listing import is_archive, list_archive
from retrieval.sources.archives.patterns import is_pattern, matching
from retrieval.sources.archives.saved import is_saved
from retrieval.sources.base import LeftOut
from retrieval.sources.folders.walk import is_artifact, opened, walk
from retrieval.sources.metadata import NAMES
from retrieval.words import counted


def find_tree(name: str, *, config: str | None = None, revision: str | None = None) -> Tree | None:
    """The files of a folder of images or of archives; None if the source is a dataset.

    A folder with parquet or arrow files is a dataset, unless they are image metadata or belong to an artifact inside
    it. A folder for which a configuration is requested is one too: only a dataset card declares configurations.

    Raises SourceError if the source cannot be listed.
    """
    path = origins.find_local(name, revision)
    if path is None and is_pattern(name):
        return _several(name, config)
    if path is None or (path.is_dir() and (config or is_saved(path))):
        return None
    try:
        if path.is_dir() and is_artifact(path):
            raise SourceError(f"{name} is an artifact, not a collection of images: name the source it was built from.")
        if path.is_dir():
            found = _without_tables_of_shards(walk(path.resolve()))
            about = origins.about_local(path)
            return None if _is_dataset(found) else Tree(name, path.resolve(), opened(path, found), about)
        if path.name.lower().endswith(tars.UNREADABLE):
            raise SourceError(f"{name} is an archive of a kind that cannot be read: unpack it, and name the folder.")
        return _one(name, path, config) if is_archive(path.name) else None
    except PermissionError as error:
        raise SourceError(f"{name} cannot be read: no permission. Allow it with `chmod -R u+rX {name}`.") from error


def _without_tables_of_shards(found: Found) -> Found:
    """Without the tables that img2dataset writes beside tar files: `00000.parquet` says what is in `00000.tar`."""
    shards = {file.key.removesuffix(".tar") for file in found.files if file.suffix == ".tar"}
    tables = [f for f in found.files if f.suffix == ".parquet" and f.key.removesuffix(".parquet") in shards]
    if not tables:
        return found
    reason = "the tables of the tar files beside them, which describe their images themselves"
    left_out = [*found.left_out, LeftOut(f"{counted(len(tables), 'file')} (.parquet)", reason, len(tables))]
    return replace(found, files=[file for file in found.files if file not in tables], left_out=left_out)


def _is_dataset(found: Found) -> bool:
    data = (file for file in found.files if file.suffix in (".parquet", ".arrow"))
    return any(file.name.lower() not in NAMES for file in data)


def _one(name: str, path: Path, config: str | None) -> Tree:
    _no_config(name, config)
    try:
        found = list_archive(path.resolve())
    except SourceError as error:
        raise SourceError(f"{name} cannot be read: {error}") from error
    tops = {file.key.partition("/")[0] if "/" in file.key else "" for file in found.files}
    base = tops.pop() if len(tops) == 1 else ""
    about = {**origins.about_local(path), "name": path.name}
    return Tree(name, path.resolve().parent, found, about, base, tuple(_beside(path.resolve().parent)))


def _several(name: str, config: str | None) -> Tree:
    _no_config(name, config)
    files = matching(name)
    archives = [path for path in files if is_archive(path.name)]
    if not archives:
        raise SourceError(f"{name} matches no archive, but {files[0].name}: a pattern can only name zip and tar files.")
    folder = archives[0].parent.resolve()
    plain = [_plain(folder / path.name) for path in archives]
    about = {**origins.about_local(folder), "name": Path(name).name}
    return Tree(name, folder, opened(folder, Found(plain)), about, beside=tuple(_beside(folder)))


def _plain(path: Path) -> File:
    status = path.stat()
    return File(path.name, str(path), path.name, (status.st_size, status.st_mtime_ns))


def _beside(folder: Path) -> list[File]:
    return [_plain(folder / name) for name in NAMES if (folder / name).is_file()]


def _no_config(name: str, config: str | None) -> None:
    if config:
        raise SourceError(f"{name} is an archive and has no configurations: leave out {config!r}.")
