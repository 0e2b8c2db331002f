"""Settles claimed rows, however long the database is away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from afterwards.model import Attempt, Outcome, State, Task
from afterwards.retries import Poison, Settlement, settlement
from afterwards.rows import result_of
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.tasks import Store

log = logging.getLogger("tasks")

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two tries to reach the database


async def until_available(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the database until it answers, and return its answer; the heartbeat logs the outage."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await ask()
        except DatabaseUnavailable:
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


async def settle(store: Store, attempt: Attempt) -> bool:
    """Record the outcome and return True.

    A released attempt is left alone, for whoever releases or rescues its row: that is False.
    """
    if attempt.outcome is Outcome.RELEASED:
        return False
    task, outcome, result = attempt.task, settlement(attempt), result_of(attempt)
    if isinstance(poison := attempt.error, Poison):
        crashes = poison.crashes
        await until_available(
            lambda: store.settle_poison(task.id, task.worker, task.attempt, outcome, crashes)
        )
    else:
        await until_available(
            lambda: store.settle(task.id, task.worker, task.attempt, outcome, result)
        )
    if outcome.state is not State.RETRYING:
        store.waiters.tell(task.id)
    _tell(task, outcome)
    return True


async def refuse(store: Store, row: Any, error: Exception) -> None:
    """Mark a claimed row that does not fit the code as dead, with the reason."""
    log.error("%s %s is dead: %s", row.name, row.id, error)
    dead = Settlement(State.DEAD, error_kind=type(error).__name__, error_message=str(error))
    await store.settle(row.id, row.worker, row.attempt, dead, None)
    store.waiters.tell(row.id)


def _tell(task: Task, outcome: Settlement) -> None:
    if outcome.state is State.RETRYING:
        log.info("%s will be tried again in %.1f s", task.name, outcome.delay)
    elif outcome.state is State.DEAD:
        log.error(
            "%s is dead after %d attempts: %s", task.name, task.attempt, outcome.error_message
        )
