"""Where the hits are counted: storages for the library `limits`, which has neither of these.

Its own memory looks through all keys at each hit, and is without a bound: a client with many
addresses would make every request dear. It has nothing for SQL.
"""

import time
from collections import OrderedDict

from limits.aio.storage import Storage

from afterwards.errors import DatabaseUnavailable
from afterwards.store.database import Database
from afterwards.store.sql import MICROSECONDS

MAX_KEYS = 50_000  # each takes some 250 bytes; beyond, the oldest window is forgotten
PRUNE_SECONDS = 60.0

TABLE = "CREATE {kind} IF NOT EXISTS {{prefix}}rates ({columns})"
COLUMNS = "key VARCHAR NOT NULL PRIMARY KEY, hits INTEGER NOT NULL, ends_at BIGINT NOT NULL"
INDEX = "CREATE INDEX IF NOT EXISTS {prefix}rates_ends_at ON {prefix}rates (ends_at)"
HIT = """
INSERT INTO {prefix}rates AS counted (key, hits, ends_at) VALUES (:key, :hits, {now} + :window_us)
ON CONFLICT (key) DO UPDATE SET
    hits = excluded.hits + CASE WHEN counted.ends_at > {now} THEN counted.hits ELSE 0 END,
    ends_at = CASE WHEN counted.ends_at > {now} THEN counted.ends_at ELSE excluded.ends_at END
RETURNING hits, ends_at - {now} AS left_us
"""
KEYS = "SELECT key FROM {prefix}rates ORDER BY key"
PRUNE = "DELETE FROM {prefix}rates WHERE ends_at <= {now}"


class InMemory(Storage):
    """Counts in this process; a window begins with its first hit."""

    STORAGE_SCHEME = None

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        super().__init__(wrap_exceptions=False)
        self._max_keys = max_keys
        # Hits, and when their window ends by the monotonic clock; those that began last are last.
        self._windows: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        hits, ends_at = self._window(key)
        if hits == 0:
            ends_at = time.monotonic() + expiry
        return self.put(key, max(0, hits + amount), ends_at)

    async def get(self, key: str) -> int:
        return self._window(key)[0]

    async def get_expiry(self, key: str) -> float:
        return time.time() + max(0.0, self._window(key)[1] - time.monotonic())

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        self._windows.pop(key, None)

    def put(self, key: str, hits: int, ends_at: float) -> int:
        """Set the hits of a window, and return them."""
        self._windows[key] = hits, ends_at
        if len(self._windows) > self._max_keys:
            self._windows.popitem(last=False)
        return hits

    def _window(self, key: str) -> tuple[int, float]:
        hits, ends_at = self._windows.get(key, (0, 0.0))
        if hits and ends_at <= time.monotonic():
            del self._windows[key]
            return 0, 0.0
        return hits, ends_at


class InDatabase(InMemory):
    """Counts in a table that all processes share; what it said last of a key stays in memory.

    It has connections of its own, and with SQLite a file of its own: a hit must not wait for the
    commit of the very request that it is counted for.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = _beside(url)
        self._database: Database | None = None
        self._kind = "TABLE" if url.startswith("sqlite") else "UNLOGGED TABLE"
        self._has_table = False
        self.prune_at = 0.0

    @property
    def base_exceptions(self) -> type[Exception]:
        return DatabaseUnavailable

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        values = {"key": key, "hits": amount, "window_us": int(expiry * MICROSECONDS)}
        await self._make_table()
        await self._prune()
        async with self._opened().transaction() as connection:
            row = (await connection.execute(self._opened().sql(HIT), values)).one()
        return self.put(key, row.hits, time.monotonic() + row.left_us / MICROSECONDS)

    async def check(self) -> bool:
        """Make the table, and tell whether it is there; the first hit need not wait for it."""
        try:
            await self._make_table()
        except DatabaseUnavailable:
            return False
        return True

    async def keys(self) -> list[str]:
        """List what is counted there now."""
        return [row.key for row in await self._opened().all(KEYS)]

    async def close(self) -> None:
        """Close its connections; the next hit opens others."""
        database, self._database, self._has_table = self._database, None, False
        if database is not None:
            await database.close()

    def _opened(self) -> Database:
        if self._database is None:
            self._database = Database(self._url)
        return self._database

    async def _make_table(self) -> None:
        if self._has_table:
            return
        async with self._opened().migrating() as connection:
            made = TABLE.format(kind=self._kind, columns=COLUMNS)
            for statement in (made, INDEX):
                await connection.execute(self._opened().sql(statement))
        self._has_table = True

    async def _prune(self) -> None:
        if time.monotonic() >= self.prune_at:
            self.prune_at = time.monotonic() + PRUNE_SECONDS
            await self._opened().change(PRUNE)


def _beside(url: str) -> str:
    """Return the database to count in: a Postgres itself, or a file beside SQLite's."""
    if not url.startswith("sqlite"):
        return url
    path, mark, options = url.partition("?")
    return f"{path}-rates{mark}{options}"
