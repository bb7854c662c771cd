"""A folder written by `save_to_disk` of `datasets`: a Dataset, or a DatasetDict with its splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from retrieval.errors import SourceError
from retrieval.sources import datasets as origins
from retrieval.sources.archives.reasons import reason
from retrieval.sources.features import library


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def open_saved(name: str, path: Path, config: str | None) -> origins.Origin:
    """Open a folder for which `is_saved`; its Arrow files are mapped, not copied. Raises SourceError, or
    MissingExtraError without `datasets`."""
    if config:
        raise SourceError(f"{name} is a dataset from save_to_disk and has no configurations: leave out {config!r}.")
    library()
    try:
        parts = _parts(path.absolute())
        splits = {split: rows for split, part in parts.items() if (rows := _loaded(part)) is not None}
    except Exception as error:  # a missing or damaged file: each fails in its own way
        raise SourceError(
            f"{name} cannot be read as a dataset from save_to_disk: {reason(error)}. Save it again, or copy the "
            "whole folder."
        ) from error
    if not splits:
        raise SourceError(f"{name} has no rows: {', '.join(parts) or 'no split'} was saved, and nothing in it.")
    return origins.Origin(name, _Saved(splits), str(path.absolute()), origins.about_local(path))


def _parts(path: Path) -> dict[str, Path]:
    """Split -> its folder."""
    listed = path / "dataset_dict.json"
    if listed.is_file():
        return {split: path / split for split in json.loads(listed.read_bytes())["splits"]}
    return {str(_state(path)["_split"] or "train"): path}


def _state(part: Path) -> dict[str, Any]:
    return dict(json.loads((part / "state.json").read_bytes()))


def _loaded(part: Path) -> Any:
    """The rows of a split, or None if there are none: `load_from_disk` fails then."""
    rows = library().load_from_disk(str(part)) if _state(part)["_data_files"] else ()
    return rows if len(rows) else None


@dataclass(frozen=True)
class _Saved:
    """The parts of a builder of `datasets` that reading needs."""

    splits: Mapping[str, Any]

    @property
    def config(self) -> SimpleNamespace:
        from datasets.data_files import DataFilesList

        files = {
            split: DataFilesList([file["filename"] for file in rows.cache_files], [])
            for split, rows in self.splits.items()
        }
        return SimpleNamespace(name="default", data_files=files)

    @property
    def info(self) -> SimpleNamespace:
        return SimpleNamespace(splits={k: SimpleNamespace(num_examples=len(rows)) for k, rows in self.splits.items()})

    def as_streaming_dataset(self) -> dict[str, Any]:
        return {split: rows.to_iterable_dataset() for split, rows in self.splits.items()}
