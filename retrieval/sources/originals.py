"""Where the originals of a gallery lie: paths below the folder of the source, or web addresses.

An artifact may be published, so nothing is kept that tells more than the source's own names: no absolute path, and no
address with a password or a token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pyarrow as pa

from retrieval.images.gallery import ORIGINAL
from retrieval.sources.base import RawImage, Source
from retrieval.sources.features import library
from retrieval.words import is_address

_SECRETS = ("token", "signature", "sig", "key", "apikey", "secret", "password", "auth", "credential", "expires")
_SIGNED = ("x-amz-", "x-goog-", "x-ms-")
_DATA_SETS = "hf://datasets/"


def with_originals(source: Source) -> Source:
    """The same source; its rows have one more column, ORIGINAL: where the original lies, None inside another file."""
    if ORIGINAL in source.schema.names:
        return source

    def rows(*position: Any) -> Iterator[RawImage]:
        for raw in source.rows(*position):
            yield replace(raw, attributes={**raw.attributes, ORIGINAL: original_of(raw)})

    schema = source.schema.append(pa.field(ORIGINAL, pa.string()))
    return replace(source, rows=rows, schema=schema, fingerprint=f"{source.fingerprint} originals")


def original_of(raw: RawImage) -> str | None:
    """Where the original of an image lies: a relative path with `/`, or an http(s) address without secrets."""
    place = raw.original or (raw.source if is_address(raw.source) else None)
    if place is None or is_address(place):
        return place and without_secrets(place)
    try:
        place.encode()
    except UnicodeEncodeError:  # a name that is not UTF-8 cannot be stored
        return None
    return None if PurePosixPath(place).is_absolute() else place


def without_secrets(address: str) -> str | None:
    """An address without user, password, fragment, and parameters named like secrets; None if it cannot be parsed."""
    try:
        parts = urlsplit(address)
        asked = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return None
    kept = [(name, value) for name, value in asked if not _is_secret(name)]
    query = parts.query if len(kept) == len(asked) else urlencode(kept)  # as it was written, if possible
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query, fragment="").geturl()


def original_in(path: str | None, root: str) -> str | None:
    """Where a file of a dataset lies: its path below `root`, or its address on the Hub; None inside another file."""
    if not path or "::" in path:
        return None
    if path.startswith(_DATA_SETS):
        repo, at, rest = path.removeprefix(_DATA_SETS).partition("@")
        revision, _, file = rest.partition("/")
        return f"{library().config.HF_ENDPOINT}/datasets/{repo}/resolve/{revision}/{quote(file)}" if at else None
    whole, top = os.path.normpath(path), _folder(root)  # without `..`, which would lead out
    return None if "://" in path or not whole.startswith(top) else whole.removeprefix(top)


@lru_cache(maxsize=8)
def _folder(root: str) -> str:
    """The resolved path of a folder, which is the same for each of many files, with a slash at its end."""
    return f"{Path(root).resolve()}/"


def _is_secret(parameter: str) -> bool:
    name = parameter.lower()
    return name.startswith(_SIGNED) or any(name == word or name.endswith(("_" + word, "-" + word)) for word in _SECRETS)
