"""Splits: which images are learned from, which choose the checkpoint, and which the figures are made from.

A source with the splits `train`, `validation` and `test` is taken as it is. What is missing is cut from what is there,
class by class, with a seed: test is half of validation where there is a validation split, and a tenth of train where
there is none, like validation. So a checkpoint is never chosen on the images that its figures are made from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
PARTS = ("train", "validation", "test")
_CARVED = 0.1  # share of train that becomes validation, and test, where the source has none


def split_rows(splits: Any, labels: Any, seed: int) -> tuple[dict[str, Rows], str, str]:
    """(N,) names of splits and (N,) labels, "" for none, to the rows of the three parts, where the test rows come from
    in words, and the splits of the source that become the gallery.
    """
    rows = np.flatnonzero(labels != "")
    names = list(dict.fromkeys(splits.tolist()))
    given = {part: rows[splits[rows] == part] for part in PARTS}
    if not len(given["train"]):  # one split under another name, say: all of it is to be divided
        given = {"train": rows, "validation": rows[:0], "test": rows[:0]}
    gallery = "+".join(name for name in names if name != "test" or not len(given["test"])) or names[0]
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
