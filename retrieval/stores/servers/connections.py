"""Connections to PostgreSQL that do not wait forever, and that are replaced after the server has come back."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from retrieval.stores.servers import base

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
