"""Splits: which images train the network, which select the checkpoint, and which give the reported metrics.

Train, validation and test splits of the source, also under names such as `training`, `val`, `dev` or `eval`, are used
as they are. Missing splits are carved out by a seeded, stratified draw. Test is half of the validation split if there
is one, else a tenth of train; validation is a tenth of train. So the checkpoint is never selected on the images that
it is evaluated on. If there is a train split, splits with other names are not used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from retrieval.arrays import Rows
from retrieval.errors import short
from retrieval.sources.folders.labels import part_of_split

PARTS = ("train", "validation", "test")
_CARVED = 0.1  # share of train that becomes validation, or test, if the source has none


def parts_of(splits: Iterable[str]) -> dict[str, str]:
    """Map each used split to its part, `train`, `validation` or `test`; unused splits are omitted.

    If no name means train, splits with unrecognised names become train; if there are none, all splits do.

    >>> parts_of(["train", "val", "extra"]), parts_of(["images", "val"]), parts_of(["val"])
    ({'train': 'train', 'val': 'validation'}, {'images': 'train', 'val': 'validation'}, {'val': 'train'})
    """
    by_name = {split: part_of_split(split) for split in splits}
    if "train" in by_name.values():
        return {split: part for split, part in by_name.items() if part}
    if None in by_name.values():
        return {split: part or "train" for split, part in by_name.items()}
    return dict.fromkeys(by_name, "train")


def unused(split: str, images: int | None) -> str:
    """Note on an unused split; `images` is None if its size is unknown, as it is not read."""
    count = "all images" if images is None else counted(images)
    return f"{count} of the split {short(split, 60)!r}, which is not recognised as training, validation or test"


def counted(images: int) -> str:
    """A count of images as text, such as `1,200 images`."""
    return f"{images:,} image{'' if images == 1 else 's'}"


def split_rows(splits: Any, labels: Any, seed: int) -> tuple[dict[str, Rows], str, str]:
    """Split rows into (parts, origin of the test rows as text, splits that form the gallery, joined by `+`).

    `splits` (N,) are the names of used splits; `labels` (N,) is "" for rows without a label, which no part gets.
    """
    rows = np.flatnonzero(labels != "")
    names = list(dict.fromkeys(splits.tolist()))
    part_of = parts_of(names)
    own = np.array([part_of[split] for split in splits[rows].tolist()], str)
    given = {part: rows[own == part] for part in PARTS}
    if not len(given["train"]):  # train has no labels: divide all labelled rows instead
        given = {"train": rows, "validation": rows[:0], "test": rows[:0]}
    gallery = "+".join(name for name in names if part_of[name] != "test" or not len(given["test"])) or names[0]
    if len(given["validation"]) and not len(given["test"]):
        validation, test = _divided(given["validation"], labels, 0.5, seed)
        return {**given, "validation": validation, "test": test}, "half of the validation split", gallery
    described = "the test split"
    if not len(given["test"]):
        given["train"], given["test"] = _divided(given["train"], labels, _CARVED, seed)
        described = "a tenth of the images"
    if not len(given["validation"]):
        given["train"], given["validation"] = _divided(given["train"], labels, _CARVED, seed + 1)
    return given, described, gallery


def _divided(rows: Rows, labels: Any, share: float, seed: int) -> tuple[Rows, Rows]:
    """Draw a share of each class, rounded randomly so that small classes count; below a half, two images stay."""
    random = np.random.default_rng(seed)
    cut: list[int] = []
    for label in np.unique(labels[rows]):
        own = random.permutation(rows[labels[rows] == label])
        wanted = int(len(own) * share + random.random())
        cut.extend(own[: max(0, min(wanted, len(own) - (2 if share < 0.5 else 0)))])
    chosen = np.isin(rows, cut)
    return rows[~chosen], rows[chosen]
