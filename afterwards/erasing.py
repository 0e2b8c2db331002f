"""Erases a person, or whatever a text stands for, from the tasks and the stored answers."""

import logging
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from afterwards.errors import SecretsUnreadable
from afterwards.store import erasing
from afterwards.store.database import Database
from afterwards.wanted import Wanted

log = logging.getLogger("tasks")

# Tells whether this is a connection to the tasks' own database.
LOOK = "SELECT number FROM {version}"


async def erase(
    database: Database, text: str, within: AsyncConnection | AsyncSession | None = None
) -> int:
    """Erase what holds the text, in the caller's transaction if there is one; count the tasks."""
    wanted = Wanted(text)
    if within is None:
        async with database.transaction() as connection:
            return await _erase(database, wanted, connection)
    return await _erase(database, wanted, await database.execute_within(within, LOOK, {}))


async def _erase(database: Database, wanted: Wanted, connection: AsyncConnection) -> int:
    unread = 0

    def is_task_meant(row: Any) -> bool:
        nonlocal unread
        texts = [row.arguments, row.result, row.error_message]
        if row.secrets is not None:
            try:
                texts.append(database.seal.open(row.secrets))
            except SecretsUnreadable:
                unread += 1
        return wanted.is_in(texts)

    def is_answer_meant(row: Any) -> bool:
        return wanted.is_in([row.headers, bytes(row.body or b"").decode(errors="replace")])

    await erasing.answers(connection, database.sql, wanted.run, is_answer_meant)
    count = await erasing.tasks(connection, database.sql, wanted.run, is_task_meant)
    if unread:
        log.warning(
            "%d tasks' secret arguments are encrypted with a key that is not here, and may hold"
            " what was to be erased",
            unread,
        )
    return count
