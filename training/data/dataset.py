"""Data: labelled images of any source, split into train, validation and test, and checked before training.

The undecoded rows are stored in one memory-mapped Arrow file. See `training.data.splits` for how validation and test
are chosen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from retrieval.arrays import Rows
from retrieval.errors import TrainingError
from retrieval.files.storing import storing, whole
from retrieval.sources.base import RawImage, Source
from retrieval.sources.lists.ahead import ahead
from retrieval.sources.open import open_source, pinned, split_names
from training.data.checks import check_classes, check_labels, draw_held_out
from training.data.splits import PARTS, counted, parts_of, split_rows, unused
from training.recipe import Recipe

_FEATURES = datasets.Features(
    {
        "data": datasets.Value("large_binary"),
        "path": datasets.Value("string"),
        "source": datasets.Value("string"),
        "label": datasets.Value("string"),
        "split": datasets.Value("string"),
    }
)
_PINNED = "source"  # file in the run's folder that holds the pinned name of the source


@dataclass(frozen=True)
class Data:
    """Images and labels of a run; `parts` holds row numbers, int64."""

    name: str
    pinned: str  # the source; on the Hub, with the commit that the whole run reads
    about: Mapping[str, str]  # metadata, see `retrieval.sources.base.Source`
    images: Any  # a datasets.Dataset with the columns of _FEATURES
    labels: tuple[str, ...]  # of every row; "" if the row is not used
    parts: Mapping[str, Rows]  # train, validation, test; disjoint
    described: str  # origin of the test images, for messages and the card
    splits: tuple[str, ...]  # all splits of the source, in its order
    gallery_split: str  # splits that form the gallery, as an argument of `open_source`
    held_out: tuple[str, ...] = ()  # classes that training never sees
    left_out: tuple[str, ...] = ()  # notes on unused images; each starts with their count
    skipped: tuple[tuple[str, str], ...] = ()  # (image, reason) of images that cannot be opened
    notes: tuple[str, ...] = ()  # what the source said of itself before the first image, and what it left out

    @cached_property
    def train(self) -> Rows:
        """Training rows: those of train whose class is not held out."""
        return self.seen("train")

    @cached_property
    def unseen(self) -> Rows:
        """Rows of all parts whose class is held out."""
        return self.only(self.everything, unseen=True)

    @cached_property
    def everything(self) -> Rows:
        """Rows of all parts, in the order train, validation, test."""
        return np.concatenate([self.parts[part] for part in PARTS])

    @cached_property
    def classes(self) -> list[str]:
        """The training classes, sorted; class i of the loss is `classes[i]`."""
        return sorted({self.labels[row] for row in self.parts["train"]} - set(self.held_out))

    @cached_property
    def targets(self) -> Rows:
        """Class numbers (N,) int64 of the rows in `train`."""
        numbers = {label: number for number, label in enumerate(self.classes)}
        return np.array([numbers[self.labels[row]] for row in self.train], np.int64)

    def seen(self, part: str) -> Rows:
        """Rows of a part whose class is not held out."""
        return self.only(self.parts[part], unseen=False)

    def only(self, rows: Rows, *, unseen: bool) -> Rows:
        """The given rows whose class is held out (`unseen`), or is not."""
        held_out = set(self.held_out)
        return np.array([row for row in rows if (self.labels[row] in held_out) == unseen], np.int64)

    def raw(self, row: int) -> RawImage:
        """The undecoded image of a row."""
        item = self.images[int(row)]
        return RawImage(item["source"], item["label"], data=item["data"], path=item["path"])


def open_data(recipe: Recipe, work: Path, *, resumed: bool = False) -> Data:
    """Read the recipe's source into `work`, unless it is already there, then split and check it.

    A `resumed` run reads the same revision as when it started.

    Raises SourceError if the source or a column does not exist. Raises TrainingError for missing labels or classes
    with fewer than two training images (`skip_unusable` drops both), and for batches larger than the data.
    """
    if not recipe.data:
        raise TrainingError("the recipe names no data: use --data with a folder, a parquet file or a dataset.")
    fixed = _pinned(recipe, work, resumed)
    names = split_names(fixed, config=recipe.data_config)
    used = parts_of(names)
    sources = {name: open_splits(recipe, fixed, names, name) for name in used}
    images = _stored(sources, work)
    with storing(work / _PINNED, TrainingError), whole(work / _PINNED) as unfinished:
        unfinished.write_text(fixed, encoding="utf-8")
    labels = [label or "" for label in images["label"]]
    notes = [unused(name, open_splits(recipe, fixed, names, name).total) for name in names if name not in used]
    notes += check_labels(recipe, images, labels)
    declared = sorted({name for source in sources.values() for name in source.classes})
    parts, described, gallery = split_rows(np.array(images["split"]), np.array(labels), recipe.seed)
    notes += check_classes(recipe, parts, labels, declared)
    held_out = draw_held_out(recipe, sorted({labels[row] for row in parts["train"]}))
    about = {**next(iter(sources.values())).about, **({"license": recipe.data_license} if recipe.data_license else {})}
    data = Data(
        *(recipe.data, fixed, about, images, tuple(labels), parts, described, names, gallery, held_out, tuple(notes)),
        notes=tuple(dict.fromkeys(note for source in sources.values() for note in _told(source))),
    )
    _check_batch(recipe, data)
    return data


def without(recipe: Recipe, data: Data, bad: Mapping[int, str]) -> Data:
    """Drop the `bad` rows, which cannot be opened, and check again; raises TrainingError as `open_data` does."""
    if not bad:
        return data
    skipped = tuple((str(data.images[row]["source"]), bad[row]) for row in sorted(bad))
    notes = [f"{counted(len(bad))} that cannot be opened; the first: {': '.join(skipped[0])}"]
    parts = {part: rows[~np.isin(rows, list(bad))] for part, rows in data.parts.items()}
    notes += check_classes(recipe, parts, list(data.labels), data.classes)
    remaining = replace(data, parts=parts, left_out=(*data.left_out, *notes), skipped=skipped)
    _check_batch(recipe, remaining)
    return remaining


def open_splits(recipe: Recipe, fixed: str, names: Sequence[str], wanted: str) -> Source:
    """Open one split, or several as `a+b`, of the source pinned as `fixed`; `names` lists all its splits."""
    # A folder of class folders has one split, named `train`, but no folder of that name: open it whole.
    whole = None if wanted == "+".join(names) else wanted
    return open_source(
        fixed,
        image_column=recipe.image_column,
        label_column=recipe.label_column,
        label_level=recipe.label_level,
        split=whole,
        config=recipe.data_config,
    )


def _told(source: Source) -> Iterator[str]:
    yield from (f"note: {note}" for note in source.notes)
    yield from (f"left out {left.name}: {left.reason}" for left in source.left_out)


def _pinned(recipe: Recipe, work: Path, resumed: bool) -> str:
    """The recipe's source, pinned: all processes, and a resumed run, read the same revision."""
    begun = resumed or int(os.environ.get("RANK", 0)) > 0
    if begun and (work / _PINNED).is_file() and not Path(recipe.data).expanduser().exists():
        return (work / _PINNED).read_text(encoding="utf-8")
    return pinned(recipe.data, config=recipe.data_config, revision=recipe.data_revision)


