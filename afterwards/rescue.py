"""What the living do for the dead, and for rows that nobody knows of."""

import logging
import time
from collections.abc import Callable, Collection

from afterwards.mention import about
from afterwards.store.beats import Seen, seen_now
from afterwards.store.sql import MICROSECONDS
from afterwards.store.tasks import Store

log = logging.getLogger("tasks")

BEAT_SECONDS = 2.0
DEAD_SECONDS = 10.0  # a worker silent for so long is dead: five missed beats
CLOCK_SECONDS = 60  # a clock that goes back by less is nobody's hand


class Rescue:
    """One worker's share of it, at each of its beats; `held` and `found` are as the heartbeat's."""

    def __init__(
        self, store: Store, held: Callable[[], Collection[str]], found: Callable[[], None]
    ) -> None:
        self._store = store
        self._held = held
        self._found = found
        self._seen: Seen = {}
        self._watched_at = 0.0
        self._strays: set[str] = set()  # held in the database, unknown here, at the last beat
        self._clock_ahead = 0  # of this process's monotonic clock, in microseconds

    async def begin(self) -> None:
        """Begin with the database's clock as it is now."""
        await self._store.pull_back()
        self._clock_ahead = await self._database_is_ahead()

    def knows_others(self, identity: str) -> bool:
        """Return whether there are workers beside this one."""
        return bool(self._seen.keys() - {identity})

    async def forget_the_dead(self, identity: str, now: float) -> None:
        """Forget the workers that were silent for too long; `now` is monotonic."""
        beats = await self._store.beats()
        late, self._watched_at = now - self._watched_at - 2 * BEAT_SECONDS, now
        if late > DEAD_SECONDS:
            self._seen = {}  # the database was away: nobody could beat
        elif late > 0:  # while this worker could not watch it has heard no silence
            self._seen = {id: (count, since + late) for id, (count, since) in self._seen.items()}
        self._seen = seen_now(self._seen, beats, now)
        silent = [id for id, (_, since) in self._seen.items() if now - since > DEAD_SECONDS]
        if dead := [id for id in silent if id != identity]:
            log.warning("silent for %g s, and so dead: %s", DEAD_SECONDS, ", ".join(dead))
            await self._store.forget(dead)

    async def rescue(self) -> None:
        """Give back what forgotten workers held."""
        for row in await self._store.rescue():
            with about(row.id, row.carrier):
                log.warning(
                    "%s %s was rescued from a dead worker and is %s", row.name, row.id, row.state
                )
            self._found()

    async def give_back_strays(self, identity: str) -> None:
        """Give back what this worker has claimed without knowing: the answer to a commit was lost.

        Only what is unknown here twice: once could be a task that starts or ends at this moment.
        """
        strays = await self._store.held_by(identity) - set(self._held())
        if twice := strays & self._strays:
            log.warning(
                "%d tasks were claimed without this worker's knowing; they are given back",
                len(twice),
            )
            await self._store.give_back(identity, twice)
            self._found()
        self._strays = strays - twice

    async def follow_the_clock(self) -> None:
        """Make due what waits for a time that a clock which was set back has yet to reach again."""
        ahead = await self._database_is_ahead()
        if ahead < self._clock_ahead - CLOCK_SECONDS * MICROSECONDS:
            count = await self._store.pull_back()
            log.warning(
                "the database's clock was set back; %d waiting tasks are due by the new time", count
            )
            self._found()
        self._clock_ahead = ahead

    async def _database_is_ahead(self) -> int:
        return await self._store.now() - int(time.monotonic() * MICROSECONDS)
