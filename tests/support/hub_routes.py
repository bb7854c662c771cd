"""The answers of the Hub in `hub_server`: one function per route, from a call to a reply.

They follow what `huggingface_hub` 2 sends and expects.
"""

import base64
import hashlib
import json
import mimetypes
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import parse_qs, quote, unquote

import yaml
from hub_store import NotThere, card, card_problems, folders, is_lfs, pointer

KIND, REPO, REVISION = r"(?P<kind>models|datasets|spaces)", r"(?P<repo>[^/]+(?:/[^/]+)??)", r"(?P<revision>[^/]+)"
PAGE = rf"/(?:(?P<kind>datasets|spaces)/)?{REPO}"
ROUTES: list[tuple[list[str], re.Pattern, str, Callable]] = []


@dataclass
class Call:
    """A request on its way through the server."""

    method: str
    path: str  # as received, percent-encoded: a revision or a folder may contain slashes
    raw_query: str
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    user: dict | None = None

    @property
    def target(self):
        return unquote(self.path) + (f"?{self.raw_query}" if self.raw_query else "")

    def query(self, name):
        return parse_qs(self.raw_query).get(name, [])

    def form(self):
        """The body's fields, from JSON or from a form."""
        if "json" in self.headers.get("content-type", ""):
            return json.loads(self.body)
        return parse_qs(self.body.decode())


@dataclass
class Reply:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Denied(Exception):
    """A request that the server refuses, with the Hub's error code if there is one."""

    def __init__(self, status, message, code=None, headers=None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}

    def reply(self):
        headers = {**self.headers, "X-Error-Message": str(self), **({"X-Error-Code": self.code} if self.code else {})}
        return as_json({"error": str(self)}, self.status, headers)


def as_json(value, status=200, headers=None):
    body = json.dumps(value, default=str).encode()  # a card may contain dates, which JSON does not have
    return Reply(status, body, {"Content-Type": "application/json", **(headers or {})})


def route(methods, pattern, access=""):
    """Register a function to answer these requests.

    `access` is what it does with its repository: "read" it, read its "files" (which may be gated), or "write" to it;
    "signed" is for addresses that carry a signature, where no token is checked.
    """

    def add(function):
        ROUTES.append((methods.split(), re.compile(pattern), access, function))
        return function

    return add


def owns(user, name):
    return user is not None and name.split("/")[0] in [user["name"], *user.get("orgs", [])]


def page(repo):
    return repo.id if repo.kind == "models" else f"{repo.kind}/{repo.id}"


# --- accounts and repositories ---


@route("GET", "/api/whoami-v2")
def whoami(hub, call):
    if call.user is None:
        raise Denied(401, "Invalid username or password.")
    token = {"role": call.user["role"], "displayName": call.user["role"]}
    orgs = [{"type": "org", "name": name} for name in call.user.get("orgs", [])]
    return as_json({"type": "user", "name": call.user["name"], "auth": {"accessToken": token}, "orgs": orgs})


