"""Cuts off attempts at their time limits, with one timer for all that have the same one."""

import asyncio
from functools import partial
from typing import Any

from afterwards.model import Attempt, Outcome

Running = asyncio.Task[Any]


class TimeLimits:
    """Knows what runs, by its time limit: what began first reaches it first."""

    def __init__(self) -> None:
        self._running: dict[float, dict[Attempt, tuple[Running, float]]] = {}
        self._timed: set[float] = set()  # the limits that have a timer

    def begin(self, attempt: Attempt, running: Running, seconds: float) -> None:
        """Cut the attempt off after so many seconds, by cancelling what runs it."""
        deadline = asyncio.get_running_loop().time() + seconds
        self._running.setdefault(seconds, {})[attempt] = running, deadline
        if seconds not in self._timed:
            self._begin_timer(seconds, deadline)

    def end(self, attempt: Attempt, seconds: float) -> None:
        """Leave alone what has ended."""
        self._running[seconds].pop(attempt, None)

    def _begin_timer(self, seconds: float, deadline: float) -> None:
        self._timed.add(seconds)
        asyncio.get_running_loop().call_at(deadline, partial(self._cut_off, seconds))

    def _cut_off(self, seconds: float) -> None:
        attempts, now = self._running[seconds], asyncio.get_running_loop().time()
        while attempts:
            attempt, (running, deadline) = next(iter(attempts.items()))
            if deadline > now:
                self._begin_timer(seconds, deadline)
                return
            del attempts[attempt]
            attempt.outcome = Outcome.TIMED_OUT
            running.cancel()
        self._timed.discard(seconds)
