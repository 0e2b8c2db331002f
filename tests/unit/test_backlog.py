"""The backlog: what is reserved and counted adds up, whatever happens at the same moment."""

import asyncio

import pytest

from afterwards.backlog import Backlog
from afterwards.errors import Overloaded

pytestmark = pytest.mark.anyio


def backlog(most: int = 10, rate: float = 0.0) -> Backlog:
    return Backlog(most, lambda: rate)


def test_a_reservation_counts_at_once() -> None:
    waiting = backlog()
    with waiting.reserved(10), pytest.raises(Overloaded):
        waiting.refuse_excess(1)
    assert waiting.waiting() == 10


def test_a_failed_reservation_is_given_back() -> None:
    waiting = backlog()
    with pytest.raises(ConnectionError), waiting.reserved(10):
        raise ConnectionError
    waiting.refuse_excess(10)


def test_tasks_for_later_are_not_refused() -> None:
    waiting = backlog(most=0)
    with waiting.reserved(3):
        waiting.refuse_excess(0)


def test_what_was_claimed_makes_room() -> None:
    waiting = backlog()
    with waiting.reserved(10):
        pass
    waiting.claimed(4)
    waiting.refuse_excess(4)
    with pytest.raises(Overloaded):
        waiting.refuse_excess(5)


async def test_a_recount_forgets_no_reservation() -> None:
    waiting, asked = backlog(most=100), asyncio.Event()

    async def ask() -> int:
        asked.set()
        await asyncio.sleep(0)
        return 7

    with waiting.reserved(1):
        pass  # committed before the question, and so in its answer
    recounting = asyncio.create_task(waiting.recount(ask))
    with waiting.reserved(20):
        await asked.wait()
        with waiting.reserved(5):
            pass  # committed while the database counts
        await recounting
        assert waiting.waiting() == 7 + 5 + 20
    assert waiting.waiting() == 7 + 5 + 20


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 30), (4.0, 3), (1000.0, 1), (0.001, 600)])
def test_a_refusal_says_when_to_return(rate: float, seconds: int) -> None:
    waiting = backlog(rate=rate)
    with waiting.reserved(20), pytest.raises(Overloaded) as refused:
        waiting.refuse_excess(2)
    assert refused.value.retry_after == seconds
