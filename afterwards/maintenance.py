"""What every process does that holds rows: it stays known, rescues, prunes, and says goodbye."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from afterwards import rescue
from afterwards.attachments import Attachments
from afterwards.heartbeat import Heartbeat
from afterwards.limits import Limits
from afterwards.loop import Loop
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.tasks import Store
from afterwards.upkeep import Upkeep

log = logging.getLogger("tasks")

LOOP_SECONDS = 0.3  # for the last beat that is under way
RELEASE_SECONDS = 1.0  # for the last words to the database


async def _nothing() -> None: ...


class Maintenance:
    """The heartbeat and the upkeep of one process; `beaten` is awaited after each beat."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        *,
        held: Callable[[], Collection[str]],
        cancel: Callable[[str], None],
        found: Callable[[], None],
        beaten: Callable[[], Awaitable[None]] = _nothing,
        family: str = "",
        attachments: Attachments | None = None,
    ) -> None:
        self._store = store
        self._beaten = beaten
        self.heartbeat = Heartbeat(store, held=held, cancel=cancel, found=found, family=family)
        self._upkeep = Upkeep(store, limits, self.heartbeat.is_known, attachments)
        self._beating = Loop(self._beat, rescue.BEAT_SECONDS)

    async def first_beat(self) -> None:
        """Make the worker known, unless the database is away."""
        await self._beating.step()

    def begin(self) -> None:
        """Keep the worker known, however long the database is away."""
        self._beating.begin()
        self._upkeep.begin()

    def is_running(self) -> bool:
        """Return whether it has begun, and was not told to end."""
        return self._beating.is_running()

    def is_well(self) -> bool:
        """Return whether the last beat reached the database."""
        return self._beating.has_succeeded_within(rescue.DEAD_SECONDS)

    async def end_upkeep(self) -> None:
        """Leave to others what is not pruned."""
        await self._upkeep.end()

    async def end(self, *, before_release: Callable[[], Awaitable[None]] = _nothing) -> None:
        """Beat no more, and give back what this worker still holds, to be run elsewhere at once."""
        await self._beating.end(LOOP_SECONDS)
        self.heartbeat.end()
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._store.close()
                await before_release()
                await self._store.release(self.heartbeat.identity)
        except (DatabaseUnavailable, TimeoutError):
            if self.heartbeat.has_been_known():
                log.warning(
                    "the database is away; others will rescue within %g s what this worker held",
                    rescue.DEAD_SECONDS,
                )
            else:
                log.warning("the database was never reached; this worker held no task")

    async def _beat(self) -> None:
        await self.heartbeat.beat()
        await self._beaten()
