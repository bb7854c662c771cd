"""Opens a collection by its URI; the client of a database is imported only when it is needed."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from retrieval.errors import StoreError, short
from retrieval.installed import needs

if TYPE_CHECKING:
    from retrieval.stores.servers.base import Collection

STORE = "LOOKALIKE_STORE"  # the environment variable that `--store` sets, for this process and its children
# What a URI begins with -> the module that opens it.
_MODULES = {
    "qdrant": "retrieval.stores.servers.qdrant",
    "qdrant+http": "retrieval.stores.servers.qdrant",
    "qdrant+https": "retrieval.stores.servers.qdrant",
    "postgresql": "retrieval.stores.servers.pgvector",
    "milvus": "retrieval.stores.servers.milvus",
    "milvus+http": "retrieval.stores.servers.milvus",
    "milvus+https": "retrieval.stores.servers.milvus",
}
_FORMS = (
    "postgresql://USER@HOST/DATABASE, qdrant+https://HOST:6333/COLLECTION, qdrant:FOLDER, "
    "milvus+https://HOST:19530/COLLECTION or milvus:FILE.db"
)
# A password may have any character, also those that should be written as %2F or %40.
_PASSWORD = re.compile(r"(?<=//)([^:]*):(?!@)(.+)@", re.DOTALL)
_SECRET = re.compile(r"([?&#](?:password|passfile|sslpassword|token|api[_-]?key)=)[^&#]*", re.IGNORECASE)
_COLLECTION = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")
DEFAULT = "lookalike"  # the name of a collection


def open_collection(uri: str) -> Collection:
    """The collection at a URI, which need not exist yet.

    Raises StoreError for a URI of another form, one with a password, and a database that does not answer, and
    MissingExtraError if its client is not installed.
    """
    kind = uri.partition(":")[0]
    if kind not in _MODULES or ":" not in uri:
        raise StoreError(f"there is no store {short(repr(hidden(uri)), 100)}: give {_FORMS}.")
    if hidden(uri) != uri:
        raise StoreError(
            f"the address of a store must not hold a password, as addresses are shown: {hidden(uri)}. Set it in the "
            "environment (see docs/stores.md)."
        )
    with needs(f"the store {kind}"):
        module = importlib.import_module(_MODULES[kind])
    return cast("Callable[[str], Collection]", module.open_at)(uri)


def hidden(uri: str) -> str:
    """A URI without its secrets."""
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", uri))


def renamed(uri: str, name: str) -> str:
    """The URI of another collection in the same database; a file or a folder has only one, so its own."""
    kind = uri.partition(":")[0]
    if kind in ("qdrant", "milvus"):
        return uri
    parts = urlsplit(uri)
    if kind != "postgresql":
        return urlunsplit(parts._replace(path=f"/{name}"))
    settings = {**dict(parse_qsl(parts.query, keep_blank_values=True)), "collection": name}
    return urlunsplit(parts._replace(query=urlencode(settings)))


def checked_name(name: str) -> str:
    """The name of a collection; raises StoreError for one that not all databases can have."""
    if not _COLLECTION.fullmatch(name):
        raise StoreError(
            f"a collection cannot be called {short(repr(name), 60)}: its name has up to 48 letters, digits and "
            "underscores, a letter first."
        )
    return name
