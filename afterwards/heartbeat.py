"""How a worker stays known to the others, and what it does when it was not.

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

from afterwards import rescue
from afterwards.rescue import Rescue
from afterwards.store.tasks import Store

log = logging.getLogger("tasks")


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
        self.is_known = asyncio.Event()  # from the first beat on, unless it has lost its hold
        self._store = store
        self._held = held
        self._cancel = cancel
        self._rescue = Rescue(store, held, found)
        self._standstill = _Standstill(self._after_standstill)
        self._vouched_at = 0.0  # when the last beat began that the database knows of
        self._has_lost_hold = False

    async def beat(self) -> None:
        """Tell that this worker lives; the first beat makes it known. Then look after the dead."""
        now = time.monotonic()
        if self.is_known.is_set() and not await self._store.beat(self.identity):
            self._drop_all(
                f"this worker was silent for {rescue.DEAD_SECONDS:g} s and declared dead"
            )
        if not self.is_known.is_set():
            await self._register()
        self._vouched_at = now
        await self._rescue.forget_the_dead(self.identity, time.monotonic())
        await self._rescue.rescue()
        for id in await self._store.cancelled_under(self.identity):
            self._cancel(id)
        await self._rescue.give_back_strays(self.identity)
        await self._rescue.follow_the_clock()

    def vouches_for(self, identity: str) -> bool:
        """Return whether what was claimed under this identity may start.

        Nothing may while what runs is being dropped.
        """
        return identity == self.identity and not self._has_lost_hold

    def has_been_known(self) -> bool:
        """Return whether the database has ever heard of this worker."""
        return self._vouched_at > 0

    def end(self) -> None:
        """Watch for standstills no more."""
        self._standstill.end()

    async def _register(self) -> None:
        await self._store.make_tables()  # a worker may be the first to come
        if self._has_lost_hold:
            await self._store.release(self.identity)  # what nobody else has taken yet
            self.identity = self._new_identity()
        await self._store.register(self.identity)
        await self._rescue.begin()
        self._has_lost_hold = False
        self.is_known.set()
        self._standstill.begin()

    def _after_standstill(self, seconds: float) -> None:
        is_silent = time.monotonic() - self._vouched_at > rescue.DEAD_SECONDS
        if is_silent and self.is_known.is_set() and self._rescue.knows_others(self.identity):
            self._drop_all(
                f"this process stood still for {seconds:.1f} s, and others may run its tasks by now"
            )

    def _drop_all(self, reason: str) -> None:
        """Cut off what runs, until this worker is known again: two must not run one task."""
        log.error("%s; it drops what it runs", reason)
        self._has_lost_hold = True
        self.is_known.clear()
        for id in self._held():
            self._cancel(id)

    def _new_identity(self) -> str:
        # Host and pid are for people. The random part makes it new at every start: platforms use
        # host names again.
        return f"{self._family}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class _Standstill:
    """Calls back when the process stood still for so long that others may take it for dead.

    It is a timer of the event loop's own: after a standstill it is called before any task that
    slept goes on.
    """

    def __init__(self, after: Callable[[float], None]) -> None:
        self._after = after
        self._ticked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if self._timer is None:
            self._ticked_at = time.monotonic()
            self._tick()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = time.monotonic()
        still, self._ticked_at = now - self._ticked_at, now
        # As long as others take to find dead a worker that was just about to beat.
        if still > rescue.DEAD_SECONDS - 2 * rescue.BEAT_SECONDS:
            self._after(still)
        self._timer = asyncio.get_running_loop().call_later(rescue.BEAT_SECONDS / 2, self._tick)
