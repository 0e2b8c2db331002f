"""What a task is, what an attempt at it is, and how an attempt can end."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the task function raised
    TIMED_OUT = "timed_out"  # it was cut off at its time limit
    CANCELLED = "cancelled"  # it cancelled itself
    RELEASED = "released"  # it was cut off by a shutdown


def new_task_id() -> str:
    """Make an id that reads as the demos' ids do, sorts by time and cannot be guessed.

    The form is `task-YYYYMMDD-HHMMSS-ffffff-` and 16 random hex digits; the time is UTC.
    """
    return f"task-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A unit of work with its arguments.

    `carrier` is the trace context of the request that caused it, as text: stored with the task, read by the tracing.
    """

    id: str
    name: str
    function: Callable[..., Any]
    is_async: bool
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    carrier: str = ""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(slots=True, eq=False)
class Attempt:
    """One execution of a task, counted from 1; `outcome` and `error` are set when it has ended.

    A plain `def` task function runs in `thread`, which may outlive the attempt: nothing can stop a thread.
    """

    task: Task
    number: int = 1
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    outcome: Outcome | None = None
    error: BaseException | None = None
    thread: Future[Any] | None = None

    @property
    def waited(self) -> float:
        """The seconds between the task's creation and this attempt's start."""
        return max(0.0, (self.started_at - self.task.created_at).total_seconds())
