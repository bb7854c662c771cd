"""The files of a part of a build, and what a part says of itself."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from retrieval.artifact.atomic import recover
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.load import is_artifact
from retrieval.artifact.manifest import measure
from retrieval.artifact.report import Report
from retrieval.build.build import work_folder
from retrieval.build.shards import facts_of
from retrieval.errors import ArtifactError, IntegrityError, short
from retrieval.untrusted.strict_json import parse_json

FORMAT = 1
STATED = "part.json"  # written last, like the manifest of an artifact
ROWS = "rows"
OWN = (STATED, ROWS, LAYOUT.config, LAYOUT.weights)
"""The names in the folder of a part; only the first one has the encoder."""
_FILE = re.compile(rf"{ROWS}/\d{{6,}}\.parquet|{re.escape(LAYOUT.config)}|{re.escape(LAYOUT.weights)}")
_MOST_STATED = 256 * 2**20  # bytes: what a source leaves out is named one by one
_KEYS = {"format", "part", "parts", "total", "limit", "source", "encoder", "columns", "thumbnail", "made", "files"}


@dataclass(frozen=True)
class BuiltPart:
    """A finished part: its folder, and what it says of itself."""

    folder: Path
    stated: dict[str, Any]

    @property
    def index(self) -> int:
        """The number of the part, from 0."""
        return int(self.stated["part"])

    @property
    def count(self) -> int:
        """The number of parts."""
        return int(self.stated["parts"])

    def files(self) -> list[Path]:
        """The files with its rows, in order; at least one."""
        return [self.folder / name for name in sorted(self.stated["files"]) if name.startswith(f"{ROWS}/")]

    def report(self) -> Report:
        """Counts for the rows of this part; what the source leaves out is counted when the parts are merged."""
        facts = [facts_of(path) for path in self.files()]
        return Report(
            found=max(fact["consumed"] for fact in facts),
            indexed=sum(pq.read_metadata(path).num_rows for path in self.files()),
            duplicates=[(name, same) for fact in facts for name, same in fact["duplicates"]],
            skipped=[(name, reason) for fact in facts for name, reason in fact["skipped"]],
        )

    def check_files(self) -> None:
        """Raise IntegrityError unless every file has the size and the SHA-256 that the part states."""
        for name, stated in self.stated["files"].items():
            path = self.folder / name
            found = measure(path) if path.is_file() else None
            if found != stated:
                what = "is missing" if found is None else f"has {_told(found)}, and {_told(stated)} when it was written"
                raise IntegrityError(
                    f"{self.folder}: {name} {what}. The part is damaged or was not copied as a whole: copy it again, "
                    "or build it again with --force."
                )


def read_part(folder: Path) -> BuiltPart:
    """What a part says of itself. Raises ArtifactError if the folder holds no finished part, IntegrityError if what it
    says is damaged or of another format."""
    recover(folder)
    path = folder / STATED
    if not path.is_file():
        raise ArtifactError(_no_part(folder))
    try:
        stated = parse_json(path.read_bytes(), most=_MOST_STATED)
        if stated["format"] != FORMAT:
            raise IntegrityError(
                f"{path} has format {short(str(stated['format']), 60)}, but this version of Lookalike reads format "
                f"{FORMAT}: build all parts and merge them with one version."
            )
        _check_shape(stated)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = short(f"{type(error).__name__}: {error}", 120)
        raise IntegrityError(
            f"{path} is damaged ({why}). Copy the part again, or build it again with --force."
        ) from error
    return BuiltPart(folder, stated)


def part_in(folder: Path, *, force: bool) -> BuiltPart | None:
    """The finished part in a folder that is to hold one; None if it is missing, empty, or replaced with `force`.

    Raises ArtifactError if it holds anything else, and IntegrityError for a damaged part.
    """
    recover(folder)
    if (folder / STATED).is_file():
        return None if force else read_part(folder)
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; a part of a build is a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        what = "an artifact" if is_artifact(folder) else "files that do not belong to a part of a build"
        raise ArtifactError(f"{folder} contains {what}; choose a new or empty folder for the part.")
    return None


def write_stated(folder: Path, stated: dict[str, Any]) -> None:
    """Write what a part says of itself, with the sizes and hashes of its other files, which are there already."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    whole = {**stated, "format": FORMAT, "files": {name: measure(folder / name) for name in names}}
    (folder / STATED).write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_shape(stated: dict[str, Any]) -> None:
    if missing := sorted(_KEYS - stated.keys()):
        raise ValueError(f"{missing[0]} is missing")
    if not all(type(stated[name]) is int for name in ("part", "parts", "total")):
        raise ValueError("its numbers are no numbers")
    if not 0 <= stated["part"] < stated["parts"]:
        raise ValueError(f"there is no part {stated['part']} of {stated['parts']}")
    names = stated["files"].keys()
    if wrong := [name for name in names if not _FILE.fullmatch(name)]:
        raise ValueError(f"{short(repr(wrong[0]), 60)} is no file of a part")
    if not any(name.startswith(f"{ROWS}/") for name in names):
        raise ValueError("it has no rows")
    if stated["part"] == 0 and not {LAYOUT.config, LAYOUT.weights} <= names:
        raise ValueError("it has no encoder")


def _no_part(folder: Path) -> str:
    if not folder.is_dir():
        unfinished = work_folder(folder).is_dir()
        why = "it has not been finished: run its `build` again, which continues it" if unfinished else "no such folder"
    elif is_artifact(folder):
        why = "it is an artifact. `add` adds images to one"
    else:
        why = f"there is no {STATED} in it. `build SOURCE --out DIR --shard I/N` makes one"
    return f"{folder} is no part of a build: {why}."


def _told(found: Any) -> str:
    return f"{found['size']:,} bytes with the SHA-256 {short(str(found['sha256']), 13)}"
