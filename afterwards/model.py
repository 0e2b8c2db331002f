"""What a task is, what an attempt at it is, and how an attempt can end."""

import functools
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple


class State(StrEnum):
    """Where a task stands; `MOVES` says who moves it on."""

    QUEUED = "queued"  # moved in by a request, by a rescue, a release, or a person who retries it
    RUNNING = "running"  # moved in by the worker that claims it
    RETRYING = "retrying"  # moved in by the worker whose attempt failed, with attempts left
    SUCCEEDED = "succeeded"  # moved in by the worker
    DEAD = "dead"  # moved in by the worker whose attempt was the last: a person must act
    CANCELLED = "cancelled"  # moved in by a person


class Move(NamedTuple):
    """What one verb does to a task's state; one that moves it to nothing deletes its row."""

    before: tuple[State, ...]
    after: tuple[State, ...] = ()


# The transition table, from which the statements take their `WHERE state IN (...)`.
MOVES: dict[str, Move] = {
    "claim": Move((State.QUEUED, State.RETRYING), (State.RUNNING,)),
    "settle": Move((State.RUNNING,), (State.SUCCEEDED, State.RETRYING, State.DEAD)),
    "release": Move((State.RUNNING,), (State.QUEUED,)),  # or rescue, from a worker that is dead
    "cancel": Move((State.QUEUED, State.RUNNING, State.RETRYING), (State.CANCELLED,)),
    "retry": Move((State.DEAD, State.CANCELLED), (State.QUEUED,)),
    "prune": Move((State.SUCCEEDED, State.CANCELLED)),
    "prune_dead": Move((State.DEAD,)),  # later: it waits for a person
    "delete": Move((State.SUCCEEDED, State.DEAD, State.CANCELLED)),
}

SETTLED = MOVES["delete"].before


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the task function raised
    TIMED_OUT = "timed_out"  # it was cut off at its time limit
    CANCELLED = "cancelled"  # it cancelled itself
    RELEASED = "released"  # it was cut off by a shutdown


class Lane(StrEnum):
    """Where a task function runs."""

    COROUTINE = "coroutine"  # on the event loop
    THREAD = "thread"  # a plain `def`


def new_task_id() -> str:
    """Make an id that reads as the demos' ids do, sorts by time and cannot be guessed.

    The form is `task-YYYYMMDD-HHMMSS-ffffff-` and 16 random hex digits; the time is UTC.
    """
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    if not _unguessable:
        _make_unguessable()
    return f"task-{_to_the_second(seconds)}-{microseconds:06d}-{_unguessable.pop()}"


def _make_unguessable() -> None:
    # By the hundred: each call asks the system, and lets go of the interpreter's lock for it.
    digits = secrets.token_hex(8 * 128)
    _unguessable.extend(digits[start : start + 16] for start in range(0, len(digits), 16))


_unguessable: list[str] = []
os.register_at_fork(after_in_child=_unguessable.clear)


@functools.lru_cache(maxsize=2)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a task is tried, for how long, with what pauses (s), and what is nobody's business.

    No `timeout` means the one that `Limits` sets for all. `secret` names arguments.
    """

    attempts: int = 5
    timeout: float | None = None
    first_pause: float = 1.0
    longest_pause: float = 600.0
    secret: frozenset[str] = frozenset()


class Delivery(NamedTuple):
    """How a broker brought a task: the trace context of its publication, from which queue, when.

    `published_at` is in seconds since 1970, by the clock of who published it; None if unknown.
    """

    carrier: str
    queue: str = ""
    published_at: float | None = None


@dataclass(slots=True, eq=False)
class Task:
    """A unit of work with its arguments, ready to run; nothing about it changes while it runs.

    A `stored` one has a row, or is about to, which is the truth about it; any other lives and dies
    in memory.
    `attempt` is the number of the attempt that comes. `carrier` is the trace context of what
    enqueued it, as text: stored with the task, read by the tracing.
    """

    id: str
    name: str
    function: Callable[..., Any]
    is_async: bool
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    carrier: str = ""
    created_at: float = field(default_factory=time.time)  # or due since; in seconds since 1970
    policy: Policy = Policy()
    attempt: int = 1
    crashes: int = 0  # how often a process ended while it ran the task
    run_at: datetime | None = None  # not before; at once if there is none
    follows: str = ""  # the id of the task that must have ended before
    is_followed: bool = False  # another task waits for the end of this one
    stored: bool = False
    worker: str = ""  # whose claim it runs under; a settle under any other is refused
    rescued_from: str = ""  # the worker that ended while it ran this attempt before
    delivery: Delivery | None = None  # by which it came, if a broker brought it

    @property
    def lane(self) -> Lane:
        return Lane.COROUTINE if self.is_async else Lane.THREAD

    @property
    def waits(self) -> bool:
        """Tell whether it is not due yet, or comes after another task."""
        return self.run_at is not None or bool(self.follows)


@dataclass(slots=True, eq=False)
class Attempt:
    """One execution of a task, counted from 1; `outcome` and `error` are set when it has ended.

    A plain `def` task function runs in `thread`, which may outlive the attempt: nothing can stop a
    thread.
    """

    task: Task
    started_at: float = field(default_factory=time.time)
    outcome: Outcome | None = None
    error: BaseException | None = None
    result: Any = None
    thread: Future[Any] | None = None

    @property
    def number(self) -> int:
        return self.task.attempt

    @property
    def waited(self) -> float:
        """The seconds between when the attempt was due and its start."""
        return max(0.0, self.started_at - self.task.created_at)
