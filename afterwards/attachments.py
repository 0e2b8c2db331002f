"""What is kept elsewhere under the ids of tasks, such as files, and is to go with them."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from afterwards.store.tasks import Store

log = logging.getLogger("tasks")

MOST = 500  # ids that the database is asked about at once


class Attachments(Protocol):
    """A place of its own for them; both methods are called in a thread."""

    def ids(self) -> Iterable[str]:
        """List the ids of the tasks that something is kept for."""

    def remove(self, id: str) -> None:
        """Remove what is kept for a task that is not there any more; perhaps nothing is."""


async def sweep(store: Store, attachments: Attachments) -> int:
    """Remove what is kept for tasks that are not there any more; count them.

    However they went, and whichever process died over it: the rows say what is to stay.
    """
    found = await asyncio.to_thread(lambda: [*attachments.ids()])
    removed = 0
    for at in range(0, len(found), MOST):
        part = found[at : at + MOST]
        stored = await store.stored(part)
        for id in part:
            if id not in stored:
                await asyncio.to_thread(attachments.remove, id)
                removed += 1
    if removed:
        log.info("what was kept for %d tasks is removed with them", removed)
    return removed
