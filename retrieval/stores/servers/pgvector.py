"""PostgreSQL with pgvector, from 0.8 on: `postgresql://USER@HOST/DATABASE?collection=NAME`.

The password is in PGPASSWORD or in PostgreSQL's own password file. A collection is two tables, NAME and NAME_state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
import psycopg
from psycopg import sql
from psycopg_pool import PoolTimeout

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
    something_else,
)
from retrieval.stores.servers.connections import CONNECTED, Connection, Run, as_text, condition, pool_of, written
from retrieval.stores.servers.lease import Check, busy
from retrieval.stores.servers.open import DEFAULT, checked_name, hidden

_LEAST = (0, 8)  # before, a filter was applied to what the graph had found, and answers were short
_FAILURES = (psycopg.Error, PoolTimeout)
_PAGE = 50_000  # keys
_EFFORT = 200  # points that a search in the graph looks at
_SCANNED = 200_000  # points that it goes on to, where a filter lets few through
# Dimensions that pgvector's graph can have, by the type of its vectors; above, every point is compared.
_GRAPHS = ((2_000, "vector", "vector_ip_ops"), (4_000, "halfvec", "halfvec_ip_ops"))


def open_at(uri: str) -> PostgresCollection:
    """See `open_collection`."""
    parts = urlsplit(uri)
    settings = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = checked_name(settings.pop("collection", DEFAULT))
    address = urlunsplit(parts._replace(query=urlencode(settings)))
    with failing(hidden(uri), _FAILURES), Connection.connect(address, connect_timeout=CONNECTED) as connection:
        found = connection.execute(
            "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone()
    version = str((found[1] or found[0]) if found else "")
    if not version or tuple(map(int, version.split(".")[:2])) < _LEAST:
        what = f"version {version} of it" if version else "none"
        raise StoreError(f"the store {hidden(uri)} needs pgvector 0.8 or later, and has {what}: install or update it.")
    return PostgresCollection(hidden(uri), address, name)


class PostgresCollection:
    """See `retrieval.stores.servers.base.Collection`."""

    def __init__(self, uri: str, address: str, name: str) -> None:
        self.uri, self._address, self._pool, self._dim = uri, address, pool_of(address), 0
        self._name = f"lookalike {name}"
        self._table, self._about = sql.Identifier(name), sql.Identifier(f"{name}_state")
        self._graph, self._by_tags = sql.Identifier(f"{name}_graph"), sql.Identifier(f"{name}_tags")

    @contextmanager
    def alone(self) -> Iterator[Check]:
        """See `Collection`. The lock ends with its connection, however the process ends."""
        ask = sql.SQL("SELECT pg_try_advisory_lock(hashtextextended({}, 0))").format(sql.Literal(self._name))
        with failing(self.uri, _FAILURES), Connection.connect(self._address, connect_timeout=CONNECTED) as held:
            held.autocommit = True
            found = held.execute(ask).fetchone()
            if not found or not found[0]:
                raise busy(self.uri)
            yield lambda: _ask(held)

    def state(self) -> State | None:
        """See `Collection`."""
        with self._connected() as run:
            if run("SELECT to_regclass(%s)", self._about.as_string(None))[0][0] is None:
                return None
            if not (found := run("SELECT encoder, dim, versions FROM {about}")):
                return None
            state = State.of(dict(zip(("encoder", "dim", "versions"), found[0], strict=True)))
            self._dim = state.dim
            return state

    def create(self, state: State) -> None:
        """See `Collection`."""
        self._dim, known = state.dim, self.state() is not None
        with self._connected() as run:
            if not known and run("SELECT to_regclass(%s)", self._table.as_string(None))[0][0] is not None:
                raise something_else(self.uri, self._table.as_string(None))
            run("CREATE EXTENSION IF NOT EXISTS vector")
            run(
                "CREATE TABLE IF NOT EXISTS {table} (key bigint PRIMARY KEY, vector vector({dim}) NOT NULL, "
                "tags bigint[] NOT NULL, leaving boolean NOT NULL DEFAULT false)",
                dim=sql.Literal(state.dim),
            )
            run("CREATE TABLE IF NOT EXISTS {about} (encoder text, dim integer, versions json)")
            run("DELETE FROM {about}")
            run("INSERT INTO {about} VALUES (%s, %s, %s)", state.encoder, state.dim, written(state.versions))

    def set_versions(self, versions: Mapping[str, int]) -> None:
        """See `Collection`."""
        with self._connected() as run:
            run("UPDATE {about} SET versions = %s", written(versions))

    def keys(self) -> Ids:
        """See `Collection`."""
        found = [np.empty(0, np.int64)]
        with self._connected() as run, run.connection.cursor("keys") as pages:  # one that stays in the database
            pages.execute(run.written("SELECT key FROM {table} ORDER BY key"))
            while page := pages.fetchmany(_PAGE):
                found.append(np.array([key for (key,) in page], np.int64))
        return np.concatenate(found)

    def upsert(self, keys: Ids, vectors: Vectors, tags: Tags) -> None:
        """See `Collection`."""
        with self._connected() as run, run.connection.cursor() as cursor:
            run("CREATE TEMPORARY TABLE sent (key bigint, vector vector, tags bigint[]) ON COMMIT DROP")
            with cursor.copy("COPY sent FROM STDIN") as copy:
                for key, vector, own in zip(keys.tolist(), vectors, tags, strict=True):
                    copy.write_row((key, as_text(vector), own.tolist()))
            run(
                "INSERT INTO {table} SELECT key, vector, tags, false FROM sent ON CONFLICT (key) DO UPDATE "
                "SET vector = EXCLUDED.vector, tags = EXCLUDED.tags, leaving = false"
            )

    def mark_leaving(self, keys: Ids) -> None:
        """See `Collection`."""
        with self._connected() as run:
            run("UPDATE {table} SET leaving = true WHERE key = ANY(%s)", keys.tolist())

    def delete_leaving(self) -> None:
        """See `Collection`."""
        with self._connected() as run:
            run("DELETE FROM {table} WHERE leaving")

    def finish(self) -> None:
        """See `Collection`."""
        with self._connected(PATIENCE) as run:
            run("CREATE INDEX IF NOT EXISTS {by_tags} ON {table} USING gin (tags)")
            if graph := self._graph_type():
                run(
                    "CREATE INDEX IF NOT EXISTS {graph} ON {table} USING hnsw ((vector::{kind}({dim})) {operators})",
                    kind=sql.SQL(graph[0]), operators=sql.SQL(graph[1]), dim=sql.Literal(self._dim),
                )  # fmt: skip
            run("ANALYZE {table}")

    def search(self, queries: Vectors, k: int, where: Sequence[Tagged] = ()) -> tuple[Ids, Floats]:
        """See `Collection`."""
        keys, scores = no_answers(queries, k)
        passing = sql.SQL(" AND ").join([sql.SQL("true"), *map(condition, where)])
        kind = sql.SQL((self._graph_type() or ("vector", ""))[0])
        with self._connected() as run:
            run(
                f"SET LOCAL hnsw.ef_search = {min(max(_EFFORT, k), 1_000)}; "
                f"SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL hnsw.max_scan_tuples = {_SCANNED}"
            )
            for row, query in enumerate(queries):
                asked = sql.Literal(as_text(query))
                found = run(
                    "SELECT key, -(vector <#> {query}::vector) FROM {table} WHERE {passing} "
                    "ORDER BY vector::{kind}({dim}) <#> {query}::{kind}({dim}) LIMIT {k}",
                    query=asked, kind=kind, dim=sql.Literal(self._dim), passing=passing, k=sql.Literal(k),
                )  # fmt: skip
                found.sort(key=lambda pair: -pair[1])  # the graph may be of half precision
                keys[row, : len(found)] = [key for key, _ in found]
                scores[row, : len(found)] = [score for _, score in found]
        return keys, scores

    def compare(self, queries: Vectors, keys: Ids, k: int) -> tuple[Ids, Floats]:
        """See `Collection`. The graph, which is approximate, does not serve this order."""
        best, scores = no_answers(queries, k)
        with self._connected() as run:
            for row, query in enumerate(queries):
                found = run(
                    "SELECT key, -(vector <#> {query}::vector), count(*) OVER () FROM {table} WHERE key = ANY(%s) "
                    "ORDER BY (vector <#> {query}::vector) + 0 LIMIT {k}",
                    keys.tolist(), query=sql.Literal(as_text(query)), k=sql.Literal(k),
                )  # fmt: skip
                check_lost(self.uri, keys, found[0][2] if found else 0)
                best[row, : len(found)] = [key for key, _, _ in found]
                scores[row, : len(found)] = [score for _, score, _ in found]
        return best, scores

    def vectors(self, keys: Ids) -> Vectors:
        """See `Collection`."""
        with self._connected() as run, run.connection.cursor(binary=True) as cursor:
            cursor.execute(run.written("SELECT key, vector FROM {table} WHERE key = ANY(%s)"), (keys.tolist(),))
            found = {key: np.frombuffer(vector, ">f4", offset=4) for key, vector in cursor}
        return in_order(self.uri, keys, found)

    def size(self) -> int | None:
        """See `Collection`."""
        with self._connected() as run:
            return int(run("SELECT pg_total_relation_size(%s::regclass)", self._table.as_string(None))[0][0])

    def drop(self) -> None:
        """See `Collection`."""
        with self._connected(PATIENCE) as run:
            run("DROP TABLE IF EXISTS {table}, {about}")

    def close(self) -> None:
        """See `Collection`."""
        self._pool.close()

    def _graph_type(self) -> tuple[str, str] | None:
        if not self._dim:
            self.state()
        return next(((kind, operators) for most, kind, operators in _GRAPHS if self._dim <= most), None)

    @contextmanager
    def _connected(self, patience: float | None = None) -> Iterator[Run]:
        """A transaction, as a function that runs a statement in it, each for so many seconds at most."""
        tables = {"table": self._table, "about": self._about}
        names: Mapping[str, sql.Composable] = {**tables, "graph": self._graph, "by_tags": self._by_tags}
        with failing(self.uri, _FAILURES, self._said), self._pool.connection(min(CONNECTED, base.ANSWER)) as connection:
            most = patience or base.ANSWER
            connection.patience = most + 1  # the server is to give up first, and the connection stays
            run = Run(connection, names)
            run(f"SET LOCAL statement_timeout = {1_000 * most:.0f}")
            yield run

    def _said(self, error: Exception) -> str:
        if isinstance(error, psycopg.errors.QueryCanceled):
            return f"the server gave up a statement that took too long ({first_line(error)})"
        if isinstance(error, PoolTimeout):  # it does not tell why there is no connection
            try:
                Connection.connect(self._address, connect_timeout=2).close()
            except psycopg.Error as why:
                return first_line(why)
        return first_line(error)


def _ask(connection: Connection) -> None:
    connection.execute("SELECT 1")
