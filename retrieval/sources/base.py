"""What every source of images gives: undecoded images in a fixed order, and what is known before the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa

from retrieval.errors import ImageError, first_line
from retrieval.images.door.files import MAX_BYTES, read_bytes
from retrieval.sources.archives.reading import is_packed, read_packed


@dataclass(frozen=True)
class RawImage:
    """One undecoded image of a source."""

    source: str
    label: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    data: bytes | None = None
    path: str | None = None
    position: Any = None
    """Where `Source.rows` resumes after this image, as JSON values; None if rows can only be counted."""
    row: str | None = None
    """What its row is called in messages, such as `line 7`."""
    problem: str | None = None
    """Why there is no image, if that is known before it is read."""
    is_away: bool = False
    """Whether the problem may pass, such as that of a server that does not answer."""
    fetch: Callable[[str, Event | None], bytes] | None = None
    """Fetches `path` if it is an http(s) address; the event ends that early."""
    original: str | None = None
    """Where the original lies: a path below the source's folder, or an address; None inside another file."""

    def read(self) -> bytes:
        """The bytes of the image; raises ImageError if there are none, or too many.

        Raises SourceError if the Hub does not deliver them: the image itself may be fine.
        """
        try:
            return self._read()
        except ImageError as error:
            if self.row is None:
                raise
            raise ImageError(f"{self.row}: {error}") from error

    def _read(self) -> bytes:
        if self.problem is not None:
            raise ImageError(self.problem)
        if self.data is not None:
            return read_bytes(self.data)
        if not self.path:
            raise ImageError("the row has no image")
        if self.fetch is not None:
            return read_bytes(self.fetch(self.path, None))
        if "://" not in self.path:
            return read_bytes(self.path)
        import fsspec

        try:
            if is_packed(self.path):
                return read_bytes(read_packed(self.path, MAX_BYTES + 1))
            with fsspec.open(self.path, "rb") as file:  # inside a zip file, or on the Hub
                data = file.read(MAX_BYTES + 1)
        except ImageError:
            raise
        except Exception as error:  # zip files and the network raise different exceptions
            if self.path.startswith("hf://") and not isinstance(error, FileNotFoundError):
                from retrieval.sources.datasets import source_error  # late: `datasets` takes a second to import

                raise source_error(self.source, error) from error
            raise ImageError(f"{Path(self.path).name} cannot be read: {first_line(error)}") from error
        return read_bytes(data)


@dataclass(frozen=True, order=True)
class LeftOut:
    """A file, a folder, a row of metadata, or several of a kind, that a source has but does not give as an image."""

    name: str
    reason: str
    count: int = 1
    """How many files or rows these are."""


@dataclass(frozen=True)
class Source:
    """Images in a fixed order, and what is known about them before the first one is read."""

    rows: Callable[..., Iterator[RawImage]]
    """`rows()` yields all images, `rows(position)` those after a `RawImage.position`. On resuming, at most the
    last two files before the position are read again."""
    schema: pa.Schema  # types of the attributes
    fingerprint: str  # of the file names, sizes and times, or of the Hub revision
    total: int | None  # number of rows, if known
    classes: tuple[str, ...] = ()  # labels that the source declares, with or without images
    about: Mapping[str, str] = field(default_factory=dict)  # name, config, revision, license; only what is known
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()  # sentences for the user, known before the first image is read
    listing: str = ""  # like the fingerprint, but the same for a copy of the source elsewhere: without places and times
    seek: Callable[[int], tuple[Any, int]] | None = None
    """The last position known before a row, None for the start, and how many rows come between; None if not known."""
    count: Callable[[], int | None] | None = None
    """Counts the rows where `total` is not known, without reading them; None if that is not possible."""
