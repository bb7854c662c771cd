"""The repositories of a small Hugging Face Hub, on disk: blobs named by content, commits, branches, tags and cards.

HTTP is in `hub_server`. The hashes are those of git and LFS, because the clients compute and compare them.
"""

import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import yaml

# Approximately the suffixes in the Hub's own .gitattributes, and those of images.
LFS_SUFFIXES = tuple(
    f".{name}"
    for names in (
        ["7z", "arrow", "bin", "bz2", "ckpt", "faiss", "ftz", "gz", "h5", "joblib", "mlmodel", "model", "msgpack"],
        ["npy", "npz", "onnx", "ot", "parquet", "pb", "pickle", "pkl", "pt", "pth", "rar", "safetensors", "tar"],
        ["tflite", "tgz", "wasm", "xz", "zip", "zst", "wav", "mp3", "flac", "ogg", "mp4"],
        ["bmp", "gif", "ico", "jpeg", "jpg", "png", "tif", "tiff", "webp"],
    )
    for name in names
)
LFS_SIZE = 10 * 1024**2
COLOURS = ["red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"]
SDKS = ["gradio", "docker", "static"]
_FRONT_MATTER = re.compile(r"\A\s*---[\r\n]+(.*?)[\r\n]+---(\r?\n|\Z)", re.DOTALL)


class NotThere(Exception):
    """Something requested does not exist: `code` is the Hub's error code, `sha` the commit that was searched."""

    def __init__(self, code, message, sha=None):
        super().__init__(message)
        self.code, self.sha = code, sha


class Refused(Exception):
    """An invalid change."""


class Stale(Refused):
    """A commit whose parent is no longer the head."""


@dataclass(frozen=True)
class Entry:
    """A file of a commit. `oid` is the git hash of what git stores: the content, or a pointer for LFS files."""

    sha256: str
    size: int
    lfs: bool
    oid: str

    @property
    def etag(self):
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    message: str
    description: str
    author: str
    date: str
    files: dict[str, Entry]


@dataclass
class Repo:
    """One repository; tests may set any of its fields. `kind` is models, datasets or spaces."""

    kind: str
    id: str
    private: bool = False
    gated: bool | str = False
    granted: list[str] = field(default_factory=list)  # users who may read it if it is gated, besides its owner
    sdk: str | None = None
    hardware: str | None = None
    sleep_time: int | None = None
    variables: dict[str, str] = field(default_factory=dict)
    created: str = ""
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)  # oldest first

    def at(self, revision="main"):
        """The commit of a branch, a tag or a sha; a sha may be shortened to 7 digits or more."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = self.branches.get(name) or self.tags.get(name) or name
        found = [c for c in self.commits if c.sha == sha or (len(sha) >= 7 and c.sha.startswith(sha))]
        if len(found) != 1:
            raise NotThere("RevisionNotFound", f"Invalid rev id: {revision}")
        return found[0]

    def history(self, revision="main"):
        """The commits up to a revision, newest first."""
        commit = self.at(revision)
        yield commit
        while commit.parent:
            commit = self.at(commit.parent)
            yield commit

    def last_change(self, commit, path):
        """The commit that last changed a file or the content of a folder."""

        def state(of):
            return {name: file.oid for name, file in of.files.items() if name == path or name.startswith(f"{path}/")}

        now = state(commit)
        for older in self.history(commit.sha):
            if state(older) != now:
                break
            commit = older
        return commit


def git_hash(kind, data):
    return hashlib.sha1(b"%s %d\0%s" % (kind.encode(), len(data), data)).hexdigest()


def pointer(sha256, size):
    """The pointer that git stores for an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def is_lfs(path, size):
    return size > LFS_SIZE or (size > 0 and path.lower().endswith(LFS_SUFFIXES))


def parent(path):
    return path.rpartition("/")[0]


def folders(files):
    """{folder: git hash} for every folder that contains these files; "" is the root."""
    rows = {"": []}
    for path, entry in files.items():
        for folder in PurePosixPath(path).parents[:-1]:
            rows.setdefault(str(folder), [])
        rows[parent(path)].append((PurePosixPath(path).name, "100644", entry.oid))
    hashes = {}
    for folder in sorted(rows, key=lambda folder: folder.count("/") + bool(folder), reverse=True):
        listing = sorted(rows[folder])
        data = b"".join(f"{mode} {name.rstrip('/')}\0".encode() + bytes.fromhex(oid) for name, mode, oid in listing)
        hashes[folder] = git_hash("tree", data)
        if folder:  # git sorts folders as if their names ended in a slash
            rows[parent(folder)].append((f"{PurePosixPath(folder).name}/", "40000", hashes[folder]))
    return hashes


