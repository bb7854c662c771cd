"""What the environment of a start may lack: a way to this machine past a proxy, a place for uploads, a console."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from retrieval.errors import LookalikeError

_HERE = ("localhost", "127.0.0.1", "::1")


def reach_this_machine() -> None:
    """Let clients in this process reach it directly, also where HTTP_PROXY or ALL_PROXY is set."""
    for name in ("no_proxy", "NO_PROXY"):
        listed = [each.strip() for each in os.environ.get(name, "").split(",") if each.strip()]
        if "*" not in listed:
            os.environ[name] = ",".join([*listed, *(each for each in _HERE if each not in listed)])


def check_temporary() -> None:
    """Raise LookalikeError unless uploads can be written where Gradio puts them."""
    named = os.environ.get("GRADIO_TEMP_DIR")
    try:
        folder = Path(named) if named else Path(tempfile.gettempdir()) / "gradio"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        which = f"GRADIO_TEMP_DIR={named}" if named else "the folder for temporary files (TMPDIR)"
        raise LookalikeError(
            f"uploads cannot be written: {which}: {error.strerror or error}; name a folder that can be written in "
            "GRADIO_TEMP_DIR."
        ) from error
