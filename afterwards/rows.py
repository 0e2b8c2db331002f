"""A task as its row, and back: arguments and results are JSON there, times are the database's."""

import json
import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from afterwards import registry
from afterwards.model import Attempt, Task
from afterwards.store.sql import MICROSECONDS

log = logging.getLogger("tasks")

MAX_RESULT = 256 * 1024  # characters of a result's JSON that a row keeps


def store_arguments(task: Task) -> str:
    """Turn a request's task into what it will be when it comes back from its row, and return its arguments as JSON.

    Raises `ArgumentsRefused`.
    """
    entry = registry.of_function(task.function)
    assert entry is not None
    task.kwargs, arguments = entry.dump(task.args, task.kwargs)
    task.args, task.stored = (), True
    return arguments


def row_of(task: Task, arguments: str, hand_off_after: float = 0.0) -> dict[str, Any]:
    """Give the row of a new task: claimed at once by `task.worker`, if that is set.

    `hand_off_after` is for a process that hands off what is due at once by itself, when the answer
    has gone.
    """
    delay = max(0.0, (task.run_at - datetime.now(UTC)).total_seconds()) if task.run_at else 0.0
    return {
        "id": task.id,
        "name": task.name,
        "arguments": arguments,
        "in_thread": not task.is_async,
        "carrier": task.carrier,
        "max_attempts": task.policy.attempts,
        "worker": task.worker or None,
        "follows": task.follows or None,
        "delay_us": int(delay * MICROSECONDS),
        "hand_off_after_us": 0 if delay else int(hand_off_after * MICROSECONDS),
    }


def task_of(row: Any) -> Task:
    """Make the claimed row a task; raise `UnknownTask`, `ArgumentsRefused`, or what a type of an argument raises."""
    entry = registry.of_name(row.name)
    due_for = max(0, row.started_at - row.run_at) / MICROSECONDS
    return Task(
        row.id,
        row.name,
        entry.function,
        entry.is_async,
        kwargs=entry.load(row.arguments),
        carrier=row.carrier,
        created_at=time.time() - due_for,
        policy=replace(entry.policy, attempts=row.max_attempts),
        attempt=row.attempt,
        crashes=row.crashes,
        stored=True,
        worker=row.worker,
    )


def result_of(attempt: Attempt) -> str | None:
    """Give the attempt's result as JSON; None, and a line in the log, where it is no JSON or too long."""
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
