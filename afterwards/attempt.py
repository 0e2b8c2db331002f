"""One attempt at a task, from its start to its outcome: no exception leaves it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any

from afterwards import secrecy
from afterwards.model import Attempt, Outcome
from afterwards.threads import start_in_thread
from afterwards.time_limits import TimeLimits

log = logging.getLogger("tasks")

# The id of the task that runs in this context, for the log; empty outside of one.
current_task_id: ContextVar[str] = ContextVar("current_task_id", default="")

Call = Callable[[Attempt], Awaitable[Any]]


async def call(attempt: Attempt) -> Any:
    """Call the task function in this process, and return what it returns."""
    task = attempt.task
    if task.is_async:
        return await task.function(*task.args, **task.kwargs)
    function = partial(task.function, *task.args, **task.kwargs)
    attempt.thread = start_in_thread(function, name=task.id)
    result, error = await asyncio.wrap_future(attempt.thread)
    if error is not None:
        raise error
    return result


async def run(
    attempt: Attempt,
    *,
    timeout: float,
    limits: TimeLimits,
    span: AbstractContextManager[None],
    call: Call = call,
) -> None:
    """Run the attempt within the span and set its outcome; no exception leaves it.

    It is cut off after `timeout` seconds. Being cancelled from outside is the outcome `released`.
    `call` is where the function runs: here, unless it says otherwise.
    """
    current_task_id.set(attempt.task.id)
    began = time.perf_counter()
    with span:
        log.info("%s started", attempt.task.name)
        attempt.outcome, attempt.error = await outcome_of(attempt, timeout, limits, call)
        if attempt.error is not None and (secret := attempt.task.policy.secret):
            arguments = attempt.task.kwargs
            secrets = {name: arguments[name] for name in secret if name in arguments}
            attempt.error = secrecy.without(attempt.error, secrets)
        _log_end(attempt, time.perf_counter() - began)


async def outcome_of(
    attempt: Attempt, timeout: float, limits: TimeLimits, call: Call = call
) -> tuple[Outcome, BaseException | None]:
    """Run the attempt, log nothing, and return its outcome; the result is put on it."""
    this = asyncio.current_task()
    assert this is not None
    limits.begin(attempt, this, timeout)
    try:
        attempt.result = await call(attempt)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a task function must not end the service
        if attempt.outcome is Outcome.TIMED_OUT and this.uncancel() == 0:
            return Outcome.TIMED_OUT, _timeout_error(error)
        return _outcome_of(error, this), error
    finally:
        limits.end(attempt, timeout)
    if attempt.outcome is Outcome.TIMED_OUT:  # which it has swallowed
        this.uncancel()
    return Outcome.SUCCEEDED, None


def _timeout_error(cause: BaseException) -> BaseException:
    error = TimeoutError("it was cut off at its time limit")
    error.__cause__ = cause
    return error.with_traceback(cause.__traceback__)


def _outcome_of(error: BaseException, this: "asyncio.Task[Any]") -> Outcome:
    if isinstance(error, asyncio.CancelledError):
        return Outcome.RELEASED if this.cancelling() else Outcome.CANCELLED
    return Outcome.FAILED


def _log_end(attempt: Attempt, seconds: float) -> None:
    name, outcome = attempt.task.name, attempt.outcome
    match outcome:
        case Outcome.SUCCEEDED:
            log.info("%s succeeded in %.3f s", name, seconds)
        case Outcome.FAILED | Outcome.TIMED_OUT:
            log.error(
                "%s %s after %.3f s",
                name,
                outcome.replace("_", " "),
                seconds,
                exc_info=attempt.error,
            )
        case _:
            log.warning("%s %s after %.3f s", name, outcome, seconds)
    if attempt.thread is not None and not attempt.thread.done():
        log.warning(
            "%s still runs in its thread, which nothing can stop; it keeps its slot until it ends",
            name,
        )
