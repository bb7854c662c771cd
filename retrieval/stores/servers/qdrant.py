"""Qdrant: a server, or a folder that the client searches itself (for tests and small galleries).

`qdrant+http(s)://HOST:6333/COLLECTION`, with the key in QDRANT_API_KEY; or `qdrant:FOLDER`.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from qdrant_client import QdrantClient, models

from retrieval.arrays import Floats, Ids, Vectors
from retrieval.errors import StoreError, first_line
from retrieval.stores.servers import base
from retrieval.stores.servers.base import (
    PATIENCE,
    State,
    Tagged,
    Tags,
    check_lost,
    failing,
    in_order,
    no_answers,
    size_of,
    something_else,
)
from retrieval.stores.servers.lease import Check, leased
from retrieval.stores.servers.open import DEFAULT, checked_name, hidden

_MEMORY = ":memory:"  # in the place of a folder: gone with the process
_PAGE = 10_000  # points
_EFFORT = 128  # links that a search in the graph looks at, at least
_STATE, _HELD = 1, 2  # points that tell something
_TAGS, _LEAVING = "tags", "leaving"  # of a point's payload


def open_at(uri: str) -> QdrantCollection:
    """See `open_collection`."""
    kind, _, rest = uri.partition(":")
    with failing(hidden(uri), said=_said), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a key that is sent without TLS, and of what a folder cannot do
        if kind == "qdrant":
            client = QdrantClient(location=rest) if rest == _MEMORY else QdrantClient(path=rest)
            return QdrantCollection(uri, client, DEFAULT, is_file=True)
        parts = urlsplit(uri)
        address = f"{kind.removeprefix('qdrant+')}://{parts.hostname}:{parts.port or 6333}"
        client = QdrantClient(
            url=address, api_key=os.environ.get("QDRANT_API_KEY"), timeout=int(base.ANSWER), check_compatibility=False
        )
        return QdrantCollection(hidden(uri), client, checked_name(parts.path.strip("/") or DEFAULT))


class QdrantCollection:
    """See `retrieval.stores.servers.base.Collection`."""

    def __init__(self, uri: str, client: QdrantClient, name: str, *, is_file: bool = False) -> None:
        self.uri, self._client, self._name, self._about = uri, client, name, f"{name}_state"
        self._is_file = is_file

    def alone(self) -> AbstractContextManager[Check]:
        """See `Collection`."""
        if self._is_file:  # which has one process at a time
            return nullcontext(lambda: None)
        with failing(self.uri, said=_said):
            self._make(self._about, 1)
        return leased(self.uri, lambda: str(self._told(_HELD).get("mark", "")), self._mark)

    def _mark(self, mark: str) -> None:
        self._tell(_HELD, {"mark": mark})

    def state(self) -> State | None:
        """See `Collection`."""
        with failing(self.uri, said=_said):
            there = self._client.collection_exists(self._about)
            told = self._told(_STATE) if there else {}
            return State.of(told) if told else None

    def create(self, state: State) -> None:
        """See `Collection`."""
        known = self.state() is not None
        with failing(self.uri, said=_said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            there = self._client.collection_exists(self._name)
            if there and not known:
                raise something_else(self.uri, self._name)
            if not known:
                self._make(self._about, 1)
                self._tell(_STATE, state.facts())
            if not there:
                self._make(self._name, state.dim)
            self._client.create_payload_index(self._name, _TAGS, models.PayloadSchemaType.INTEGER)

    def _make(self, name: str, dim: int) -> None:
        if not self._client.collection_exists(name):
            self._client.create_collection(name, models.VectorParams(size=dim, distance=models.Distance.DOT))

    def set_versions(self, versions: Mapping[str, int]) -> None:
        """See `Collection`."""
        if (state := self.state()) is None:
            raise StoreError(f"{self.uri} has no collection {self._name}.")
        self._tell(_STATE, State(state.encoder, state.dim, versions).facts())

    def _told(self, key: int) -> dict[str, Any]:
        with failing(self.uri, said=_said):
            found = self._client.retrieve(self._about, [key], consistency=models.ReadConsistencyType.ALL)
        return dict(found[0].payload or {}) if found else {}

    def _tell(self, key: int, told: dict[str, Any]) -> None:
        with failing(self.uri, said=_said):
            self._client.upsert(self._about, [models.PointStruct(id=key, vector=[1.0], payload=told)], wait=True)

    def keys(self) -> Ids:
        """See `Collection`."""
        found = [np.empty(0, np.int64)]
        offset: Any = None
        with failing(self.uri, said=_said):
            while True:
                points, offset = self._client.scroll(
                    self._name, limit=_PAGE, offset=offset, with_payload=False, with_vectors=False
                )
                found.append(np.array([point.id for point in points], np.int64))
                if offset is None:
                    return np.sort(np.concatenate(found))

    def upsert(self, keys: Ids, vectors: Vectors, tags: Tags) -> None:
        """See `Collection`."""
        batch = models.Batch(
            ids=keys.tolist(), vectors=vectors.tolist(), payloads=[{_TAGS: own.tolist()} for own in tags]
        )
        with failing(self.uri, said=_said):
            self._client.upsert(self._name, batch, wait=True)

    def mark_leaving(self, keys: Ids) -> None:
        """See `Collection`."""
        with failing(self.uri, said=_said):
            for at in range(0, len(keys), _PAGE):
                points = keys[at : at + _PAGE].tolist()
                self._client.set_payload(self._name, {_LEAVING: True}, points=points, wait=True)

    def delete_leaving(self) -> None:
        """See `Collection`."""
        leaving = models.Filter(must=[models.FieldCondition(key=_LEAVING, match=models.MatchValue(value=True))])
        with failing(self.uri, said=_said):
            self._client.delete(self._name, models.FilterSelector(filter=leaving), wait=True)

    def finish(self) -> None:
        """See `Collection`."""
        with failing(self.uri, said=_said):
            end = time.monotonic() + PATIENCE
            while self._client.get_collection(self._name).status != models.CollectionStatus.GREEN:
                if time.monotonic() > end:
                    raise StoreError(f"{self.uri} has not finished its index after {PATIENCE // 60:.0f} minutes.")
                time.sleep(0.5)

    def search(self, queries: Vectors, k: int, where: Sequence[Tagged] = ()) -> tuple[Ids, Floats]:
        """See `Collection`."""
        return self._nearest(queries, k, _filter(where), models.SearchParams(hnsw_ef=max(_EFFORT, k)))

    def compare(self, queries: Vectors, keys: Ids, k: int) -> tuple[Ids, Floats]:
        """See `Collection`."""
        among = models.Filter(must=[models.HasIdCondition(has_id=keys.tolist())])
        with failing(self.uri, said=_said):
            check_lost(self.uri, keys, self._client.count(self._name, among, exact=True).count)
        return self._nearest(queries, k, among, models.SearchParams(exact=True))

    def _nearest(
        self, queries: Vectors, k: int, among: models.Filter | None, how: models.SearchParams
    ) -> tuple[Ids, Floats]:
        asked = [models.QueryRequest(query=query.tolist(), filter=among, limit=k, params=how) for query in queries]
        keys, scores = no_answers(queries, k)
        with failing(self.uri, said=_said):
            for row, answer in enumerate(self._client.query_batch_points(self._name, asked)):
                keys[row, : len(answer.points)] = [int(point.id) for point in answer.points]
                scores[row, : len(answer.points)] = [point.score for point in answer.points]
        return keys, scores

    def vectors(self, keys: Ids) -> Vectors:
        """See `Collection`."""
        with failing(self.uri, said=_said):
            points = self._client.retrieve(self._name, keys.tolist(), with_payload=False, with_vectors=True)
        found = {int(point.id): point.vector for point in points}
        return in_order(self.uri, keys, found)

    def size(self) -> int | None:
        """See `Collection`."""
        path = self.uri.partition(":")[2]
        return size_of(Path(path)) if self._is_file and path != _MEMORY else None

    def drop(self) -> None:
        """See `Collection`."""
        with failing(self.uri, said=_said):
            for name in (self._name, self._about):
                self._client.delete_collection(name)

    def close(self) -> None:
        """See `Collection`."""
        self._client.close()


def _said(error: Exception) -> str:
    """What an error says; that of a time-out says nothing of the time."""
    if isinstance(getattr(error, "source", None), httpx.TimeoutException):
        return f"there was no answer within {base.ANSWER:.0f} seconds"
    return first_line(error)


def _filter(where: Sequence[Tagged]) -> models.Filter | None:
    conditions = {
        negated: [
            models.FieldCondition(key=_TAGS, match=models.MatchAny(any=list(each.tags)))
            for each in where
            if each.negated == negated
        ]
        for negated in (False, True)
    }
    return models.Filter(must=conditions[False] or None, must_not=conditions[True] or None) if where else None
