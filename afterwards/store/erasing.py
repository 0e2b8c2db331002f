"""Erases what holds a text, tasks and stored answers, in the caller's transaction."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from afterwards.store.sql import Sql, listed

# Rows that are looked at in one statement, which may take no longer than any other.
MOST = 1000

# Only rows that may hold it come here: what `run` is not in holds no text that it is a part of, and
# what is encrypted only its reader can tell.
TASKS_END = (
    "SELECT max(id) FROM (SELECT id FROM {tasks} WHERE id > :since ORDER BY id LIMIT :most) AS part"
)
TASKS = """
SELECT id, arguments, secrets, result, error_message FROM {tasks}
WHERE id > :since AND id <= :last AND (
    secrets IS NOT NULL
    OR {position}(lower(arguments {ascii}), :run) > 0
    OR {position}(lower(result {ascii}), :run) > 0
    OR {position}(lower(error_message {ascii}), :run) > 0
) ORDER BY id
"""
DELETE = "DELETE FROM {tasks} WHERE id IN ({each:ids}) AND state || '' <> 'running'"
# Its worker is told by the row that it is cancelled, and cuts it off; it holds nothing any more.
EMPTY = """
UPDATE {tasks} SET state = 'cancelled', finished_at = {now}, arguments = '{{}}', secrets = NULL,
    carrier = '', result = NULL, error_kind = NULL, error_message = NULL
WHERE id IN ({each:ids})
"""

ANSWERS_END = (
    "SELECT max(key) FROM"
    " (SELECT key FROM {answers} WHERE key > :since ORDER BY key LIMIT :most) AS part"
)
ANSWERS = """
SELECT key, headers, body FROM {answers}
WHERE key > :since AND key <= :last AND (
    {position}(lower(headers {ascii}), :run) > 0
    OR {position}(lower({body_text} {ascii}), :run) > 0
) ORDER BY key
"""
DELETE_ANSWERS = "DELETE FROM {answers} WHERE key IN ({each:ids})"

Chosen = Callable[[Any], bool]


async def tasks(connection: AsyncConnection, sql: Sql, run: str, is_meant: Chosen) -> int:
    """Delete the tasks that are meant, and return how many they were.

    Of those that run an empty, cancelled row remains, until it is pruned.
    """
    return await _erase(connection, sql, (TASKS_END, TASKS, (DELETE, EMPTY)), run, is_meant)


async def answers(connection: AsyncConnection, sql: Sql, run: str, is_meant: Chosen) -> int:
    """Delete the stored answers that are meant, with their keys."""
    steps = (ANSWERS_END, ANSWERS, (DELETE_ANSWERS,))
    return await _erase(connection, sql, steps, run, is_meant)


async def _erase(
    connection: AsyncConnection,
    sql: Sql,
    steps: tuple[str, str, Sequence[str]],
    run: str,
    is_meant: Chosen,
) -> int:
    find_end, find, deletes = steps
    since, erased = "", 0
    while True:
        part = {"since": since, "most": MOST}
        last = (await connection.execute(sql(find_end), part)).scalar_one()
        if last is None:
            return erased
        found = await connection.execute(sql(find), {"since": since, "last": last, "run": run})
        ids = await asyncio.to_thread(_chosen, found.all(), is_meant)
        for delete in deletes if ids else ():
            await connection.execute(sql(delete), {"ids": listed(ids)})
        since, erased = last, erased + len(ids)


def _chosen(rows: Sequence[Any], is_meant: Chosen) -> list[str]:
    return [row[0] for row in rows if is_meant(row)]