def _stored(sources: Mapping[str, Source], work: Path) -> Any:
    """The rows of all splits in an Arrow file, which is reused for unchanged sources."""
    key = "-".join(source.fingerprint[:16] for source in sources.values())
    path = work / f"images-{key}.arrow"
    if not path.is_file():
        with storing(path, TrainingError, only=lambda at: at.is_relative_to(work.absolute())):
            work.mkdir(parents=True, exist_ok=True)
            with whole(path) as new, datasets.arrow_writer.ArrowWriter(path=str(new), features=_FEATURES) as writer:
                for row in _rows(sources):
                    writer.write(row)
                writer.finalize()
    return datasets.Dataset.from_file(str(path))


def _rows(sources: Mapping[str, Source]) -> Iterator[dict[str, Any]]:
    for split, source in sources.items():
        for raw in ahead(source.rows()):
            yield {"data": raw.data, "path": raw.path, "source": raw.source, "label": raw.label, "split": split}


def _check_batch(recipe: Recipe, data: Data) -> None:
    """Raise TrainingError if there are too few classes or images for a batch, or none for validation or test."""
    if len(data.classes) < 2:
        raise TrainingError(
            f"{recipe.data} has too few classes to train on: {len(data.classes)}, at least 2 are needed."
        )
    for part in ("validation", "test"):
        if not len(data.seen(part)):
            raise TrainingError(
                f"no images are left for {part}: {recipe.data} has {len(data.everything)} in total. Add images, or a "
                f"split named {part}."
            )
    if not recipe.epochs:
        return
    if recipe.images_per_class > 1 and recipe.classes_per_batch > len(data.classes):
        raise TrainingError(
            f"a batch needs {recipe.classes_per_batch} classes, but the data has only {len(data.classes)}: "
            f"use --set classes_per_batch={len(data.classes)} or less."
        )
    if recipe.batch_size > len(data.train):
        raise TrainingError(
            f"a batch needs {recipe.classes_per_batch} x {recipe.images_per_class} = {recipe.batch_size} images, but "
            f"there are only {len(data.train)} training images: reduce classes_per_batch or images_per_class."
        )
