"""A folder of this user alone for what can be made again: nobody else may write there, so what is in it is trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

PLACE = "LOOKALIKE_CACHE"  # the environment variable with the folder; if it is empty, there is none


def private_folder(name: str, *, make: bool = True) -> Path | None:
    """The folder `name` in the cache of this user, `~/.cache/lookalike` or what LOOKALIKE_CACHE says.

    None if it cannot be made, as in a read-only home, if it is not there and `make` is false, or if others could write
    to it.
    """
    chosen, cache = os.environ.get(PLACE), os.environ.get("XDG_CACHE_HOME", "")
    if chosen == "" or not hasattr(os, "getuid"):
        return None
    above = Path(chosen) if chosen else Path(cache if cache.startswith("/") else "~/.cache") / "lookalike"
    try:
        folder = above.expanduser() / name
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (OSError, RuntimeError, ValueError):  # no home, a read-only one, or a file in its place
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if private else None
