"""Splits: which images are learned from, which choose the checkpoint, and which the figures are made from.

A source with splits for training, validation and test, also by names such as `training`, `val`, `dev` or `eval`,
is taken as it is. What is missing is cut from what is there, class by class, with a seed: test is half of validation
where there is a validation split, and a tenth of train where there is none, like validation. So a checkpoint is never
chosen on the images that its figures are made from. A split of another name beside train is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from retrieval.arrays import Rows
from retrieval.errors import short
from retrieval.images.sources import part_of_split

PARTS = ("train", "validation", "test")
_CARVED = 0.1  # share of train that becomes validation, and test, where the source has none


def parts_of(splits: Iterable[str]) -> dict[str, str]:
    """Each split that is used -> its part, `train`, `validation` or `test`; the others are left out.

    Where no name says train, the splits whose names say nothing are; where there are none of those, all are.

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
    """What to say of a split that is left out; how many images it has may be unknown, as nothing of it is read."""
    count = "all images" if images is None else counted(images)
    return f"{count} of the split {short(split, 60)!r}, whose name is not one for training, validation or test"


def counted(images: int) -> str:
    """A number of images, in words."""
    return f"{images:,} image{'' if images == 1 else 's'}"


def split_rows(splits: Any, labels: Any, seed: int) -> tuple[dict[str, Rows], str, str]:
    """(N,) names of splits, all of them used, and (N,) labels, "" for none, to the rows of the three parts, where the
    test rows come from in words, and the splits of the source that become the gallery.
    """
    rows = np.flatnonzero(labels != "")
    names = list(dict.fromkeys(splits.tolist()))
    part_of = parts_of(names)
    own = np.array([part_of[split] for split in splits[rows].tolist()], str)
    given = {part: rows[own == part] for part in PARTS}
    if not len(given["train"]):  # its images have no labels: all the others are to be divided
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
    """Cut a share from each class, at random, rounded at random, so that small classes count too; two always stay."""
    random = np.random.default_rng(seed)
    cut: list[int] = []
    for label in np.unique(labels[rows]):
        own = random.permutation(rows[labels[rows] == label])
        wanted = int(len(own) * share + random.random())
        cut.extend(own[: max(0, min(wanted, len(own) - (2 if share < 0.5 else 0)))])
    chosen = np.isin(rows, cut)
    return rows[~chosen], rows[chosen]
