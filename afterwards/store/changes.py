"""What operators changed: who, from where, what, which tasks and when."""

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from afterwards.model import new_task_id
from afterwards.store.database import Connection, Database

KEPT_DAYS = 90.0
MOST_IN_ROW = 100  # a list of changes is made on the event loop

RECORD = """
INSERT INTO {changes} (id, at, who, address, what, which)
VALUES (:id, {now}, :who, :address, :what, :which)
"""
PAGE = """
SELECT id, at, who, address, what, which FROM {changes} WHERE id < :after
ORDER BY id DESC LIMIT :most
"""
AFTER_ALL = "change-a"  # no id is beyond it, for they go on with digits


class Change(NamedTuple):
    """Who makes a change, from what address, and what it does."""

    who: str
    address: str
    what: str


async def record(
    database: Database, connection: Connection, change: Change, which: Collection[str]
) -> None:
    """Insert the change in the transaction in which it is made, in rows that stay small."""
    left, rows = [*which], []
    while left:
        part, left = left[:MOST_IN_ROW], left[MOST_IN_ROW:]
        id = new_task_id().replace("task-", "change-", 1)
        rows.append({**change._asdict(), "id": id, "which": json.dumps(part)})
    if rows:
        await connection.execute(database.sql(RECORD), rows)


async def page(database: Database, *, limit: int, after: str | None = None) -> Sequence[Any]:
    """List changes, the newest first; `after` is the last one of the page before."""
    return await database.all(PAGE, {"after": after or AFTER_ALL, "most": limit})
