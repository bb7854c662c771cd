"""What the environment of a start may lack: a way to this machine past a proxy, a place for uploads, a console."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from retrieval.errors import LookalikeError
from retrieval.images.door.files import MAX_BYTES

if TYPE_CHECKING:
    from retrieval.ui.intake.files.folder import Uploads

_HERE = ("localhost", "127.0.0.1", "::1")


def reach_this_machine() -> None:
    """Let clients in this process reach it directly, also where HTTP_PROXY or ALL_PROXY is set."""
    for name in ("no_proxy", "NO_PROXY"):
        listed = [each.strip() for each in os.environ.get(name, "").split(",") if each.strip()]
        if "*" not in listed:
            os.environ[name] = ",".join([*listed, *(each for each in _HERE if each not in listed)])


def open_uploads(most: int) -> Uploads:
    """A folder for uploads, of at most `most` bytes, where Gradio keeps its files. Raises LookalikeError if it cannot
    be written, or `most` has no room for the largest picture.
    """
    from retrieval.ui.intake.files.folder import Uploads  # needs Gradio, which the process that only listens does not

    if most < MAX_BYTES:
        least = MAX_BYTES // 2**20
        raise LookalikeError(f"uploads need room for the largest picture: at least {least} MiB, not {most / 2**20:g}.")
    named = os.environ.get("GRADIO_TEMP_DIR")
    try:
        return Uploads(most)
    except OSError as error:
        which = f"GRADIO_TEMP_DIR={named}" if named else "the folder for temporary files (TMPDIR)"
        raise LookalikeError(
            f"uploads cannot be written: {which}: {error.strerror or error}; name a folder that can be written in "
            "GRADIO_TEMP_DIR."
        ) from error