@route("POST", "/api/repos/create")
def create(hub, call):
    if call.user is None:
        raise Denied(401, "Invalid username or password.")
    asked = call.form()
    kind, owner = f"{asked.get('type') or 'model'}s", asked.get("organization") or call.user["name"]
    name = f"{owner}/{asked['name']}"
    if kind not in {"models", "datasets", "spaces"}:
        raise Denied(400, f"there are no {kind} here")
    if call.user["role"] != "write" or not owns(call.user, name):
        raise Denied(403, f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{owner}"')
    what = {"private": asked.get("visibility") == "private" or bool(asked.get("private"))}
    if kind == "spaces":
        what |= {name: asked[name] for name in ("sdk", "hardware") if asked.get(name)}
        what["variables"] = {variable["key"]: variable["value"] for variable in asked.get("variables", [])}
    with hub.store.lock:
        there = hub.store.repos.get((kind, name))
        repo = there or hub.store.create(kind, name, **what)
    answer = {"url": f"{hub.url}/{page(repo)}", "name": name}
    if there:
        return as_json({**answer, "error": f"You already created this {kind[:-1]} repo"}, 409)
    return as_json(answer)


@route("POST", "/api/validate-yaml")
def validate_yaml(hub, call):
    asked = call.form()
    errors, warnings = card_problems(asked["content"], asked.get("repoType") or "model")
    problems = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return as_json(problems, 400 if errors else 200)


@route("GET", rf"/api/{KIND}/{REPO}(?:/revision/{REVISION})?", "read")
def info(hub, call, repo, revision):
    commit = repo.at(revision or "main")
    blobs = "true" in call.query("blobs")
    told = {"_id": hashlib.sha1(repo.id.encode()).hexdigest()[:24], "id": repo.id, "author": repo.id.split("/")[0]}
    told |= {"sha": commit.sha, "lastModified": commit.date, "createdAt": repo.created, "private": repo.private}
    told |= {"gated": repo.gated, "disabled": False, "downloads": 0, "likes": 0, **card_of(hub, commit)}
    told["siblings"] = [sibling(path, entry, blobs) for path, entry in commit.files.items()]
    if repo.kind == "models":
        told["modelId"] = repo.id
    if repo.kind == "spaces":
        told |= {"sdk": repo.sdk, "runtime": runtime_of(repo)}
    if wanted := call.query("expand"):
        told = {name: value for name, value in told.items() if name in {"_id", "id", *wanted}}
    return as_json(told)


def card_of(hub, commit):
    """What the Hub reports about a repository from its card."""
    readme = commit.files.get("README.md")
    try:
        data = card(hub.store.read(readme.sha256).decode("utf-8", "replace")) if readme else {}
    except yaml.YAMLError:
        data = {}
    if not isinstance(data, dict) or not data:
        return {"tags": ["region:us"]}
    tags = [tag for tag in data.get("tags") or [] if isinstance(tag, str)]
    tags += [data[name] for name in ("library_name", "pipeline_tag") if data.get(name)]
    for name, key in {"license": "license", "datasets": "dataset", "base_model": "base_model"}.items():
        values = data.get(name) or []
        tags += [f"{key}:{value}" for value in (values if isinstance(values, list) else [values])]
    top = {name: data[name] for name in ("library_name", "pipeline_tag", "model-index") if name in data}
    return {**top, "tags": list(dict.fromkeys([*tags, "region:us"])), "cardData": data}


def sibling(path, entry, blobs):
    told = {"rfilename": path, **({"size": entry.size, "blobId": entry.oid} if blobs else {})}
    return {**told, "lfs": {"sha256": entry.sha256, **lfs_of(entry)}} if blobs and entry.lfs else told


def lfs_of(entry):
    return {"size": entry.size, "pointerSize": len(pointer(entry.sha256, entry.size))}


@route("GET", rf"/api/{KIND}/{REPO}/tree/{REVISION}(?:/(?P<path>.+))?", "read")
def tree(hub, call, repo, revision, path):
    commit = repo.at(revision)
    below = f"{path.strip('/')}/" if path else ""
    rows = [row for row in listing(repo, commit, "true" in call.query("expand")) if row["path"].startswith(below)]
    if below and not rows:
        raise NotThere("EntryNotFound", f"{path} does not exist on {revision}", commit.sha)
    if "true" not in call.query("recursive"):
        rows = [row for row in rows if "/" not in row["path"].removeprefix(below)]
    return as_json(rows)


@route("POST", rf"/api/{KIND}/{REPO}/paths-info/{REVISION}", "read")
def paths_info(hub, call, repo, revision):
    asked = call.form()
    expand = asked.get("expand") in (True, ["true"])
    wanted = {path.strip("/") for path in asked.get("paths", [])}
    return as_json([row for row in listing(repo, repo.at(revision), expand) if row["path"] in wanted])


def listing(repo, commit, expand):
    """A row for each folder of a commit, then one for each file."""
    rows = [{"type": "directory", "oid": oid, "size": 0, "path": path} for path, oid in folders(commit.files).items()]
    rows = sorted((row for row in rows if row["path"]), key=lambda row: row["path"])
    for path, entry in commit.files.items():
        row = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
        rows.append({**row, "lfs": {"oid": entry.sha256, **lfs_of(entry)}} if entry.lfs else row)
    for row in rows if expand else []:
        last = repo.last_change(commit, row["path"])
        row["lastCommit"] = {"id": last.sha, "title": last.message, "date": last.date}
    return rows


@route("GET", rf"/api/{KIND}/{REPO}/commits/{REVISION}", "read")
def commits(hub, call, repo, revision):
    return as_json(
        [
            {"id": c.sha, "title": c.message, "message": c.description, "authors": [{"user": c.author}], "date": c.date}
            for c in repo.history(revision)
        ]
    )


@route("GET", rf"/api/{KIND}/{REPO}/refs", "read")
def refs(hub, call, repo):
    def rows(names, where):
        return [{"name": name, "ref": f"refs/{where}/{name}", "targetCommit": sha} for name, sha in names.items()]

    answer = {"branches": rows(repo.branches, "heads"), "tags": rows(repo.tags, "tags"), "converts": []}
    return as_json({**answer, "pullRequests": []})


# --- Spaces ---


def runtime_of(repo):
    files = repo.at().files
    stage = "RUNNING" if "Dockerfile" in files or "app.py" in files else "NO_APP_FILE"
    hardware = {"current": repo.hardware, "requested": repo.hardware}
    return {"stage": stage, "hardware": hardware, "gcTimeout": repo.sleep_time, "storage": None}


@route("GET", rf"/api/(?P<kind>spaces)/{REPO}/runtime", "read")
def runtime(hub, call, repo):
    return as_json(runtime_of(repo))


@route("POST", rf"/api/(?P<kind>spaces)/{REPO}/hardware", "write")
def hardware(hub, call, repo):
    asked = call.form()
    repo.hardware, repo.sleep_time = asked["flavor"], asked.get("sleepTimeSeconds")
    hub.store.save(repo)
    return as_json(runtime_of(repo))


@route("GET POST DELETE", rf"/api/(?P<kind>spaces)/{REPO}/variables", "write")
def variables(hub, call, repo):
    if call.method == "POST":
        repo.variables[call.form()["key"]] = call.form()["value"]
    if call.method == "DELETE":
        repo.variables.pop(call.form()["key"], None)
    hub.store.save(repo)
    return as_json({key: {"value": value} for key, value in repo.variables.items()})


# --- files, in ---


@route("POST", rf"/api/{KIND}/{REPO}/preupload/{REVISION}", "write")
def preupload(hub, call, repo, revision):
    there = repo.at(revision).files

    def told(path, size):
        mode = "lfs" if is_lfs(path, size) else "regular"
        # The client does not upload a file that has this hash: sha256 of the content for LFS, otherwise git's.
        oid = {"oid": there[path].etag} if path in there else {}
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, **oid}

    return as_json({"files": [told(file["path"], file["size"]) for file in call.form()["files"]]})


