"""Whose turn it is: the names that wait share the free slots, and suspects come in few.

A suspect is a task with a crash behind it. Nobody knows whose fault that was, only who ran at that
moment: so with one crash behind it a task runs among few suspects, and with more alone, in a
process of its own.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

ALONE_FROM = 2  # crashes


class Limit(StrEnum):
    """What bounds how many tasks run at a time; each counts towards one or two of them."""

    SLOTS = "slots"  # of its lane
    SUSPECTS = "suspects"  # beside its lane's slots
    ALONE = "alone"  # instead of its lane's slots


Free = Mapping[Limit, int]


class Queue(NamedTuple):
    """Waiting tasks that are alike: they are claimed in the order in which they are due."""

    in_thread: bool
    crashes: int
    name: str


def limits_of(crashes: int) -> tuple[Limit, ...]:
    """Return what a task with so many crashes behind it counts towards."""
    if crashes >= ALONE_FROM:
        return (Limit.ALONE,)
    return (Limit.SLOTS, Limit.SUSPECTS) if crashes else (Limit.SLOTS,)


class Turns:
    """Remembers from one round of claims to the next which queue was served last: it comes last."""

    def __init__(self) -> None:
        self._served: dict[Queue, int] = {}
        self._count = 0

    def order(self, queues: Iterable[Queue]) -> list[Queue]:
        """Order the queues of a round, which are given with the longest waiting first."""
        return sorted(queues, key=lambda queue: self._served.get(queue, 0))

    def serve(self, queue: Queue) -> None:
        """Remember that the queue had its turn."""
        self._count += 1
        self._served[queue] = self._count


class Shares:
    """What is free, as the queues of a round share it when they are asked for in their order."""

    def __init__(self, free: Free) -> None:
        self._free = dict.fromkeys(Limit, 0) | dict(free)

    def begin(self, queues: Iterable[Queue]) -> None:
        """Begin a round, in which each of these queues is to have its share."""
        self._hungry = Counter(limit for queue in queues for limit in limits_of(queue.crashes))

    def of(self, queue: Queue) -> int:
        """Give the queue an equal part of what those before it have left."""
        return min(
            math.ceil(self._free[limit] / self._hungry[limit]) for limit in limits_of(queue.crashes)
        )

    def take(self, queue: Queue, count: int) -> None:
        """Count what the queue has taken of its share."""
        for limit in limits_of(queue.crashes):
            self._hungry[limit] -= 1
            self._free[limit] -= count
