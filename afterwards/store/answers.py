"""Answers that are kept beside the keys that their requests bore."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from afterwards.store.database import Database
from afterwards.store.sql import MICROSECONDS

FIND = """
SELECT fingerprint, status, headers, body, created_at < {now} - :lost_us AS is_late
FROM {answers} WHERE key = :key
"""
RESERVE = """
INSERT INTO {answers} (key, fingerprint, created_at, headers)
VALUES (:key, :fingerprint, {now}, :headers)
"""
KEEP = "UPDATE {answers} SET status = :status, headers = :headers, body = :body WHERE key = :key"
KEEP_IDS = "UPDATE {answers} SET headers = :headers WHERE key = :key"

Within = AsyncConnection | AsyncSession


async def find(database: Database, key: str, *, lost_seconds: float) -> Any:
    """Return the key's `fingerprint`, `status`, `headers` and `body`; None if nobody came with it.

    `is_late` tells whether that was longer ago than an answer takes.
    """
    values = {"key": key, "lost_us": int(lost_seconds * MICROSECONDS)}
    found = await database.all(FIND, values)
    return found[0] if found else None


async def reserve(database: Database, within: Within, values: Mapping[str, Any]) -> bool:
    """Insert `key`, `fingerprint` and `headers` in the caller's transaction; False if taken."""
    try:
        await database.execute_within(within, RESERVE, values)
    except IntegrityError:
        return False
    return True


async def keep(database: Database, within: Within, values: Mapping[str, Any]) -> None:
    """Put `status`, `headers` and `body` beside `key` in the caller's transaction."""
    await database.execute_within(within, KEEP, values)


async def keep_ids(database: Database, within: Within, key: str, headers: str) -> None:
    """Put the ids of more tasks beside a key that the caller's transaction has reserved."""
    await database.execute_within(within, KEEP_IDS, {"key": key, "headers": headers})