@route("POST", rf"{PAGE}\.git/info/lfs/objects/batch", "write")
def lfs_batch(hub, call, repo):
    asked = call.form()
    if asked.get("operation") != "upload":
        raise Denied(400, "only uploads are done here")
    told = []
    for wanted in asked["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        told.append({"oid": oid, "size": size})
        if not hub.store.has(oid, size):
            upload = f"{hub.cdn}/upload/{oid}?size={size}&signature={hub.sign(f'{oid} {size}')}"
            verify = f"{hub.url}/{page(repo)}.git/info/lfs/objects/verify"
            told[-1]["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
    return as_json({"transfer": "basic", "objects": told, "hash_algo": "sha256"})


@route("PUT", "/upload/(?P<oid>[0-9a-f]{64})", "signed")
def upload(hub, call, oid):
    size = int(call.query("size")[0])
    if call.query("signature") != [hub.sign(f"{oid} {size}")]:
        raise Denied(403, "SignatureDoesNotMatch")
    if len(call.body) != size:
        raise Denied(400, f"{len(call.body)} bytes arrived, not {size}")
    hub.store.put(call.body, oid)
    return Reply(200)


@route("POST", rf"{PAGE}\.git/info/lfs/objects/verify", "write")
def lfs_verify(hub, call, repo):
    if not hub.store.has(call.form()["oid"], call.form()["size"]):
        raise Denied(404, "Object does not exist")
    return as_json({})


@route("POST", rf"/api/{KIND}/{REPO}/commit/{REVISION}", "write")
def commit(hub, call, repo, revision):
    lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    if not lines or lines[0]["key"] != "header":
        raise Denied(400, "a commit begins with its header")
    head = lines[0]["value"]
    changes = [change(hub, line["key"], line["value"]) for line in lines[1:]]
    about = (head["summary"], head.get("description", ""), head.get("parentCommit"))
    made = hub.store.commit(repo, changes, *about, branch=revision, author=call.user["name"])
    url = f"{hub.url}/{page(repo)}/commit/{made.sha}"
    answer = {"success": True, "commitUrl": url, "commitOid": made.sha, "pullRequestUrl": None, "hookOutput": ""}
    return as_json(answer)


def change(hub, key, value):
    if key == "file":
        content = value["content"]
        data = base64.b64decode(content, validate=True) if value.get("encoding") == "base64" else content.encode()
        return value["path"], hub.store.entry(data, lfs=False)
    if key == "lfsFile":
        entry = hub.store.lfs_entry(value["oid"])
        if value.get("size", entry.size) != entry.size:
            raise Denied(400, f"{value['path']} is of {entry.size} bytes, not {value['size']}")
        return value["path"], entry
    if key in {"deletedFile", "deletedFolder"}:
        return value["path"].rstrip("/") + ("/" if key == "deletedFolder" else ""), None
    raise Denied(400, f"unknown operation {key}")


# --- files, out ---


@route("GET HEAD", rf"{PAGE}/resolve/{REVISION}/(?P<path>.+)", "files")
def resolve(hub, call, repo, revision, path):
    commit = repo.at(revision)
    if path not in commit.files:
        raise NotThere("EntryNotFound", "Entry not found", commit.sha)
    entry, headers = commit.files[path], {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
    if not entry.lfs:
        return content(hub, call, entry, path, headers)
    signature = hub.sign(entry.sha256)
    location = f"{hub.cdn}/cdn/{entry.sha256}?path={quote(path)}&signature={signature}"
    headers |= {"Location": location, "X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    return Reply(302, f"Found. Redirecting to {location}".encode(), headers)


@route("GET HEAD", "/cdn/(?P<sha256>[0-9a-f]{64})", "signed")
def from_cdn(hub, call, sha256):
    if call.query("signature") != [hub.sign(sha256)]:
        raise Denied(403, "AccessDenied")
    return content(hub, call, hub.store.lfs_entry(sha256), call.query("path")[0], {"Accept-Ranges": "bytes"})


def content(hub, call, entry, path, headers):
    """The bytes of a file, or of the requested range."""
    name = quote(PurePosixPath(path).name)
    headers |= {"ETag": f'"{entry.etag}"', "Content-Type": mimetypes.guess_type(path)[0] or "application/octet-stream"}
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{name}; filename=\"{name}\";"
    if call.method == "HEAD":
        return Reply(200, b"", {**headers, "Content-Length": str(entry.size)})
    found = re.fullmatch(r"bytes=(\d+-\d*|-\d+)", call.headers.get("range", ""))
    if found is None:  # a request for several ranges may be answered with the whole file
        return Reply(200, hub.store.read(entry.sha256), headers)
    first, _, last = found[1].partition("-")
    start = int(first) if first else max(0, entry.size - int(last))
    stop = min(entry.size, int(last) + 1) if first and last else entry.size
    if start >= stop:
        whole = {"Content-Range": f"bytes */{entry.size}", "Accept-Ranges": "bytes"}
        raise Denied(416, "The requested range is not satisfiable", None, whole)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{entry.size}"
    return Reply(206, hub.store.read(entry.sha256, start, stop), headers)
