"""Cache: what is on this disk of a repository on the Hub, in the folders that all of the Hub's clients share.

`models--owner--name/` holds `blobs/` (files, by their etags), `snapshots/COMMIT/` (links to them, by their names) and
`refs/` (the commits that branches and tags meant). Two things are ours: `blobs/ETAG.part`, a download that waits for
its next try, as the clients throw theirs away; and `checked/REVISION`, the commit that was last whole, as `refs/` goes
by whichever client asked last. See https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from retrieval.hub_errors import cache_in_words


@dataclass(frozen=True)
class RepoCache:
    """The part of the cache at `place` that holds the model repository `repo`."""

    place: Path
    repo: str

    @property
    def folder(self) -> Path:
        """Where all of it is."""
        return self.place / f"models--{self.repo.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """The folder where the files of a commit are, or will be."""
        return self.folder / "snapshots" / commit

    def blob(self, etag: str) -> Path:
        """Where the content with that etag is, or will be."""
        return self.folder / "blobs" / Path(etag).name

    def part(self, etag: str) -> Path:
        """Where the beginning of that content waits for the rest."""
        return self.blob(f"{etag}.part")

    @contextmanager
    def locked(self, etag: str, timeout: float = -1) -> Iterator[None]:
        """Keep other processes and threads from writing a blob, by the lock that the Hub's other clients take.

        Raises filelock.Timeout after so many seconds (-1: never).
        """
        lock = self.place / ".locks" / self.folder.name / f"{Path(etag).name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "blobs").mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=timeout):
            yield

    def link(self, etag: str, commit: str, name: str) -> None:
        """Have a file of a commit be that content."""
        path, blob = self.snapshot(commit) / name, self.blob(etag)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.symlink_to(os.path.relpath(blob, path.parent))
        except FileExistsError:
            pass
        except OSError:  # a system, or a disk, without symbolic links
            blob.replace(path)

    def discard(self, commit: str, name: str) -> None:
        """Throw a file of a commit out, with its content; raises HubError where it cannot be."""
        path = self.snapshot(commit) / name
        try:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise cache_in_words(error, f"{name}, which is wrong there, anew,", self.place) from error

    def discard_parts(self) -> None:
        """Throw out what is there of files that are not whole, those excepted that somebody is downloading now."""
        for part in (self.folder / "blobs").glob("*.part"):
            with suppress(Timeout, OSError), self.locked(part.stem, timeout=0):
                part.unlink(missing_ok=True)

    def remember(self, revision: str, commit: str) -> None:
        """Note that a revision means a commit, all of which is here; in a cache that is read-only nothing is noted."""
        for kind in ("refs", "checked"):  # without a ref, the Hub's client would clear the commit away as nobody's
            path = self.folder / kind / revision
            with suppress(OSError):
                if not path.is_file() or path.read_text(encoding="utf-8") != commit:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    fresh = path.with_name(f".{path.name}.{os.getpid()}")
                    fresh.write_text(commit, encoding="utf-8")
                    fresh.replace(path)

    def remembered(self, revision: str) -> list[str]:
        """The commits that a revision has meant here: the one that was checked last, the one that was seen last."""
        found = []
        for kind in ("checked", "refs"):
            with suppress(OSError, UnicodeDecodeError):
                found.append((self.folder / kind / revision).read_text(encoding="utf-8").strip())
        return list(dict.fromkeys(found))
