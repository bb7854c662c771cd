"""Why reading failed, in plain words, for errors of `datasets`, Arrow and the system."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from retrieval.errors import first_line, short


def reason(error: BaseException) -> str:
    """The reason of an error in one line: what was found, and how to fix it where that is known."""
    if type(error).__name__ == "CastError":  # of `datasets`, which is not imported for every source
        found, wanted = getattr(error, "table_column_names", []), getattr(error, "requested_column_names", [])
        return f"one of its files has the columns {_listed(found)} instead of {_listed(wanted)}: write all files alike"
    if not isinstance(error, OSError) or not error.errno:
        return first_line(error)
    if error.errno == errno.ENOSPC:
        return "the disk is full: free some space, or set HF_HOME to a folder on another disk"
    if error.filename and (cache := _cache_at(str(error.filename))):
        return (
            f"the cache of `datasets`, {cache}, cannot be written ({error.strerror}): set HF_HOME to a folder "
            "where you may write"
        )
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"the file {error.filename} is missing"
    if isinstance(error, PermissionError) and error.filename:
        return f"no permission to read {error.filename}: allow it with `chmod -R u+rX`"
    return first_line(error)


def _cache_at(path: str) -> Path | None:
    """The cache folder that a path is in, or that would be below it."""
    if (datasets := sys.modules.get("datasets")) is None:
        return None
    caches = [
        Path(cache).expanduser() for cache in (datasets.config.HF_DATASETS_CACHE, datasets.config.HF_MODULES_CACHE)
    ]
    whole = Path(path)
    return next((cache for cache in caches if whole.is_relative_to(cache) or cache.is_relative_to(whole)), None)


def _listed(names: list[str]) -> str:
    return short(", ".join(names), 200)
