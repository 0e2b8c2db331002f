"""How many tasks wait for a slot: as last counted, and as heard of since."""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from afterwards.errors import Overloaded

RETRY_AFTER_SECONDS = 30  # what a client is told when nothing has settled lately
LONGEST_RETRY_AFTER = 600


class Backlog:
    """Bounds the waiting tasks to `most`; `rate` gives how many settle a second."""

    def __init__(self, most: int, rate: Callable[[], float]) -> None:
        self._most = most
        self._rate = rate
        self._counted = 0  # in the database, when it was last asked
        self._heard = 0  # stored and claimed since
        self._reserved = 0  # for what is being stored at this moment

    def waiting(self) -> int:
        """Return the number of tasks that wait, or will when their commits are done."""
        return max(0, self._counted + self._heard) + self._reserved

    def is_full(self) -> bool:
        """Tell whether nothing more is accepted."""
        return self.waiting() >= self._most

    def refuse_excess(self, count: int) -> None:
        """Raise `Overloaded` where so many more are too many."""
        excess = self.waiting() + count - self._most
        if count and excess > 0:
            rate = self._rate()
            raise Overloaded(
                min(LONGEST_RETRY_AFTER, math.ceil(excess / rate)) if rate else RETRY_AFTER_SECONDS
            )

    @contextmanager
    def reserved(self, count: int) -> Iterator[None]:
        """Count so many while the block stores them, and afterwards, unless it fails."""
        self._reserved += count
        try:
            yield
            self._heard += count
        finally:
            self._reserved -= count

    def claimed(self, count: int) -> None:
        """Hear that so many wait no more."""
        self._heard = max(-self._counted, self._heard - count)

    async def recount(self, ask: Callable[[], Awaitable[int]]) -> None:
        """Ask for the number in the database; what is heard of meanwhile may be in the answer."""
        before = self._heard
        self._counted = await ask()
        self._heard -= before
