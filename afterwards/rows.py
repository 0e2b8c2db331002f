"""A task as its row, and back: arguments and results are JSON there, times are the database's."""

import json
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from afterwards import registry, secrecy
from afterwards.model import Attempt, Task
from afterwards.retries import Poison, Settlement
from afterwards.sealing import NO_SEAL, Seal
from afterwards.store.given import NewRow, PoisonRow, SettledRow
from afterwards.store.sql import MICROSECONDS

log = logging.getLogger("tasks")

MAX_RESULT = 256 * 1024  # characters of a result's JSON that a row keeps


def check(task: Task) -> tuple[dict[str, Any], str]:
    """Return the task's arguments by parameter, and as JSON; raise `ArgumentsRefused`."""
    entry = registry.of_function(task.function)
    assert entry is not None
    return entry.dump(task.args, task.kwargs)


def row_of(
    task: Task,
    arguments: str,
    *,
    worker: str = "",
    publish_after: float = 0.0,
    seal: Seal = NO_SEAL,
) -> NewRow:
    """Return the row of a new task: claimed at once by the `worker`, if one is given.

    `publish_after` (s) is how long the loop that publishes leaves it to whoever enqueued it.
    """
    secrets = None
    if task.policy.secret:
        arguments, secrets = secrecy.apart(arguments, task.policy.secret)
        secrets = seal.close(secrets)
    delay = max(0.0, (task.run_at - datetime.now(UTC)).total_seconds()) if task.run_at else 0.0
    return NewRow(
        task.id,
        task.name,
        arguments,
        not task.is_async,
        task.carrier,
        task.policy.attempts,
        worker or None,
        task.follows or None,
        int(delay * MICROSECONDS),
        0 if delay else int(publish_after * MICROSECONDS),
        secrets,
    )


def task_of(row: Any, seal: Seal = NO_SEAL) -> Task:
    """Make the claimed row a task.

    Raises `UnknownTask`, `ArgumentsRefused`, `SecretsUnreadable`, or whatever the type of an
    argument raises.
    """
    entry, arguments = registry.of_name(row.name), row.arguments
    if row.secrets is not None:
        arguments = secrecy.together(arguments, seal.open(row.secrets))
    due_at = row.run_at if row.due_at is None else row.due_at
    due_for = max(0, row.started_at - due_at) / MICROSECONDS
    return Task(
        row.id,
        row.name,
        entry.function,
        entry.is_async,
        kwargs=entry.load(arguments),
        carrier=row.carrier,
        created_at=time.time() - due_for,
        policy=replace(entry.policy, attempts=row.max_attempts),
        attempt=row.attempt,
        crashes=row.crashes,
        is_followed=row.is_followed,
        stored=True,
        worker=row.worker,
        rescued_from=row.rescued_from or "",
    )


def settled_row(attempt: Attempt, outcome: Settlement) -> SettledRow | PoisonRow:
    """Return how the attempt has ended, and what becomes of its task by that, as a row."""
    task, kind, message = attempt.task, outcome.error_kind, outcome.error_message
    if isinstance(attempt.error, Poison):
        crashes = attempt.error.crashes
        return PoisonRow(task.id, task.worker, task.attempt, crashes, kind or "", message or "")
    delay_us, result = int(outcome.delay * MICROSECONDS), result_of(attempt)
    return SettledRow(
        task.id, task.worker, task.attempt, outcome.state, delay_us, result, kind, message
    )


def result_of(attempt: Attempt) -> str | None:
    """Return the attempt's result as JSON; None, and a log line, if it is no JSON or too long."""
    if attempt.result is None:
        return None
    try:
        text = json.dumps(attempt.result, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        log.warning(
            "%s returned what is not JSON, and its result is not kept: %s", attempt.task.name, error
        )
        return None
    if len(text) > MAX_RESULT:
        log.warning(
            "%s returned %d characters of JSON, too many to be kept", attempt.task.name, len(text)
        )
        return None
    return text
