"""A small Hugging Face Hub on 127.0.0.1 for the real clients, which HF_ENDPOINT sends here, without Xet.

It answers the requests of `huggingface_hub`, which timm, transformers and datasets use, checks uploads, and serves big
files from another host name, as the Hub does. Tests find every request in `HubServer.requests` and inject failures with
`HubServer.faults`. The answers are in `hub_routes`, the repositories in `hub_store`.
"""

import asyncio
import hashlib
import os
import re
import secrets
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from urllib.parse import unquote

import uvicorn
from hub_routes import ROUTES, Call, Denied, owns
from hub_store import NotThere, Refused, Stale, Store, is_lfs

TOKENS = {
    "hf_write": {"name": "me", "role": "write"},
    "hf_read": {"name": "me", "role": "read"},
    "hf_other": {"name": "somebody", "role": "write"},
}
UNRECORDED = ("/api/agent-harnesses", "/api/telemetry/")  # sent by the client itself now and then


@dataclass(frozen=True)
class Request:
    """One request as received; its status is 499 if the client disconnected before the answer."""

    method: str
    path: str  # not percent-encoded, with the query
    status: int
    sent: int  # bytes of its body
    authorization: str | None
    range: str | None


@dataclass
class Fault:
    """A failure for requests whose "METHOD /path?query" matches; the first fault that matches applies."""

    match: str
    times: int | None = 1  # None: for all of them
    status: int | None = None  # the status to answer instead
    headers: dict[str, str | None] = field(default_factory=dict)  # set in the answer; None removes one
    delay: float = 0.0  # seconds to wait first; if the client disconnects meanwhile, nothing is done
    cut: int | None = None  # the connection breaks after this many bytes of the body
    corrupt: bool = False  # bytes in the middle are changed
    before: Callable[[], None] | None = None  # called first, in its own thread
    short: int | None = None  # the body is cut to this length, and its Content-Length agrees
    used: int = 0


