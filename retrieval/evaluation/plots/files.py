"""The files of plots. Each says what it was drawn from: a plot that would be the same is not drawn again."""

from __future__ import annotations

import hashlib
import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FIGURES = "Figures"  # the text in a PNG file that has the key
_STYLE = 1  # raise it when the same figures are drawn in another way
_BEGINNING = 1024  # bytes of a file that hold what it says about itself


def key_of(name: str, shown: object) -> str:
    """The key of a plot: a hash of its name, of the figures that it shows, as JSON, and of what draws it."""
    drawn = json.dumps([name, shown, _STYLE, version("matplotlib")], sort_keys=True)
    return hashlib.sha256(drawn.encode()).hexdigest()


def shows(path: Path, key: str) -> bool:
    """Whether there is a file that was drawn from what has this key."""
    try:
        with path.open("rb") as file:
            return f"{_FIGURES}\0{key}".encode() in file.read(_BEGINNING)
    except FileNotFoundError:
        return False


def panels_of(rows: int, columns: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure, with size in inches, and its panels in row-major order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=columns == 1, sharey=columns > 1)
    return figure, list(panels.ravel())


def save(figure: Figure, path: Path, key: str | None = None) -> None:
    """Write a figure as a PNG file, with the key of what it was drawn from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Characters missing from the font are drawn as boxes; a warning would not help the user.
    warnings.filterwarnings("ignore", "Glyph .* missing from font")
    # Otherwise matplotlib draws the whole figure once more, only to have it laid out.
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine("none")
    metadata = {"Software": None, **({_FIGURES: key} if key else {})}  # no version number: the bytes are reproducible
    figure.savefig(path, format="png", metadata=metadata)
