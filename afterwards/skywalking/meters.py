"""How the queue stands, as SkyWalking's meters, through the agent's own meter service.

The service sends them every `SW_AGENT_METER_REPORTER_PERIOD` seconds. It knows a meter by its name
alone, so none has tags; the OAP adds the service and the instance.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from afterwards.model import Attempt, Outcome

# What the database was last heard to hold, whoever runs it, by the words of `Process.state`.
GAUGES = {
    "queued": "afterwards_queued",
    "dead": "afterwards_dead",
    "oldest_waiting": "afterwards_oldest_waiting",  # in milliseconds
}
# Of this process alone.
RUNNING, SETTLED = "afterwards_running", "afterwards_settled"
WAIT, RUN = "afterwards_wait", "afterwards_run"
# Milliseconds, the lower bounds of buckets; the agent puts nothing into one at its very bound.
SECOND, MINUTE = 1_000, 60_000
STEPS = (
    *(0, 5, 10, 25, 50, 100, 250, 500),
    *(SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 30 * SECOND),
    *(MINUTE, 5 * MINUTE, 15 * MINUTE, 60 * MINUTE, 6 * 60 * MINUTE),
)


class Kinds(NamedTuple):
    """The agent's classes of meters."""

    new_gauge: Callable[[str, Iterator[float]], Any]
    new_counter: Callable[[str], Any]
    new_histogram: Callable[[str, list[int]], Any]


class Meters:
    """The meters of this process: none, until `register`."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._told = WeakKeyDictionary[object, Mapping[str, float]]()
        self._state: Mapping[str, float] = {}
        self._running = 0
        self._settled: Any = None
        self._buckets: tuple[list[Any], list[Any]] = [], []

    def register(self) -> None:
        """Have the agent's service send them; it must have been started."""
        gauge, counter, histogram = self._kinds
        for word, name in GAUGES.items():
            gauge(name, _each(partial(self._read, word)))
        gauge(RUNNING, _each(self._count_running))
        self._settled = counter(SETTLED)
        self._buckets = histogram(WAIT, [*STEPS]).buckets, histogram(RUN, [*STEPS]).buckets

    def tell(self, process: object, state: Mapping[str, float]) -> None:
        """Hear how many tasks wait in a process's database, and how long (s) the oldest has."""
        self._told[process] = state
        told = list(self._told.values())
        self._state = {
            "queued": sum(each["queued"] for each in told),
            "dead": sum(each["dead"] for each in told),
            "oldest_waiting": max(each["oldest_waiting"] for each in told) * SECOND,
        }

    def begin(self) -> float:
        """Count an attempt that begins; give the moment, for `end`."""
        self._running += 1
        return time.perf_counter()

    def end(self, attempt: Attempt, began: float) -> None:
        """Count an attempt that has ended, unless it was given back."""
        self._running -= 1
        if self._settled is None or attempt.outcome is Outcome.RELEASED:
            return
        # As the agent's own `increment` and `add_value`, without their locks, and with what is 0:
        # attempts end in one thread, the event loop's.
        self._settled.count += 1
        waits, runs = self._buckets
        waits[bisect_left(STEPS, attempt.waited * SECOND, 1) - 1].count += 1
        runs[bisect_left(STEPS, (time.perf_counter() - began) * SECOND, 1) - 1].count += 1

    def _read(self, word: str) -> float:
        return self._state.get(word, 0.0)

    def _count_running(self) -> float:
        return self._running


def _each(read: Callable[[], float]) -> Iterator[float]:
    while True:
        yield read()
