"""The folder of uploads: each file goes an hour after it was last used, and the oldest ones go when it is full.

An open page can need its pictures at any time, so no time is safe for all; a page or a program whose picture is gone
is asked to upload it again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from gradio.utils import get_upload_folder

from retrieval.files.held import HeldFolder
from retrieval.files.storing import unstored
from retrieval.forking import Lock
from retrieval.ui import strings
from retrieval.ui.intake.refusing import RefusedError

MOST = 2**30
"""Bytes of all uploads together, by default."""
AGE = 3600.0
"""Seconds after its last use that an upload is kept."""
_PREFIX = "lookalike-uploads-"
_COSTS = 2**13  # bytes that a file takes besides its content: itself and its folder in whole blocks
_EVERY = 60.0  # seconds between two looks for old ones
_log = logging.getLogger(__name__)


@dataclass
class _Kept:
    size: int
    used: float  # the time of the file when it was last looked at


class Uploads:
    """The pictures that visitors send to one server, at most `most` bytes of them."""

    def __init__(self, most: int = MOST) -> None:
        """Makes the folder. Raises OSError if it cannot be written."""
        # Below the folder in which Gradio looks for files that an event names.
        self._held = HeldFolder(Path(get_upload_folder()), _PREFIX)
        self.folder, self.most = self._held.path, most
        self._files: OrderedDict[Path, _Kept] = OrderedDict()  # the one used longest ago first
        self._size, self._said = 0, 0.0
        self._lock = Lock()
        closed = threading.Event()
        self._end = weakref.finalize(self, closed.set)
        threading.Thread(target=_look, args=(weakref.ref(self), closed), name="uploads", daemon=True).start()

    def new(self, name: str) -> Incoming:
        """A new file, named after a visitor's; raises RefusedError if there is no room."""
        return Incoming(self, name)

    def holds(self, path: str) -> bool:
        """Whether this is the path of an upload that is still there."""
        return Path(path) in self._files

    def use(self, path: str) -> bool:
        """Note that an upload is used now; False if it was deleted. Any other path is not looked at."""
        there = Path(path)
        if self.folder in there.parents:
            return there in self._files and touch(there)
        place = there.parent.parent  # of another process of the same server, which keeps what is used
        is_upload = place.parent == self.folder.parent and place.name.startswith(_PREFIX)
        return touch(there) if is_upload else True

    def take(self, count: int) -> None:
        """Count bytes that are about to be written, and delete the oldest files if there is no room for them.

        Raises RefusedError if files that are just being received leave no room.
        """
        with self._lock:
            while self._size + count > self.most and self._files:
                self._delete_oldest()
            if self._size + count > self.most:
                raise RefusedError(503, strings.UPLOADS_FULL, {"Retry-After": "10"})
            self._size += count

    def give_back(self, count: int) -> None:
        """Count bytes that were written no more."""
        with self._lock:
            self._size -= count

    def keep(self, path: Path, size: int) -> None:
        """Add a file that is complete, and was counted."""
        with self._lock:
            self._files[path] = _Kept(size, time.time())

    def drop(self, path: Path) -> None:
        """Delete a file that was added, if it is still there."""
        with self._lock:
            if path in self._files:
                self._drop(path)

    def sweep(self, age: float = AGE) -> None:
        """Delete what was not used for `age` seconds."""
        with self._lock:
            for path in list(self._files):
                if time.time() - _time_of(path) >= age:
                    self._drop(path)

    def failed(self, error: OSError) -> RefusedError:
        """The refusal of a file that cannot be written; what is wrong with the disk goes to the log, once a minute."""
        if time.monotonic() - self._said > _EVERY or not self._said:
            self._said = time.monotonic()
            _log.error("an upload failed: %s", unstored(error.errno or 0, self.folder))
        return RefusedError(507, strings.DISK_FULL, {"Retry-After": "60"})

    def close(self) -> None:
        """Delete the folder."""
        self._end()
        self._held.close()

    def _delete_oldest(self) -> None:
        path, kept = next(iter(self._files.items()))
        if (used := _time_of(path)) > kept.used:  # used since: it is not the oldest
            kept.used = used
            self._files.move_to_end(path)
            return
        self._drop(path)

    def _drop(self, path: Path) -> None:
        self._size -= self._files.pop(path).size
        delete(path)


class Incoming:
    """A file while it is received; `keep` or `delete` ends that."""

    def __init__(self, uploads: Uploads, name: str) -> None:
        self._uploads, self._size, self._kept = uploads, 0, False
        self.path = uploads.folder / token_hex(16) / name
        self._take(_COSTS)
        try:
            uploads.folder.mkdir(0o700, parents=True, exist_ok=True)  # a cleaner of old files may have been here
            self.path.parent.mkdir()
            self._file = self.path.open("xb", buffering=0)
        except OSError as error:
            delete(self.path)
            uploads.give_back(self._size)
            raise uploads.failed(error) from error

    def write(self, data: bytes) -> None:
        """Write all of it; raises RefusedError if there is no room."""
        self._take(len(data))
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._uploads.failed(error) from error

    def keep(self) -> Path:
        """The path of the complete file; raises RefusedError if it could not be written."""
        try:
            self._file.close()
        except OSError as error:  # a network drive may tell it only now
            raise self._uploads.failed(error) from error
        self._uploads.keep(self.path, self._size)
        self._kept = True
        return self.path

    def delete(self) -> None:
        """Delete it, whether it is complete or not."""
        if self._kept:
            self._uploads.drop(self.path)
            return
        with suppress(OSError):
            self._file.close()
        delete(self.path)
        self._uploads.give_back(self._size)
        self._size = 0

    def _take(self, count: int) -> None:
        self._uploads.take(count)
        self._size += count


def delete(path: Path) -> None:
    """Delete a file and the folder that holds it alone."""
    with suppress(OSError):
        path.unlink()
    with suppress(OSError):
        path.parent.rmdir()


def touch(path: str | os.PathLike[str]) -> bool:
    """Note that a file is used now; False if it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:  # a disk that is read-only by now
        return Path(path).exists()
    return True


def _time_of(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone
        return 0.0


def _look(uploads: weakref.ref[Uploads], closed: threading.Event) -> None:
    while not closed.wait(_EVERY):
        if (there := uploads()) is None:
            return
        there.sweep()
        del there
