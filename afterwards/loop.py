"""A step that is repeated, whatever it raises, until it is told to end."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

from afterwards.store.failures import DatabaseUnavailable

log = logging.getLogger("tasks")


class Loop:
    """Repeats the step, with so many seconds between the end of one and the next."""

    def __init__(self, step: Callable[[], Awaitable[object]], seconds: float) -> None:
        self._step = step
        self._seconds = seconds
        self._woken = asyncio.Event()
        self._is_ending = False
        self._running: asyncio.Task[None] | None = None
        self._is_away = False  # the database was, for the last step
        self._succeeded_at = -math.inf  # by the monotonic clock

    def begin(self) -> None:
        """Start with a step at once, unless it has begun, or was told to end."""
        if self._running is None and not self._is_ending:
            self._running = asyncio.create_task(self._run())

    def is_running(self) -> bool:
        """Tell whether there will be another step."""
        return self._running is not None and not self._is_ending

    def wake(self) -> None:
        """Take the next step at once, or another one after that which is under way."""
        self._woken.set()

    async def end(self, seconds: float) -> None:
        """Give the step that is under way so many seconds to end.

        One that is cut off may lose what it has in hand.
        """
        self._is_ending = True
        self._woken.set()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=seconds)
            self._running.cancel()

    async def step(self) -> None:
        """Take a step here and now; if the database is away, log that once.

        Raises whatever else the step raises.
        """
        try:
            await self._step()
        except DatabaseUnavailable as error:
            if not self._is_away:
                log.warning("the database is unavailable, trying again: %s", error)
            self._is_away = True
            return
        if self._is_away:
            log.info("the database is back")
        self._is_away, self._succeeded_at = False, time.monotonic()

    def has_succeeded_within(self, seconds: float) -> bool:
        """Return whether the last step ended well, and no longer ago than so many seconds."""
        return not self._is_away and time.monotonic() - self._succeeded_at < seconds

    async def _run(self) -> None:
        while not self._is_ending:
            self._woken.clear()
            try:
                await self.step()
            except Exception:  # a loop that has died is the worst that can happen to a queue
                log.exception("a step of the worker failed; it goes on")
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._woken.wait()
        except TimeoutError:
            return
