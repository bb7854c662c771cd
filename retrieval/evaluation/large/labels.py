"""The labels of many images: each distinct one is held once, and four bytes a row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from retrieval.arrays import Rows
from retrieval.images.stored.rows import LazyTexts


class Labels(LazyTexts):
    """Labels in row order, None for a row without one; a sequence like any other."""

    def __init__(self, labels: Iterable[str | None]) -> None:
        code_of: dict[str | None, int] = {}
        coded = (-1 if label is None else code_of.setdefault(label, len(code_of)) for label in labels)
        self.codes = np.fromiter(coded, np.int32)
        """(N,) int32: the number of each label, in the order of their first rows; -1 for None."""
        self.names: list[str] = [name for name in code_of if name is not None]

    def __len__(self) -> int:
        return len(self.codes)

    def text(self, row: int) -> str | None:
        """See `LazyTexts`."""
        code = int(self.codes[row])
        return self.names[code] if code >= 0 else None

    def at(self, rows: Rows) -> list[str | None]:
        """The labels of these rows."""
        return [self.names[code] if code >= 0 else None for code in self.codes[rows].tolist()]


def sample(labels: Labels, most: int, rng: np.random.Generator) -> Rows:
    """About `most` rows, ascending: whole classes, drawn at random, so that queries keep their relevant images.

    Of a class that has more than a fiftieth of `most`, only so many rows are drawn; more, if there are fewer than fifty
    classes. Rows without a label are drawn one by one, in the same share.
    """
    codes, cap = labels.codes, most // max(min(50, len(labels.names)), 1)
    sizes = np.bincount(codes[codes >= 0], minlength=len(labels.names))
    capped, unlabelled = np.minimum(sizes, cap), np.flatnonzero(codes < 0)
    share = min(1.0, most / (capped.sum() + len(unlabelled)))
    drawn = rng.permutation(len(sizes))
    enough = int(np.searchsorted(np.cumsum(capped[drawn]), share * capped.sum(), side="right"))
    chosen = drawn[: max(enough, 2)]
    parts = [rng.choice(unlabelled, int(share * len(unlabelled)), replace=False)]
    large = chosen[sizes[chosen] > cap].tolist()
    parts += [rng.choice(np.flatnonzero(codes == code), cap, replace=False) for code in large]
    whole = np.zeros(len(sizes) + 1, bool)  # the last one is for -1
    whole[chosen[sizes[chosen] <= cap]] = True
    return np.sort(np.concatenate([*parts, np.flatnonzero(whole[codes])]))
