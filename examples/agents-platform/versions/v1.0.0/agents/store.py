"""PostgreSQL, as one tenant at a time, and Redis.

Who the tenant is, is said to the server at the beginning of each transaction; which rows that tenant has is the server's business
(row-level security), so that no query can forget it.
"""

import queue
from contextlib import contextmanager

import psycopg2
import redis

from . import metrics

QUEUE = "platform:tasks"
TAKEN = "platform:taken"


class Store:
    def __init__(self, settings):
        self.dsn = settings["DATABASE_URL"]
        self.idle = queue.LifoQueue()
        self.redis = redis.Redis.from_url(settings["REDIS_URL"], decode_responses=True, socket_timeout=10)

    def _connection(self):
        try:
            return self.idle.get_nowait()
        except queue.Empty:
            return psycopg2.connect(self.dsn, connect_timeout=5, options="-c statement_timeout=5s")

    @contextmanager
    def as_tenant(self, tenant):
        """A cursor in a transaction of this tenant's, committed at the end."""
        outcome, connection = "timeout", None
        try:
            connection = self._connection()
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT set_config('app.tenant', %s, true)", (tenant,))
                outcome = "refused"
                yield cursor
            outcome = "ok"
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            # Not reached, cut off, or too slow: nothing more is expected of this connection.
            outcome = "timeout"
            if connection is not None:
                connection.close()
            raise
        finally:
            metrics.count("database_calls_total", outcome=outcome)
            if connection is not None and not connection.closed:
                self.idle.put(connection)
