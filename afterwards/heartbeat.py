"""How a worker stays known, and what the living do for the dead: heartbeat, rescue, and the clock they agree on.

No wall clock is asked: a worker counts its beats in the database, and every other watches the
counts by its own monotonic clock.
"""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection

from afterwards.store.sql import MICROSECONDS
from afterwards.store.tasks import Store

log = logging.getLogger("tasks")

BEAT_SECONDS = 2.0
DEAD_SECONDS = 10.0  # a worker silent for so long is dead: five missed beats
CLOCK_SECONDS = 60  # a clock that goes back by less is nobody's hand


class Heartbeat:
    """One worker's heartbeat: `identity` is what its claims bear.

    `family` is what the identities of workers that end together begin with. `held` lists the ids of
    the tasks that the worker runs, or is about to; `cancel` cuts one off; `found` is called when
    there is something to claim that nobody has told the worker of.
    """

    def __init__(
        self,
        store: Store,
        *,
        held: Callable[[], Collection[str]],
        cancel: Callable[[str], None],
        found: Callable[[], None],
        family: str = "",
    ) -> None:
        self._family = family
        self.identity = self._new_identity()
        self.is_known = (
            asyncio.Event()
        )  # from the first beat on, but for when it drops what it runs
        self._store = store
        self._held = held
        self._cancel = cancel
        self._found = found
        self._seen: dict[
            str, tuple[int, float]
        ] = {}  # every worker's beats, and when they last changed
        self._looked_at = 0.0
        self._strays: set[str] = set()  # held in the database, unknown here, at the last beat
        self._clock_ahead = (
            0  # by how much the database's clock is ahead of this process's monotonic one
        )
        self._vouched_at = 0.0  # when the last beat began that the database knows of
        self._ticked_at = 0.0
        self._ticking: asyncio.TimerHandle | None = None
        self._has_lost_hold = False

    async def beat(self) -> None:
        """Tell that this worker lives, and do what is to be done every two seconds; the first makes it known."""
        now = time.monotonic()
        if self.is_known.is_set() and not await self._store.beat(self.identity):
            self._drop_all(f"this worker was silent for {DEAD_SECONDS:g} s and declared dead")
        if not self.is_known.is_set():
            await self._be_born()
        self._vouched_at = now
        await self._bury_the_dead()
        for row in await self._store.rescue():
            log.warning(
                "%s %s was rescued from a dead worker and is %s", row.name, row.id, row.state
            )
            self._found()
        for id in await self._store.cancelled_under(self.identity):
            self._cancel(id)
        await self._give_back_strays()
        await self._follow_the_clock()

    async def _give_back_strays(self) -> None:
        # A commit whose answer was lost leaves rows that run under this worker's claim, and that it
        # has never heard of. Once could be a task that starts or ends at this moment.
        strays = await self._store.held_by(self.identity) - set(self._held())
        if twice := strays & self._strays:
            log.warning(
                "%d tasks were claimed without this worker's knowing; they are given back",
                len(twice),
            )
            await self._store.give_back(self.identity, twice)
            self._found()
        self._strays = strays - twice

    async def _follow_the_clock(self) -> None:
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

    async def _bury_the_dead(self) -> None:
        now, beats = time.monotonic(), await self._store.beats()
        late, self._looked_at = now - self._looked_at - 2 * BEAT_SECONDS, now
        if late > DEAD_SECONDS:
            self._seen = {}  # the database was away: nobody could beat
        elif late > 0:  # while this worker could not look it has heard no silence
            self._seen = {id: (count, since + late) for id, (count, since) in self._seen.items()}
        self._seen = {
            id: self._seen[id] if self._seen.get(id, (-1,))[0] == count else (count, now)
            for id, count in beats.items()
        }
        dead = [
            id
            for id, (_, since) in self._seen.items()
            if now - since > DEAD_SECONDS and id != self.identity
        ]
        if dead:
            log.warning("silent for %g s, and so dead: %s", DEAD_SECONDS, ", ".join(dead))
            await self._store.bury(dead)

    # --- birth and rebirth ---

    def vouches_for(self, identity: str) -> bool:
        """Tell whether what was claimed under this identity may start: none does while what runs is being dropped."""
        return identity == self.identity and not self._has_lost_hold

    def end(self) -> None:
        """Watch for standstills no more."""
        if self._ticking is not None:
            self._ticking.cancel()

    async def _be_born(self) -> None:
        await self._store.make_tables()  # a worker may be the first to come
        if self._has_lost_hold:
            await self._store.release(self.identity)  # what nobody else has taken yet
            self.identity = self._new_identity()
        await self._store.register(self.identity)
        await self._store.pull_back()
        self._clock_ahead = await self._database_is_ahead()
        self._has_lost_hold = False
        self.is_known.set()
        if self._ticking is None:
            self._ticked_at = time.monotonic()
            self._tick()

    def _tick(self) -> None:
        # A timer of the loop's own: after a standstill it is called before any task that slept goes
        # on.
        now = time.monotonic()
        still = now - self._ticked_at
        self._ticked_at = now
        others = self._seen.keys() - {self.identity}
        # As long as others take to find dead a worker that was just about to beat.
        if (
            still > DEAD_SECONDS - 2 * BEAT_SECONDS
            and now - self._vouched_at > DEAD_SECONDS
            and others
            and self.is_known.is_set()
        ):
            self._drop_all(
                f"this process stood still for {still:.1f} s, and others may run its tasks by now"
            )
        self._ticking = asyncio.get_running_loop().call_later(BEAT_SECONDS / 2, self._tick)

    def _drop_all(self, reason: str) -> None:
        """Cut off what runs, until this worker is born again: two must not run one task."""
        log.error("%s; it drops what it runs", reason)
        self._has_lost_hold = True
        self.is_known.clear()
        for id in self._held():
            self._cancel(id)

    def _new_identity(self) -> str:
        # Host and pid are for people. The random part makes it new at every start: platforms use
        # host names again.
        return f"{self._family}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
