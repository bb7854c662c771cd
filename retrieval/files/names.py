"""Names of files: those beside an artifact, and those that some systems do not allow."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_LONGEST = 200  # bytes: file systems allow 255, and what is added needs some of them
_SHOWN = 40  # characters of a longer name that are kept
# Windows takes these names for devices, whatever comes after a dot and in any case.
DEVICES = r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])"


def beside(folder: Path, what: str) -> Path:
    """The hidden path next to a folder for its lock (`lock`), or for what replaces it: `.NAME.WHAT`.

    A name that would become too long is cut, and made unique again by its hash.
    """
    name = folder.name
    if len(os.fsencode(name)) > _LONGEST:
        name = f"{name[:_SHOWN]}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
    return folder.with_name(f".{name}.{what}")
