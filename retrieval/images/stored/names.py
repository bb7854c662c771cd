"""The names of the files of a gallery in several shards, which are those that the Hub uses."""

from __future__ import annotations

import re

_SHARD = re.compile(r".+-(?P<number>\d{5,9})-of-(?P<count>\d{5,9})\.parquet", re.ASCII)


def shard_name(stem: str, number: int, count: int) -> str:
    """The name of one of `count` shards of a gallery, from 0."""
    return f"{stem}-{number:05d}-of-{count:05d}.parquet"


def shard_of(name: str, stem: str) -> tuple[int, int] | None:
    """The number and the count in the name of a shard of the gallery `stem`; None for any other name."""
    found = _SHARD.fullmatch(name)
    number, count = (int(found["number"]), int(found["count"])) if found else (0, 0)
    return (number, count) if number < count and name == shard_name(stem, number, count) else None


def unfinished_name(name: str, number: int) -> str:
    """The name of a shard of the gallery `name`, while it is not known how many there will be."""
    return f".{name}.{number}"


def is_unfinished(name: str, gallery: str) -> bool:
    """Whether a name is one of `unfinished_name`."""
    start, _, number = name.rpartition(".")
    return start == f".{gallery}" and number.isdecimal()
