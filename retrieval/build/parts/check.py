"""Checking that folders hold all parts of one build, each once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.build.parts.folder import BuiltPart, read_part
from retrieval.console import say
from retrieval.errors import ArtifactError, short

_SAME = {
    "total": "the number of rows that all parts read",
    "limit": "--limit",
    "thumbnail": "the size of the thumbnails",
    "columns": "the columns of the gallery (--originals adds one)",
}
_SOURCE = {
    "about": "the name, licence or revision of the source",
    "listing": "the names and sizes of its files, or the options that choose columns and splits",
    "left_out": "what the source leaves out",
}


def read_parts(folders: Sequence[Path]) -> list[BuiltPart]:
    """The parts in these folders, by number, once all are checked.

    Raises ArtifactError if a folder is no part, if one is missing or there twice, or if they are of different builds,
    and IntegrityError if one is damaged.
    """
    if not folders:
        raise ArtifactError("there are no parts to merge: name the folders that `build --shard` wrote.")
    parts = [read_part(folder) for folder in folders]
    for part in parts[1:]:
        _check_alike(parts[0], part)
    by_number: dict[int, BuiltPart] = {}
    for part in parts:
        before = by_number.setdefault(part.index, part)
        if before is not part:
            raise ArtifactError(
                f"part {part.index} of {part.count} is there twice, in {before.folder} and {part.folder}: leave one "
                "out."
            )
    count = parts[0].count
    if missing := [number for number in range(count) if number not in by_number]:
        what = "is missing" if len(missing) == 1 else "are missing"
        raise ArtifactError(
            f"of the parts 0 to {count - 1}, {_listed(missing)} {what}: name the folder of each, too. "
            f"`build SOURCE --out DIR --shard {missing[0]}/{count}` makes part {missing[0]}."
        )
    for part in parts:
        part.check_files()
    _note_machines(parts)
    return [by_number[number] for number in range(count)]


def _check_alike(one: BuiltPart, other: BuiltPart) -> None:
    """Raise ArtifactError unless two parts are of the same build, with what differs."""
    if one.count != other.count:
        raise ArtifactError(
            f"{one.folder} is part {one.index} of {one.count}, and {other.folder} is part {other.index} of "
            f"{other.count}: build all parts with the same N in --shard I/N."
        )
    mine, theirs = one.stated["encoder"], other.stated["encoder"]
    if mine != theirs:
        raise _unlike(one, other, "the encoder", _described(mine), _described(theirs))
    for name, told in _SOURCE.items():
        values = (one.stated["source"].get(name), other.stated["source"].get(name))
        if values[0] != values[1]:
            raise _unlike(one, other, told, *values)
    for name, told in _SAME.items():
        if one.stated[name] != other.stated[name]:
            raise _unlike(one, other, told, one.stated[name], other.stated[name])


def _unlike(one: BuiltPart, other: BuiltPart, what: str, mine: Any, theirs: Any) -> ArtifactError:
    return ArtifactError(
        f"{one.folder} and {other.folder} are parts of different builds: they differ in {what}. {one.folder}: "
        f"{short(str(mine), 100)}; {other.folder}: {short(str(theirs), 100)}. Build all parts from the same source "
        "with the same options."
    )


def _described(encoder: dict[str, Any]) -> str:
    weights = encoder.get("weights") or {}
    known = ", ".join(str(weights[name]) for name in ("name", "license") if weights.get(name))
    return f"{encoder['architecture']}, fingerprint {str(encoder['fingerprint'])[:12]}{f', {known}' if known else ''}"


def _note_machines(parts: Sequence[BuiltPart]) -> None:
    """Say if the parts were embedded in different ways: the vectors then agree only up to rounding."""
    for part in parts[1:]:
        for name, value in part.stated["made"].items():
            first = parts[0].stated["made"].get(name)
            if first != value:
                say(
                    f"note: {parts[0].folder} was made with {name} {first}, {part.folder} with {value}: their vectors "
                    "may differ by rounding from those of one build"
                )
                return


def _listed(numbers: Sequence[int]) -> str:
    return short(" and ".join(map(str, numbers)) if len(numbers) < 3 else ", ".join(map(str, numbers)), 100)
