"""When a failed task is tried again, when it is given up, and what its row becomes."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from afterwards.model import Attempt, Outcome, State

MAX_MESSAGE = 2000  # characters of an error's text that the row keeps


class RetryAfter(Exception):
    """Raised by a task function: try again after so many seconds; this attempt counts."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason or f"to be tried again after {seconds:g} s")
        self.seconds = max(0.0, seconds)


class GiveUp(Exception):
    """Raised by a task function: trying again is no use, because of this."""


class Poison(Exception):
    """The task ends the process that runs it; of its `crashes` the last was certainly its own."""

    def __init__(self, crashes: int, how: str) -> None:
        super().__init__(f"{crashes} times the process that ran it ended with it; {how}")
        self.crashes = crashes


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an attempt's end makes of its task: the next state, to run in `delay` s if it does."""

    state: State
    delay: float = 0.0
    error_kind: str | None = None
    error_message: str | None = None


SUCCEEDED = Settlement(State.SUCCEEDED)


def settlement(attempt: Attempt, random_share: Callable[[], float] = random.random) -> Settlement:
    """Decide what becomes of the task after an attempt that was not released."""
    if attempt.outcome is Outcome.SUCCEEDED:
        return SUCCEEDED
    state, delay = _after_failure(attempt, random_share)
    return Settlement(state, delay, type(attempt.error).__name__, message_of(attempt.error))


def _after_failure(attempt: Attempt, random_share: Callable[[], float]) -> tuple[State, float]:
    if (
        isinstance(attempt.error, (GiveUp, Poison))
        or attempt.number >= attempt.task.policy.attempts
    ):
        return State.DEAD, 0.0
    if isinstance(attempt.error, RetryAfter):
        return State.RETRYING, attempt.error.seconds
    return State.RETRYING, pause(attempt, random_share)


def pause(attempt: Attempt, random_share: Callable[[], float] = random.random) -> float:
    """Choose the seconds before the next attempt: exponential backoff with full jitter.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    policy = attempt.task.policy
    # The exponent is bounded, or the thousandth attempt would overflow.
    ceiling = min(policy.longest_pause, policy.first_pause * 2.0 ** min(attempt.number - 1, 60))
    return ceiling * random_share()


def message_of(error: BaseException | None) -> str:
    """Return the error's text as a row can keep it."""
    try:
        return str(error)[:MAX_MESSAGE].encode("utf-8", "replace").decode().replace("\0", "")
    except Exception:
        return "its text cannot be had"
