"""How many events a second, over the last ten."""

import time
from collections import deque
from collections.abc import Callable

SECONDS = 10


class Rate:
    """Counts events by the second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: deque[tuple[int, int]] = deque(maxlen=SECONDS)  # (second, events in it)

    def count(self) -> None:
        """Count an event that happens now."""
        second = int(self._now())
        if self._counts and self._counts[-1][0] == second:
            self._counts[-1] = second, self._counts[-1][1] + 1
        else:
            self._counts.append((second, 1))

    def per_second(self) -> float:
        """Return the mean over the last ten seconds."""
        oldest = int(self._now()) - SECONDS
        return sum(count for second, count in self._counts if second >= oldest) / SECONDS
