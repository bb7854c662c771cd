"""Reading one file of a zip or tar file, by the path that `listing` gives it. Nothing is unpacked to the disk."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

PACKED = ("zip://", "tar://")
_OPEN = 16  # zip files held open at a time: opening one reads its whole table of contents


def is_packed(path: str) -> bool:
    """Whether a path leads into a zip or tar file on this machine."""
    return path.startswith(PACKED) and "://" not in path.rpartition("::")[2]


def read_packed(path: str, limit: int) -> bytes:
    """The first `limit` bytes of a file in an archive; all of it if `limit` is negative. Thread-safe.

    `path` is `zip://inner::path` or `tar://offset,size::path`. However much a file in an archive claims or inflates to,
    no more than `limit` bytes are held. Raises OSError, and ValueError with the reason if the archive is damaged.
    """
    inner, _, outer = path[len("zip://") :].rpartition("::")
    if path.startswith("tar://"):
        offset, size = map(int, inner.split(","))
        with Path(outer).open("rb") as file:
            file.seek(offset)
            data = file.read(size if limit < 0 else min(size, limit))
        if len(data) < (size if limit < 0 else min(size, limit)):
            raise ValueError("the tar file is cut short")
        return data
    try:
        status = Path(outer).stat()
        archive = _zip(outer, status.st_size, status.st_mtime_ns, os.getpid())
        with archive.open(inner) as member:
            return member.read(limit)
    except KeyError as error:
        raise ValueError("no such file in the zip file") from error
    except RuntimeError as error:  # NotImplementedError is one too
        encrypted = "encrypted" in str(error) or "password" in str(error)
        raise ValueError("it is encrypted: unpack the zip file" if encrypted else str(error)) from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(str(error)) from error


@lru_cache(_OPEN)
def _zip(path: str, size: int, changed: int, process: int) -> zipfile.ZipFile:
    # One per process: after a fork, two processes would move the position of one file.
    return zipfile.ZipFile(path)
