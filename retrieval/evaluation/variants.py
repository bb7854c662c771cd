"""Near-duplicates that were changed on purpose: mirrored, turned, made grey, framed or cropped.

Such a copy does not match its original pixel for pixel, and its embedding can be far away. So each change is made
again, on the thumbnail of every image, and the result is compared with all images: first all pairs at 4 x 4 cells, by
one matrix product, then those that correlate by `Pictures.same_as`. Nothing is embedded, so it works for any encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.arrays import Ids
from retrieval.console import Progress
from retrieval.errors import QueryError
from retrieval.images.compare import Look, Pictures, cells_of, look_of
from retrieval.images.open import open_image
from retrieval.words import did_you_mean

KINDS = ("mirrored", "rotated", "grey", "border", "crop")
_EXACT, _NEARLY = 0.95, 0.92  # least correlation at 4 x 4 cells, of a change made exactly, and of a crop moved slightly
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FRAME = 24  # grey levels by which a border may vary: JPEG adds noise next to the picture
_LAYERS = 3  # borders inside each other
_SMALLEST = 0.4  # least share of width and height inside a border
# Shares of the width and height of the cropped windows, and where they begin. The comparison tolerates steps of 0.1.
_WINDOWS = [(0.8, *at) for at in product((0.0, 0.067, 0.133, 0.2), repeat=2)]
_WINDOWS += [(0.9, *at) for at in product((0.0, 0.1), repeat=2)]

_Cells = npt.NDArray[np.uint8]
_Change = Callable[[Pictures, int], list[Look]]


@dataclass(frozen=True)
class _Way:
    """A change: how to make its variants of an image, and whether they may be shifted a little against the copy."""

    change: _Change
    moved: bool = False


def check_kinds(also: Sequence[str]) -> tuple[str, ...]:
    """The kinds of changes, each once; raises QueryError for one that is not in KINDS."""
    if isinstance(also, str):
        raise QueryError(f"also must be a list of changes, such as [{also!r}], not a string.")
    for kind in also:
        if kind not in KINDS:
            raise QueryError(f"{kind!r} is not a change that can be found; {did_you_mean(str(kind), KINDS)}")
    return tuple(dict.fromkeys(also))


def versions(also: Sequence[str]) -> int:
    """How many changed versions of each image these kinds of changes compare."""
    return sum({"rotated": 2, "border": 2, "crop": len(_WINDOWS)}.get(kind, 1) for kind in check_kinds(also))


def changed_pairs(
    mine: Pictures, theirs: Pictures, also: Sequence[str], progress: Progress | None = None
) -> Iterator[tuple[int, Ids]]:
    """(row of `mine`, rows of `theirs`) of images that match once one of them is changed; a row can come repeatedly.

    `theirs` may be `mine`: then a row is not compared with itself. Blank images are left out. `progress` receives the
    rows compared and the total, over all changes. Raises QueryError like `check_kinds`.
    """
    alone = theirs is mine
    todo: list[tuple[Pictures, Pictures, _Way, bool]] = []
    for kind in check_kinds(also):
        if kind == "border":
            # Without its border, the copy is the original; but if that has a border of the same colour, both lose it.
            inner = Pictures(mine.gallery, trimmed)
            todo.append((inner, theirs, _Way(_as_it_is, moved=True), False))
            core = Pictures(mine.gallery, tight)
            todo.append((core, core if alone else Pictures(theirs.gallery, tight), _Way(_as_it_is, moved=True), False))
            if not alone:
                todo.append((Pictures(theirs.gallery, trimmed), mine, _Way(_as_it_is, moved=True), True))
        for way in _WAYS.get(kind, ()):
            todo.append((mine, theirs, way, False))
            if not alone:
                todo.append((theirs, mine, way, True))
    total, done = sum(len(one) for one, *_ in todo), 0
    for one, other, way, swapped in todo:
        for row, found in _found(one, other, way, alone):
            if not swapped and len(found):
                yield row, found
            elif swapped:
                yield from ((int(partner), np.array([row])) for partner in found)
            done += 1
            if progress:
                progress(done, total)


def _found(one: Pictures, other: Pictures, way: _Way, alone: bool) -> Iterator[tuple[int, Ids]]:
    """Each row of `one` with the rows of `other` that its changed image matches."""
    rough = other.rough
    for row in range(len(one)):
        looks = way.change(one, row)
        near = np.stack([look.rough for look in looks]) @ rough.T >= (_NEARLY if way.change is _windows else _EXACT)
        if alone:
            near[:, row] = False
        found = [np.empty(0, np.int64)]
        for look, others in zip(looks, map(np.flatnonzero, near), strict=True):
            found.append(others[other.same_as(look, others, strict=True, moved=way.moved)])
        yield row, np.unique(np.concatenate(found))


def trimmed(picture: Image.Image) -> Image.Image:
    """The image inside a uniform border; the whole image if it has none, or if little would be left."""
    pixels = np.asarray(picture, np.int16)
    height, width, _ = pixels.shape
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    other = np.abs(pixels - np.median(corners, axis=0)).max(axis=-1) > _FRAME
    down, across = (np.flatnonzero(other.mean(axis=axis) > 0.02) for axis in (1, 0))  # more than a few specks
    if not len(down) or len(down) < _SMALLEST * height or len(across) < _SMALLEST * width:
        return picture
    # Where a border was, the first pixels may be a blend of both.
    left, top = int(across[0]) + bool(across[0]), int(down[0]) + bool(down[0])
    right, bottom = int(across[-1]) + (across[-1] == width - 1), int(down[-1]) + (down[-1] == height - 1)
    return picture.crop((left, top, right, bottom))


def tight(picture: Image.Image) -> Image.Image:
    """The image inside all its borders: a black one around a white one, for example."""
    for _ in range(_LAYERS):
        picture = trimmed(picture)
    return picture


def _as_it_is(pictures: Pictures, row: int) -> list[Look]:
    return [pictures.look(row)]


def _by_cells(change: Callable[[_Cells], npt.NDArray[np.generic]], turned: bool = False) -> _Way:
    """A change that the cells of the comparison show exactly; `turned` swaps width and height."""

    def looks(pictures: Pictures, row: int) -> list[Look]:
        aspect = pictures.aspect(row)
        cells = np.ascontiguousarray(change(pictures.cells(row)), np.uint8)
        return [look_of(cells, 1 / aspect if turned else aspect)]

    return _Way(looks)


def _grey(cells: _Cells) -> npt.NDArray[np.generic]:
    return np.repeat(np.rint(cells @ _LUMA)[..., None], 3, axis=-1)


def _windows(pictures: Pictures, row: int) -> list[Look]:
    """The parts of an image that a crop may keep."""
    picture = open_image(pictures.gallery.thumbnail(row))
    width, height = picture.size
    boxes = [(left * width, top * height, (left + w) * width, (top + w) * height) for w, top, left in _WINDOWS]
    return [look_of(cells_of(picture, box), width / height) for box in boxes]


# A turn by 270 degrees is one by 90 from the other image: each pair is compared in both directions.
_WAYS: dict[str, list[_Way]] = {
    "mirrored": [_by_cells(lambda cells: cells[:, ::-1])],
    "rotated": [_by_cells(np.rot90, turned=True), _by_cells(lambda cells: cells[::-1, ::-1])],
    "grey": [_by_cells(_grey)],
    "crop": [_Way(_windows, moved=True)],
}
