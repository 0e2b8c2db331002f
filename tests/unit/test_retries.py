from typing import Any

import pytest

from afterwards.model import MOVES, SETTLED, Attempt, Outcome, Policy, State, Task
from afterwards.retries import GiveUp, RetryAfter, Settlement, pause, settlement


async def _nothing() -> None:
    pass


def ended(
    outcome: Outcome, error: BaseException | None = None, *, number: int = 1, **policy: Any
) -> Attempt:
    policed = Policy(**policy)
    task = Task("task-1", "nothing", _nothing, is_async=True, attempt=number, policy=policed)
    return Attempt(task, outcome=outcome, error=error)


def test_success_settles() -> None:
    assert settlement(ended(Outcome.SUCCEEDED)) == Settlement(State.SUCCEEDED)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CANCELLED])
def test_a_failure_retries_and_says_why(outcome: Outcome) -> None:
    settled = settlement(ended(outcome, ValueError("no"), number=4), lambda: 1.0)
    assert (settled.state, settled.delay, settled.error_kind) == (State.RETRYING, 8.0, "ValueError")


def test_the_last_failure_is_the_end() -> None:
    settled = settlement(ended(Outcome.FAILED, ValueError("no"), number=5))
    assert settled == Settlement(State.DEAD, 0.0, "ValueError", "no")


def test_giving_up_is_dead_at_once() -> None:
    assert settlement(ended(Outcome.FAILED, GiveUp("no such user"))).state is State.DEAD


def test_a_task_may_time_its_retry() -> None:
    settled = settlement(ended(Outcome.FAILED, RetryAfter(42)))
    assert (settled.state, settled.delay) == (State.RETRYING, 42)


def test_a_wanted_retry_uses_an_attempt() -> None:
    assert settlement(ended(Outcome.FAILED, RetryAfter(42), number=5)).state is State.DEAD


@pytest.mark.parametrize(
    ("number", "ceiling"), [(1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (100_000, 600)]
)
def test_pauses_double_up_to_ten_minutes(number: int, ceiling: float) -> None:
    assert pause(ended(Outcome.FAILED, number=number), lambda: 1.0) == ceiling


def test_jitter_is_full() -> None:
    assert pause(ended(Outcome.FAILED), lambda: 0.0) == 0
    assert 0 <= pause(ended(Outcome.FAILED, number=5)) <= 16


def test_an_unstorable_error_is_still_stored() -> None:
    class UnspeakableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert (
        settlement(ended(Outcome.FAILED, UnspeakableError())).error_message
        == "its text cannot be had"
    )
    assert (
        settlement(ended(Outcome.FAILED, ValueError("a\0\ud800" + "b" * 9000))).error_message
        == "a?" + "b" * 1997
    )


def test_the_transition_table_has_every_state() -> None:
    moved = {state for move in MOVES.values() for state in (*move.before, *move.after)}
    assert moved == set(State)


def test_nothing_follows_success() -> None:
    onwards = [move for move in MOVES.values() if move.after and State.SUCCEEDED in move.before]
    assert not onwards


def test_settled_tasks_are_only_queued_again() -> None:
    onwards = [move.after for move in MOVES.values() if {*move.before} & {*SETTLED} and move.after]
    assert onwards == [(State.QUEUED,)]
