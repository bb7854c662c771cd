"""The files of a dataset: how many rows each has, and where reading may start without those before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from retrieval.sources import datasets as origins


class Files:
    """The files of the splits of a dataset, which its `builder` of `datasets` names, and the `streams` of its rows."""

    def __init__(self, name: str, builder: Any, streams: Mapping[str, Any]) -> None:
        self._name, self._streams = name, streams
        self._known = builder.info.splits or {}
        data_files = builder.config.data_files or {}
        self._files = {split: [str(file) for file in data_files.get(split, [])] for split in streams}

    def stated(self) -> int | None:
        """Number of rows in the splits, from the dataset card or from local parquet footers; None if unknown."""
        if all(split in self._known and self._known[split].num_examples for split in self._files):
            return int(sum(self._known[split].num_examples for split in self._files))
        local = all(Path(file).is_file() for files in self._files.values() for file in files)
        return self.total() if local and self._files else None

    def total(self) -> int | None:
        """The same from the footers of the files, wherever they are: on the Hub, each is read. None if unknown."""
        return sum(map(sum, self._rows.values())) if self._rows else None

    def before(self, row: int) -> tuple[Any, int]:
        """The position at the start of the file with this row, and how many rows come between; see `Source.seek`."""
        left = row
        for split, counts in (self._rows or {}).items():
            number = 0
            for file, count in enumerate(counts):
                if left < count:
                    state = self._state_at(split, file)
                    return ({"split": split, "number": number - 1, "state": state}, left) if state else (None, row)
                number, left = number + count, left - count
        return None, row

    @cached_property
    def _rows(self) -> dict[str, list[int]] | None:
        """Split -> the number of rows of each file; None unless all are parquet files."""
        files = self._files.values()
        if not all(found and all(file.endswith(".parquet") for file in found) for found in files):
            return None
        try:
            return {split: [_rows_of(file) for file in found] for split, found in self._files.items()}
        except Exception as error:  # the network and a damaged file each raise their own
            raise origins.source_error(self._name, error) from error

    def _state_at(self, split: str, file: int) -> Any:
        """The state from `datasets` at the start of a file; None if it has a form that is not known."""
        stream = self._streams[split]
        stream.load_state_dict(None)
        next(origins.read(self._name, stream), None)  # before the first row there is no state
        state = stream.state_dict()
        batches = state.get("examples_iterable") or {}
        start = {**(batches.get("examples_iterable") or {}), "shard_idx": file, "shard_example_idx": 0}
        if start.get("type") != "ArrowExamplesIterable" or not {"previous_state", "batch_idx"} <= batches.keys():
            return None
        at = {"examples_iterable": start, "previous_state": start, "batch_idx": 0, "num_chunks_since_previous_state": 0}
        return {**state, "examples_iterable": {**batches, **at, "cropped_chunk_length": 0}}


def _rows_of(file: str) -> int:
    if "://" not in file:
        return int(pq.read_metadata(file).num_rows)
    from datasets.utils.file_utils import xopen

    with xopen(file, "rb") as opened:
        return int(pq.read_metadata(opened).num_rows)
