"""A new task's row, as a worker makes it."""

import asyncio
from typing import Any

from afterwards.model import new_task_id
from afterwards.store.given import NewRow, PoisonRow, SettledRow
from afterwards.store.tasks import Store


def row(**changed: Any) -> NewRow:
    """Make a row of a task that is due at once, but for what is given."""
    due = NewRow(new_task_id(), "nothing", "{}", False, "", 5, None, None, 0, 0)
    return due._replace(**changed)


async def settled(
    store: Store, id: str, worker: str, attempt: int = 1, state: str = "succeeded", **more: Any
) -> None:
    """Settle the attempt, and wait until that is on disk."""
    await recorded(store, SettledRow(id, worker, attempt, state, **more))


async def recorded(store: Store, row: SettledRow | PoisonRow) -> None:
    """Record how the attempt has ended, and wait until that is on disk."""
    done = asyncio.Event()
    store.settle(row, done.set)
    await done.wait()
