"""Milvus: a server or cluster, `milvus+http(s)://HOST:19530/COLLECTION`, or a file, `milvus:PATH.db` (Milvus Lite).

The token, or `USER:PASSWORD`, is in MILVUS_TOKEN.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pymilvus import DataType, MilvusClient

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import StoreError, first_line
from retrieval.stores.base import MISSING
from retrieval.stores.exact import search_rows
from retrieval.stores.servers import base
from retrieval.stores.servers.base import (
    NO_KEY,
    PATIENCE,
    State,
    Tagged,
    Tags,
    failing,
    in_order,
    no_answers,
    size_of,
    something_else,
)
from retrieval.stores.servers.lease import Check, leased
from retrieval.stores.servers.open import DEFAULT, checked_name, hidden

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it also raises, with the addresses
_PAGE = 10_000  # points; Milvus gives at most 16,384
_MOST_FOUND = 16_384
_MOST_TAGS = 4_096  # of a point: the most that Milvus takes
_EFFORT = 256  # links that a search in the graph looks at, at least
_TOLD = 65_535  # bytes of a text
_STATE, _HELD = 1, 2  # points that tell something
_STRONG = "Strong"  # a search sees what was written before


def open_at(uri: str) -> MilvusCollection:
    """See `open_collection`."""
    kind, _, rest = uri.partition(":")
    with failing(hidden(uri), said=_said):
        if kind == "milvus":
            if Path(rest).suffix != ".db":
                raise StoreError(f"the file of a Milvus store ends in .db, not {hidden(uri)}.")
            return MilvusCollection(uri, MilvusClient(rest), DEFAULT, is_file=True)
        parts = urlsplit(uri)
        address = f"{kind.removeprefix('milvus+')}://{parts.hostname}:{parts.port or 19530}"
        client = MilvusClient(address, token=os.environ.get("MILVUS_TOKEN", ""), timeout=base.ANSWER)
        return MilvusCollection(hidden(uri), client, checked_name(parts.path.strip("/") or DEFAULT))


class MilvusCollection:
    """See `retrieval.stores.servers.base.Collection`."""

    def __init__(self, uri: str, client: Any, name: str, *, is_file: bool = False) -> None:
        self.uri, self._client, self._name, self._about = uri, client, name, f"{name}_state"
        self._is_file = is_file

    def alone(self) -> AbstractContextManager[Check]:
        """See `Collection`."""
        if self._is_file:  # which has one process at a time
            return nullcontext(lambda: None)
        with self._failing():
            self._make_about()
        return leased(self.uri, lambda: self._told(_HELD), lambda mark: self._tell(_HELD, mark))

    def state(self) -> State | None:
        """See `Collection`."""
        with self._failing():
            there = self._client.has_collection(self._about, timeout=base.ANSWER)
            told = self._told(_STATE) if there else ""
            return State.of(json.loads(told)) if told else None

    def create(self, state: State) -> None:
        """See `Collection`."""
        known = self.state() is not None
        with self._failing():
            there = self._client.has_collection(self._name, timeout=base.ANSWER)
            if there and not known:
                raise something_else(self.uri, self._name)
            if not known:
                self._make_about()
                self._tell(_STATE, json.dumps(state.facts()))
            if not there:
                points = self._schema(state.dim)
                points.add_field("tags", DataType.ARRAY, element_type=DataType.INT64, max_capacity=_MOST_TAGS)
                points.add_field("leaving", DataType.BOOL)
                self._create(self._name, points)

    def _make_about(self) -> None:
        if not self._client.has_collection(self._about, timeout=base.ANSWER):
            about = self._schema(2)
            about.add_field("told", DataType.VARCHAR, max_length=_TOLD)
            self._create(self._about, about)

    def _schema(self, dim: int) -> Any:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        return schema

    def _create(self, name: str, schema: Any) -> None:
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
        self._client.create_collection(
            name, schema=schema, index_params=index, consistency_level=_STRONG, timeout=base.ANSWER
        )

    def set_versions(self, versions: Mapping[str, int]) -> None:
        """See `Collection`."""
        if (state := self.state()) is None:
            raise StoreError(f"{self.uri} has no collection {self._name}.")
        self._tell(_STATE, json.dumps(State(state.encoder, state.dim, versions).facts()))

    def _told(self, key: int) -> str:
        with self._failing():
            found = self._client.query(
                self._about, ids=[key], output_fields=["told"], timeout=base.ANSWER, consistency_level=_STRONG
            )
        return str(found[0]["told"]) if found else ""

    def _tell(self, key: int, told: str) -> None:
        point = {"key": key, "vector": [1.0, 0.0], "told": told}
        with self._failing():
            self._client.upsert(self._about, [point], timeout=base.ANSWER)

    def keys(self) -> Ids:
        """See `Collection`."""
        found = [np.empty(0, np.int64)]
        with self._failing():
            pages = self._client.query_iterator(
                self._name, filter="", batch_size=_PAGE, output_fields=["key"], timeout=base.ANSWER
            )
            while page := pages.next():
                found.append(np.array([point["key"] for point in page], np.int64))
            pages.close()
        return np.sort(np.concatenate(found))

    def upsert(self, keys: Ids, vectors: Vectors, tags: Tags) -> None:
        """See `Collection`."""
        self._send(zip(keys.tolist(), vectors.tolist(), (own.tolist() for own in tags), strict=True), leaving=False)

    def _send(self, points: Any, *, leaving: bool) -> None:
        names = ("key", "vector", "tags")
        with self._failing():
            rows = [{**dict(zip(names, point, strict=True)), "leaving": leaving} for point in points]
            if rows:
                self._client.upsert(self._name, rows, timeout=base.ANSWER)

    def mark_leaving(self, keys: Ids) -> None:
        """See `Collection`."""
        for at in range(0, len(keys), 1_000):  # whole points, as older servers cannot change a part of one
            found = self._points(keys[at : at + 1_000], ["vector", "tags"])
            self._send(((point["key"], point["vector"], point["tags"]) for point in found), leaving=True)

    def delete_leaving(self) -> None:
        """See `Collection`."""
        with self._failing():
            self._client.delete(self._name, filter="leaving == true", timeout=PATIENCE)

    def finish(self) -> None:
        """See `Collection`."""
        with self._failing():
            self._client.flush(self._name, timeout=PATIENCE)
            self._client.load_collection(self._name, timeout=PATIENCE)

    def search(self, queries: Vectors, k: int, where: Sequence[Tagged] = ()) -> tuple[Ids, Floats]:
        """See `Collection`."""
        keys, scores = no_answers(queries, k)
        with self._failing():
            answers = self._client.search(
                self._name, queries.tolist(), filter=" and ".join(map(_condition, where)), limit=min(k, _MOST_FOUND),
                output_fields=["key"], search_params={"metric_type": "IP", "params": {"ef": max(_EFFORT, 2 * k)}},
                timeout=base.ANSWER, consistency_level=_STRONG,
            )  # fmt: skip
        for row, answer in enumerate(answers):
            keys[row, : len(answer)] = [int(point["key"]) for point in answer]
            scores[row, : len(answer)] = [point["distance"] for point in answer]
        return keys, scores

    def compare(self, queries: Vectors, keys: Ids, k: int) -> tuple[Ids, Floats]:
        """See `Collection`. Milvus has no search that is exact beside its graph, so the vectors are compared here."""
        best, scores = search_rows(queries, self.vectors(keys), keys, k)
        return np.where(best == MISSING, NO_KEY, best), scores

    def vectors(self, keys: Ids) -> Vectors:
        """See `Collection`."""
        found = {int(point["key"]): point["vector"] for point in self._points(keys, ["vector"])}
        return in_order(self.uri, keys, found)

    def _points(self, keys: Ids, fields: list[str]) -> list[Any]:
        with self._failing():
            return list(
                self._client.query(
                    self._name, ids=keys.tolist(), output_fields=["key", *fields], timeout=base.ANSWER,
                    consistency_level=_STRONG,
                )
            )  # fmt: skip

    def _failing(self) -> AbstractContextManager[None]:
        return failing(self.uri, said=_said)

    def size(self) -> int | None:
        """See `Collection`."""
        return size_of(Path(self.uri.partition(":")[2])) if self._is_file else None

    def drop(self) -> None:
        """See `Collection`."""
        with self._failing():
            for name in (self._name, self._about):
                self._client.drop_collection(name, timeout=base.ANSWER)

    def close(self) -> None:
        """See `Collection`."""
        self._client.close()


def _said(error: Any) -> str:
    """What an error says, without the names of classes and codes around it."""
    if not callable(code := getattr(error, "code", None)):
        return getattr(error, "message", "") or first_line(error)
    if code().name == "DEADLINE_EXCEEDED":  # an error of gRPC itself
        return f"there was no answer within {base.ANSWER:.0f} seconds"
    return error.details() or first_line(error)


def _condition(where: Tagged) -> str:
    has = f"array_contains_any(tags, {list(where.tags)})"
    return f"not {has}" if where.negated else has
