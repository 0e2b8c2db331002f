"""Settles claimed rows, however long the database is away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, TypeVar

from afterwards.mention import about
from afterwards.model import Attempt, Outcome, State, Task
from afterwards.redaction import without_addresses
from afterwards.retries import Settlement, message_of, settlement
from afterwards.rows import settled_row
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.given import SettledRow
from afterwards.store.group_commit import FIRST_PAUSE, LONGEST_PAUSE
from afterwards.store.tasks import Store

log = logging.getLogger("tasks")

T = TypeVar("T")


async def until_available(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the database until it answers, and return its answer; the heartbeat logs the outage."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await ask()
        except DatabaseUnavailable:
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


def settle(store: Store, attempt: Attempt, settled: Callable[[], None]) -> None:
    """Record the outcome, and call back when it is on disk.

    A released attempt is left alone, for whoever releases or rescues its row.
    """
    if attempt.outcome is Outcome.RELEASED:
        settled()
        return
    outcome = settlement(attempt)
    # A failure's log line belongs to the attempt, whose context says which task it is.
    context = None if attempt.error is None else copy_context()

    def recorded() -> None:
        if outcome.state is not State.RETRYING:
            store.waiters.tell(attempt.task.id)
        if context is not None:
            context.run(_tell, attempt.task, outcome)
        settled()

    store.settle(settled_row(attempt, outcome), recorded)


def refuse(store: Store, row: Any, error: Exception) -> None:
    """Mark a claimed row that does not fit the code as dead, with the reason."""
    kind, message = type(error).__name__, message_of(error)
    with about(row.id, row.carrier):
        log.error("%s %s is dead: %s", row.name, row.id, without_addresses(message))
    dead = SettledRow(row.id, row.worker, row.attempt, State.DEAD, 0, None, kind, message)
    store.settle(dead, lambda: store.waiters.tell(row.id))


def _tell(task: Task, outcome: Settlement) -> None:
    if outcome.state is State.RETRYING:
        log.info("%s will be tried again in %.1f s", task.name, outcome.delay)
    elif outcome.state is State.DEAD:
        why = without_addresses(outcome.error_message or "")
        log.error("%s is dead after %d attempts: %s", task.name, task.attempt, why)
