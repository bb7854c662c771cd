"""Connections to PostgreSQL that do not wait forever, and that are replaced after it has come back; statements."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from retrieval.stores.servers import base
from retrieval.stores.servers.base import Tagged

logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # it logs what is also raised
CONNECTED = 5  # seconds until a connection is there
_CONNECTIONS = 8


class Connection(psycopg.Connection[Any]):
    """A connection that is given up if there is no answer: a server that hangs cannot cancel a statement itself."""

    patience: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for an answer; raises OperationalError."""
        try:
            return super().wait(gen, interval, timeout or self.patience or base.ANSWER)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"there was no answer within {self.patience or base.ANSWER:.0f} seconds"
            ) from None


def pool_of(address: str) -> ConnectionPool[Connection]:
    """Connections that are looked at before they are used: after a server has come back, old ones are dead."""
    return ConnectionPool(
        address, connection_class=Connection, kwargs={"connect_timeout": CONNECTED}, check=_check,
        min_size=0, max_size=_CONNECTIONS, timeout=CONNECTED, reconnect_timeout=CONNECTED, open=True,
    )  # fmt: skip


def _check(connection: Connection) -> None:
    connection.patience = min(CONNECTED, base.ANSWER)
    ConnectionPool.check_connection(connection)
    connection.patience = None


class Run:
    """Runs statements on a connection; names in braces are filled in."""

    def __init__(self, connection: Connection, names: Mapping[str, sql.Composable]) -> None:
        self.connection, self._names = connection, names

    def __call__(self, statement: str, *values: Any, **more: sql.Composable) -> list[Any]:
        """The rows that it gives."""
        cursor = self.connection.execute(self.written(statement, **more), values or None)
        return cursor.fetchall() if cursor.description else []

    def written(self, statement: str, **more: sql.Composable) -> sql.Composed:
        """A statement with the names in it."""
        return sql.SQL(statement).format(**self._names, **more)


def condition(where: Tagged) -> sql.Composable:
    """What a condition on tags is in SQL."""
    tags = sql.Literal(list(where.tags))
    return sql.SQL("NOT tags && {tags}::bigint[]" if where.negated else "tags && {tags}::bigint[]").format(tags=tags)


def as_text(vector: Any) -> str:
    """A vector as pgvector reads it."""
    return f"[{','.join(f'{number:.9g}' for number in vector.tolist())}]"  # as exact as float32


def written(versions: Mapping[str, int]) -> str:
    """Versions as JSON that keeps their order."""
    return json.dumps([*versions.items()])
