"""Cache: the local copy of a Hub repository, in the folders shared with the Hub's other clients.

`models--owner--name/` holds `blobs/` (file contents, by etag), `snapshots/COMMIT/` (links to them, by file name) and
`refs/` (the commits of branches and tags). Two things are our own: `blobs/ETAG.part`, an unfinished download, kept for
the next attempt (other clients delete theirs); and `checked/REVISION`, the last commit that was complete (any client
may update `refs/`). See https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import HubError
from retrieval.files.locks import alone
from retrieval.hub_errors import cache_error


@dataclass(frozen=True)
class RepoCache:
    """The part of the cache in the folder `place` that holds the model repository `repo`."""

    place: Path
    repo: str

    @property
    def folder(self) -> Path:
        """The folder of the repository."""
        return self.place / f"models--{self.repo.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """The folder for the files of a commit; it may not exist yet."""
        return self.folder / "snapshots" / commit

    def blob(self, etag: str) -> Path:
        """The file for the content with this etag; it may not exist yet."""
        return self.folder / "blobs" / Path(etag).name

    def part(self, etag: str) -> Path:
        """The file for an unfinished download of this content."""
        return self.blob(f"{etag}.part")

    @contextmanager
    def locked(self, etag: str, *, wait: bool = True) -> Iterator[None]:
        """Lock a blob against writes by other processes and threads, with the lock file of the Hub's other clients.

        Without `wait`, raises HubError if it is locked; see also `retrieval.files.locks.alone`.
        """
        lock = self.place / ".locks" / self.folder.name / f"{Path(etag).name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "blobs").mkdir(parents=True, exist_ok=True)
        busy = f"another process is downloading the same file into {self.folder}"
        with alone(lock, busy, HubError, wait=wait):
            yield

    def link(self, etag: str, commit: str, name: str) -> None:
        """Link a file of a commit to the content with this etag."""
        path, blob = self.snapshot(commit) / name, self.blob(etag)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.symlink_to(os.path.relpath(blob, path.parent))
        except FileExistsError:
            pass
        except OSError:  # a system or disk without symbolic links
            blob.replace(path)

    def discard(self, commit: str, name: str) -> None:
        """Delete a file of a commit and its content; raises HubError if that fails."""
        path = self.snapshot(commit) / name
        try:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cache_error(error, f"a fresh copy of {name}, which is damaged there,", self.place) from error

    def discard_parts(self) -> None:
        """Delete unfinished downloads, except those that are in progress."""
        for part in (self.folder / "blobs").glob("*.part"):
            with suppress(HubError, OSError), self.locked(part.stem, wait=False):
                part.unlink(missing_ok=True)

    def remember(self, revision: str, commit: str) -> None:
        """Record that a revision means this complete commit; does nothing if the cache is read-only."""
        for kind in ("refs", "checked"):  # without a ref, the Hub's client would delete the commit as unused
            path = self.folder / kind / revision
            with suppress(OSError):
                if not path.is_file() or path.read_text(encoding="utf-8") != commit:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    fresh = path.with_name(f".{path.name}.{os.getpid()}")
                    fresh.write_text(commit, encoding="utf-8")
                    fresh.replace(path)

    def remembered(self, revision: str) -> list[str]:
        """The commits recorded for a revision: the last complete one, then the last one seen by any client."""
        found = []
        for kind in ("checked", "refs"):
            with suppress(OSError, UnicodeDecodeError):
                found.append((self.folder / kind / revision).read_text(encoding="utf-8").strip())
        return list(dict.fromkeys(found))