def now():
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store:
    """All repositories under a folder, including those that an earlier process saved there."""

    def __init__(self, root):
        self.root = Path(root)
        self.lock = threading.RLock()
        self.repos = {}
        for path in sorted(self.root.glob("repos/*/*.json")):
            saved = json.loads(path.read_text())
            for commit in saved["commits"]:
                commit["files"] = {name: Entry(**file) for name, file in commit["files"].items()}
            saved["commits"] = [Commit(**commit) for commit in saved["commits"]]
            self.repos[saved["kind"], saved["id"]] = Repo(**saved)

    # --- blobs ---

    def path(self, sha256):
        return self.root / "blobs" / sha256[:2] / sha256

    def has(self, sha256, size=None):
        path = self.path(sha256)
        return path.is_file() and size in (None, path.stat().st_size)

    def put(self, data, sha256=None):
        """Store a content and return its sha256; raises Refused if it differs from the given one."""
        real = hashlib.sha256(data).hexdigest()
        if sha256 not in (None, real):
            raise Refused(f"the content has the sha256 {real}, not {sha256}")
        if not self.has(real):
            self._write(self.path(real), data)
        return real

    def read(self, sha256, start=0, stop=None):
        with self.path(sha256).open("rb") as file:
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)

    def entry(self, data, lfs):
        sha256 = self.put(data)
        return Entry(sha256, len(data), lfs, git_hash("blob", pointer(sha256, len(data)) if lfs else data))

    def lfs_entry(self, sha256):
        """The entry for content that was uploaded before."""
        if not self.has(sha256):
            raise Refused(f"LFS pointer pointed to a file that does not exist: {sha256}")
        size = self.path(sha256).stat().st_size
        return Entry(sha256, size, True, git_hash("blob", pointer(sha256, size)))

    def _write(self, path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        unfinished.write_bytes(data)
        unfinished.replace(path)

    # --- repositories ---

    def create(self, kind, name, **what):
        """A new repository with the initial commit that the Hub makes."""
        with self.lock:
            if kind == "spaces":
                what = {"hardware": "cpu-basic", "sdk": "gradio", **what}
            repo = self.repos[kind, name] = Repo(kind, name, created=now(), **what)
            rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
            self.commit(repo, [(".gitattributes", self.entry(rules.encode(), lfs=False))], "initial commit")
            return repo

    def save(self, repo):
        """Write the repository to disk, completely or not at all."""
        path = self.root / "repos" / repo.kind / f"{repo.id.replace('/', '--')}.json"
        self._write(path, json.dumps(asdict(repo), indent=1).encode())

    def commit(self, repo, changes, message, description="", onto=None, branch="main", author=""):
        """Changes are (path, Entry), or (path, None) to remove a file, or a folder if the path ends in a slash.

        `onto` is the head that the changes were made for; raises Stale if the head has changed since.
        """
        with self.lock:
            head = repo.branches.get(branch)
            if head is None and repo.commits:
                raise NotThere("RevisionNotFound", f"Invalid rev id: {branch}")
            if onto and not (head or "").startswith(onto):
                raise Stale("A commit has happened since. Please refresh and try again.")
            files = _changed(repo.at(head).files if head else {}, changes)
            date = now()
            # Like a git commit, plus a unique line so that two equal commits within a millisecond differ.
            text = f"tree {folders(files)['']}\nparent {head}\nauthor {author} {time.time_ns()}\n\n{message}"
            sha = git_hash("commit", f"{text}\n{uuid.uuid4()}".encode())
            repo.commits.append(Commit(sha, head, message, description, author, date, files))
            repo.branches[branch] = sha
            self.save(repo)
            return repo.commits[-1]


def _changed(files: Mapping[str, Entry], changes: Iterable[tuple[str, Entry | None]]):
    files = dict(files)
    for path, entry in changes:
        if not path.strip("/") or path.startswith("/") or {"..", ".", ".git"} & set(path.split("/")):
            raise Refused(f"{path!r} is no path for a file")
        if entry is not None:
            files[path] = entry
            continue
        gone = [name for name in files if name == path or (path.endswith("/") and name.startswith(path))]
        if not gone:
            raise NotThere("EntryNotFound", f"A file with this name doesn't exist: {path}")
        for name in gone:
            del files[name]
    if both := folders(files).keys() & files.keys():
        raise Refused(f"{min(both)} would be a file and a folder")
    return dict(sorted(files.items()))


# --- cards ---


def card(text):
    """The metadata of a README, {} if it has none; raises yaml.YAMLError for invalid YAML."""
    found = _FRONT_MATTER.match(text)
    return (yaml.safe_load(found[1]) if found else None) or {}


def card_problems(text, kind):
    """The Hub's errors and warnings about the metadata of a README."""
    try:
        data = card(text)
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {error}"], []
    if not isinstance(data, dict):
        return ["YAML metadata must be an object"], []
    if not data:
        return [], ["empty or missing yaml metadata in repo card"]
    errors = []
    tags = data.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        errors.append('"tags" must be an array of strings')
    if kind == "model" and "model-index" in data:
        errors.extend(_index_problems(data["model-index"]))
    if kind == "space":
        for name, allowed in {"sdk": SDKS, "colorFrom": COLOURS, "colorTo": COLOURS}.items():
            if name in data and data[name] not in allowed:
                errors.append(f'"{name}" must be one of [{", ".join(allowed)}]')
        if len(data.get("short_description") or "") > 60:
            errors.append('"short_description" length must be less than or equal to 60 characters long')
    return errors, []


def _index_problems(index):
    for model, where in _items(index, "model-index"):
        yield from _lacking(model, where, "name", "results")
        for result, there in _items(_part(model, "results"), f"{where}.results"):
            yield from _lacking(result, there, "task", "dataset", "metrics")
            for part, names in {"task": ["type"], "dataset": ["type", "name"]}.items():
                if _part(result, part) is not None:
                    yield from _lacking(_part(result, part), f"{there}.{part}", *names)
            for metric, here in _items(_part(result, "metrics"), f"{there}.metrics"):
                yield from _lacking(metric, here, "type", "value")


def _part(value, name):
    return value.get(name) if isinstance(value, dict) else None


def _items(values, where):
    """(item, its path) for each item; anything but a list counts as one invalid item."""
    if values is not None:
        yield from ((item, f"{where}[{i}]") for i, item in enumerate(values if isinstance(values, list) else [values]))


def _lacking(value, where, *names):
    if not isinstance(value, dict):
        yield f'"{where}" must be of type object'
    else:
        yield from (f'"{where}.{name}" is required' for name in names if value.get(name) is None)
