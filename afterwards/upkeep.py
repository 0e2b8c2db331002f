"""Keeps the database small: deletes what is old, and gives the room back, in short steps.

Each chore has a loop of its own: a long one delays neither a heartbeat nor another chore, nor does
one that fails.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from afterwards.attachments import Attachments, sweep
from afterwards.limits import Limits
from afterwards.loop import Loop
from afterwards.store import changes, statements
from afterwards.store.tasks import Store

UPKEEP_SECONDS = 10.0  # between the end of one round and the next
SWEEP_SECONDS = 60.0  # the same for attachments, all of which are listed
END_SECONDS = 0.3


class Upkeep:
    """One process's upkeep, once its worker is known; others may do theirs at the same moment."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        is_known: asyncio.Event,
        attachments: Attachments | None = None,
    ) -> None:
        self._is_known = is_known
        chores: list[Callable[[], Awaitable[object]]] = [
            partial(store.prune, statements.PRUNE_TASKS, limits.keep_days),
            partial(store.prune, statements.PRUNE_DEAD, limits.keep_dead_days),
            partial(store.prune, statements.PRUNE_ANSWERS, limits.keep_days),
            partial(store.prune, statements.PRUNE_CHANGES, changes.KEPT_DAYS),
            store.shrink,
        ]
        self._loops = [Loop(partial(self._do, chore), UPKEEP_SECONDS) for chore in chores]
        if attachments is not None:
            sweeping = partial(self._do, partial(sweep, store, attachments))
            self._loops.append(Loop(sweeping, SWEEP_SECONDS))

    def begin(self) -> None:
        """Start with the first round at once."""
        for loop in self._loops:
            loop.begin()

    async def _do(self, chore: Callable[[], Awaitable[object]]) -> None:
        await self._is_known.wait()  # before that there may be no tables
        await chore()

    async def end(self) -> None:
        """Leave what is not done to the next process."""
        await asyncio.gather(*(loop.end(END_SECONDS) for loop in self._loops))
