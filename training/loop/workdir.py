"""The working folder of an unfinished run, and the checks for resuming it.

It is next to the artifact, at `OUT.training`, and holds the recipe, the rows, the result of the leak audit, and the
checkpoints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval.artifact.atomic import recover
from retrieval.artifact.load import is_artifact, read_metrics
from retrieval.errors import TrainingError
from retrieval.files.locks import alone
from retrieval.files.storing import storing, whole
from training.data.dataset import Data
from training.data.pixels import Pixels
from training.loop.guards import last_checkpoint
from training.recipe import Recipe, without_places


def is_finished(recipe: Recipe, out: Path, resume: bool) -> bool:
    """Whether `out` is this run's artifact. Raises TrainingError if it is another run's, or not `resume`."""
    recover(out)
    if not is_artifact(out):
        return False
    if not resume:
        raise TrainingError(
            f"{out} contains an artifact, which would be overwritten: choose another folder, or delete it."
        )
    training = read_metrics(out).training
    before = without_places(training.settings if training else {})  # artifacts of 0.2.0 hold full paths
    _check_same(without_places(recipe.settings()), before, f"{out} contains an artifact", "choose another folder")
    return True


@contextmanager
def claim(work: Path, out: Path, recipe: Recipe, resume: bool) -> Iterator[None]:
    """Lock the working folder against other processes until the block ends.

    Raises TrainingError if another process trains there, or the folder holds another run, or `out` is finished.
    """
    with storing(work, TrainingError):
        work.mkdir(parents=True, exist_ok=True)
    with alone(work / "lock", f"another process is training in {work}; wait until it has finished", TrainingError):
        _begin(work, out, recipe, resume)
        yield


def _begin(work: Path, out: Path, recipe: Recipe, resume: bool) -> None:
    """Check that the recipe matches the checkpoints in the folder, or store it if the run is new."""
    if is_finished(recipe, out, resume):
        raise TrainingError(f"another process has finished {out} in the meantime.")
    stamp, last = work / "recipe.json", last_checkpoint(work)
    if last and not resume:
        raise TrainingError(
            f"{work} contains an unfinished run with {last.name}: continue it with --resume, or delete that folder."
        )
    if last and stamp.is_file():
        before = json.loads(stamp.read_text(encoding="utf-8"))
        _check_same(recipe.settings(), before, f"{work} contains a run", "delete that folder")
    if not last:
        _write(stamp, json.dumps(recipe.settings(), indent=2) + "\n")


def check_images(data: Data, pixels: Pixels, work: Path, resumed: bool) -> None:
    """Raise TrainingError if a run is resumed with other images: stored row numbers would be wrong."""
    lines = [
        f"{row} {part} {data.labels[row]} {pixels.sha256.get(row)}" for part in data.parts for row in data.parts[part]
    ]
    found, stamp = hashlib.sha256("\n".join(lines).encode()).hexdigest(), work / "images.sha256"
    if not resumed:
        _write(stamp, found)
    elif stamp.is_file() and stamp.read_text(encoding="utf-8") != found:
        raise TrainingError(
            f"the images or labels of {data.name} have changed since the run in {work} was started: restore them, or "
            "delete that folder and start again."
        )


def _write(path: Path, text: str) -> None:
    with storing(path, TrainingError), whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _check_same(settings: dict[str, Any], before: dict[str, Any], what: str, mend: str) -> None:
    changed = [key for key in settings if settings[key] != before.get(key)]
    if changed := [key for key in changed if key != "about"]:  # a text, which another version may word differently
        key = changed[0]
        raise TrainingError(
            f"{what} made with {key}={before.get(key)!r}, not {settings[key]!r}: resume it with the same recipe, or "
            f"{mend}."
        )
