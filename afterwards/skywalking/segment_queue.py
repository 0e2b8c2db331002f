"""Segments that wait to be sent, read by the clock: to wake a thread for each costs more."""

import time
from collections import deque
from queue import Empty, Full
from typing import Any

PAUSE = 0.05  # seconds between two looks at an empty queue


class SegmentQueue:
    """What the agent uses of `queue.Queue`, for one reader."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._segments: deque[Any] = deque()

    def put(self, segment: Any, block: bool = False) -> None:
        """Add the segment; raise `Full` at once where there is no room."""
        if self.full():
            raise Full
        self._segments.append(segment)

    def get(self, block: bool = True, timeout: float = 0) -> Any:
        """Take the oldest segment, or raise `Empty`; a blocking call waits up to `timeout` s."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._segments.popleft()
            except IndexError:
                if not block or time.monotonic() >= deadline:
                    raise Empty from None
            time.sleep(PAUSE)

    def empty(self) -> bool:
        return not self._segments

    def full(self) -> bool:
        return len(self._segments) >= self._most

    def task_done(self) -> None:
        """Do nothing: the agent says so when it takes a segment, not when it has sent it."""

    def join(self) -> None:
        """Return at once, for the same reason."""