class HubServer:
    """`with HubServer(folder) as hub:` serves at `hub.url`; `stop` and `start` keep the address.

    A repository type may be given as "model" or "models". `tokens` are {token: {"name", "role", optional "orgs"}}.
    """

    def __init__(self, folder, tokens=None):
        self.store, self.tokens = Store(folder), dict(TOKENS if tokens is None else tokens)
        self.requests, self.faults = [], []
        self.port, self._server, self._secret = 0, None, secrets.token_hex()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self):
        """The same server under another name, which the clients treat as another host: no token may be sent there."""
        return f"http://localhost:{self.port}"

    def start(self):
        # asyncio sends small packets at once only for sockets with the protocol set to TCP.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        quiet = {"log_level": "critical", "access_log": False, "lifespan": "off", "ws": "none", "server_header": False}
        kinds = {"interface": "asgi3", "loop": "asyncio", "http": "h11", "proxy_headers": False}
        waits = {"timeout_keep_alive": 300, "timeout_graceful_shutdown": 1}
        self._server = uvicorn.Server(uvicorn.Config(self._app, **kinds, **quiet, **waits))
        self._thread = Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the Hub did not start")
            time.sleep(0.01)

    def stop(self):
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join()
            self._server = None

    def clear(self):
        self.requests.clear()

    def environment(self, home, token=None):
        """The environment of a process whose Hub clients use only this server."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        ours |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return ours | {"NO_PROXY": "127.0.0.1,localhost"} | ({"HF_TOKEN": token} if token else {})

    # --- for tests ---

    def repo(self, repo_type, repo_id):
        return self.store.repos[f"{repo_type.rstrip('s')}s", repo_id]

    def commit(self, repo_type, repo_id, files, message="a commit"):
        """Commit {path: content, or None to remove it}, creating the repository if needed; returns the commit's sha."""
        store, kind = self.store, f"{repo_type.rstrip('s')}s"
        repo = store.repos.get((kind, repo_id)) or store.create(kind, repo_id)
        changes = [
            (path, None if data is None else store.entry(data, is_lfs(path, len(data)))) for path, data in files.items()
        ]
        return store.commit(repo, changes, message, author="test").sha

    def head(self, repo_type, repo_id):
        return self.repo(repo_type, repo_id).at("main").sha

    def files(self, repo_type, repo_id, revision=None):
        commit = self.repo(repo_type, repo_id).at(revision or "main")
        return {path: self.store.read(entry.sha256) for path, entry in commit.files.items()}

    def tag(self, repo_type, repo_id, name, sha):
        repo = self.repo(repo_type, repo_id)
        repo.tags[name] = repo.at(sha).sha
        self.store.save(repo)

    # --- who may do what ---

    def sign(self, text):
        return hashlib.sha256(f"{self._secret}{text}".encode()).hexdigest()[:32]

    def _user(self, call):
        header = call.headers.get("authorization")
        if header is None:
            return None
        user = self.tokens.get(header.removeprefix("Bearer "))
        if user is None:
            raise Denied(401, "Invalid credentials in Authorization header")
        return user

    def _repo(self, kind, name, user, access):
        if access == "write" and user is None:
            # With this code, clients raise the same error over http as over https for a 401 without a code.
            raise Denied(401, "Invalid username or password.", "RepoNotFound")
        repo, own = self.store.repos.get((kind, name)), owns(user, name)
        if repo is None or (repo.private and not own):
            raise Denied(404 if user else 401, "Repository not found", "RepoNotFound")
        if access == "write" and not (own and user["role"] == "write"):
            raise Denied(403, f"You don't have the rights to write to {name}")
        if access == "files" and repo.gated and not (own or (user and user["name"] in repo.granted)):
            more = " and you are not in the authorized list" if user else ". Please log in"
            raise Denied(403 if user else 401, f"Access to {name} is restricted{more}.", "GatedRepo")
        return repo

    # --- HTTP ---

    def _answer(self, call):
        try:
            for methods, pattern, access, function in ROUTES:
                found = pattern.fullmatch(call.path)
                if found is None or call.method not in methods:
                    continue
                call.user = None if access == "signed" else self._user(call)
                values = {name: value and unquote(value) for name, value in found.groupdict().items()}
                if "repo" in values:
                    kind = values.pop("kind") or "models"
                    values["repo"] = self._repo(kind, values["repo"], call.user, access)
                return function(self, call, **values)
            raise Denied(404, "Not Found")
        except Denied as error:
            return error.reply()
        except NotThere as error:
            return Denied(404, str(error), error.code, {"X-Repo-Commit": error.sha} if error.sha else None).reply()
        except Stale as error:
            return Denied(412, str(error)).reply()
        except Refused as error:
            return Denied(400, str(error)).reply()

    def _fault(self, call):
        for fault in self.faults:
            left = fault.times is None or fault.used < fault.times
            if left and re.search(fault.match, f"{call.method} {call.target}"):
                fault.used += 1
                return fault
        return Fault("")

    def _handle(self, call, fault):
        """Runs in a thread, so that the functions called here can send requests to this server."""
        try:
            if fault.before:
                fault.before()
            reply = Denied(fault.status, "a fault").reply() if fault.status else self._answer(call)
        except Exception:
            traceback.print_exc()  # a bug in this server or in a test, which would otherwise be just a 500
            reply = Denied(500, "Internal Server Error").reply()
        _spoil(reply, fault)
        changed = {name.lower() for name in fault.headers}
        kept = {name: value for name, value in reply.headers.items() if name.lower() not in changed}
        reply.headers = {"Content-Length": str(len(reply.body)), **kept, **fault.headers}
        return reply

    async def _app(self, scope, receive, send):
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        call = Call(scope["method"], scope["raw_path"].decode(), scope["query_string"].decode(), headers)
        fault = Fault("")
        gone = await _gone(call, receive)
        if not gone and not call.path.startswith(UNRECORDED):
            fault = self._fault(call)
            with suppress(TimeoutError):
                gone = fault.delay > 0 and await asyncio.wait_for(_gone(call, receive, forever=True), fault.delay)
        if gone:
            self._record(call, 499)
            return
        reply = await asyncio.to_thread(self._handle, call, fault)
        self._record(call, reply.status)
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in reply.headers.items() if value]
        await send({"type": "http.response.start", "status": reply.status, "headers": raw})
        # If more is announced and does not come, uvicorn closes the connection.
        await send({"type": "http.response.body", "body": reply.body[: fault.cut], "more_body": fault.cut is not None})

    def _record(self, call, status):
        if not call.path.startswith(UNRECORDED):
            authorization, span = call.headers.get("authorization"), call.headers.get("range")
            self.requests.append(Request(call.method, call.target, status, len(call.body), authorization, span))


async def _gone(call, receive, forever=False):
    """Receive the body of a call; returns whether the client disconnected before it was complete.

    With `forever` it waits until the client disconnects.
    """
    more = True
    while more or forever:
        message = await receive()
        if message["type"] == "http.disconnect":
            return True
        call.body += message.get("body", b"")
        more = message.get("more_body", False)
    return False


def _spoil(reply, fault):
    if fault.corrupt:
        middle = len(reply.body) // 2
        bad = bytes(byte ^ 0xFF for byte in reply.body[middle : middle + 16])
        reply.body = reply.body[:middle] + bad + reply.body[middle + 16 :]
    if fault.short is not None:
        reply.body = reply.body[: fault.short]
        if "Content-Length" in reply.headers:  # in an answer to HEAD
            reply.headers["Content-Length"] = str(min(fault.short, int(reply.headers["Content-Length"])))
        if found := re.fullmatch(r"bytes (\d+)-\d+/(\d+)", reply.headers.get("Content-Range", "")):
            reply.headers["Content-Range"] = f"bytes {found[1]}-{int(found[1]) + len(reply.body) - 1}/{found[2]}"
