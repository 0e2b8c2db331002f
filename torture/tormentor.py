"""What is done to the processes and their database: a plan from a seed, and who carries it out."""

import asyncio
import random
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from os import kill as send_signal

import asyncpg
from sqlalchemy.engine import make_url

from torture.house import House

# Seconds from one torment to the next, in the mean: now and then it is long enough for a rescue.
PAUSE = 6.0
STALLED = 3  # connections, of the eight that a process has
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@dataclass(frozen=True, slots=True)
class Torment:
    """One entry of the plan: after a pause this is done to that process, for so many seconds."""

    name: str
    number: int
    pause: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of torment: how often it comes beside the others, and for how many seconds at most."""

    weight: int
    seconds: float
    do: Callable[[House, Torment], bool]  # False where nobody was there to be tormented


def _kill(house: House, torment: Torment) -> bool:
    return house.end(torment.number, signal.SIGKILL)


def _kill_all(house: House, torment: Torment) -> bool:
    return sum(house.end(number, signal.SIGKILL) for number in range(house.size)) > 0


def _drain(house: House, torment: Torment) -> bool:
    return house.end(torment.number, signal.SIGTERM)


def _freeze(house: House, torment: Torment) -> bool:
    pid = house.pid(torment.number)
    with suppress(ProcessLookupError):  # it may end by itself at any moment
        if pid:
            send_signal(pid, signal.SIGSTOP)
            began = time.monotonic()
            time.sleep(torment.seconds)
            house.events.write(what="frozen", pid=pid, began=began, ended=time.monotonic())
            send_signal(pid, signal.SIGCONT)
    return pid is not None


def _lock(house: House, torment: Torment) -> bool:
    """Let another program hold the lock that every write needs, 2.5 s at a time."""
    hold = _lock_sqlite if house.database_url.startswith("sqlite") else _lock_postgres
    until = time.monotonic() + torment.seconds
    while (left := until - time.monotonic()) > 0:
        hold(house.database_url, min(2.5, left))
        time.sleep(0.15)  # in which some of those who wait come in, and others do not
    return True


def _lock_sqlite(database_url: str, seconds: float) -> None:
    path = make_url(database_url).database
    with closing(sqlite3.connect(str(path), timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)


def _lock_postgres(database_url: str, seconds: float) -> None:
    async def hold() -> None:
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            for (table,) in await connection.fetch(tables):
                await connection.execute(f'LOCK TABLE "{table}" IN SHARE ROW EXCLUSIVE MODE')
            await asyncio.sleep(seconds)
        await connection.close()

    with suppress(asyncpg.DeadlockDetectedError):
        asyncio.run(hold())


def _fill(house: House, torment: Torment) -> bool:
    """Let the process write no file beyond 64 KiB, as if its disk were full."""
    if pid := house.pid(torment.number):
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
            time.sleep(torment.seconds)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, NO_LIMIT)
    return pid is not None


def _cut(house: House, torment: Torment) -> bool:
    house.proxies[torment.number].cut()
    return True


def _silence(house: House, torment: Torment) -> bool:
    proxy = house.proxies[torment.number]
    proxy.freeze()
    time.sleep(torment.seconds)
    proxy.thaw()
    return True


def _stall(house: House, torment: Torment) -> bool:
    """Let some of the process's connections fall silent, while the others go on."""
    proxy = house.proxies[torment.number]
    proxy.stall(STALLED)
    time.sleep(torment.seconds)
    proxy.thaw()
    return True


# Two of them work side by side: one torments the processes, the other their database. What is done
# to the database ends well before the ten seconds after which a process that cannot be heard counts
# as dead; a freeze need not.
ON_PROCESSES = {
    "kill": Kind(6, 0, _kill),
    "kill all": Kind(1, 0, _kill_all),
    "drain": Kind(3, 0, _drain),
    "freeze": Kind(4, 15, _freeze),
}
ON_SQLITE = {"lock": Kind(3, 8, _lock), "fill": Kind(1, 5, _fill)}
ON_POSTGRES = {
    "lock": Kind(2, 8, _lock),
    "cut": Kind(4, 0, _cut),
    "silence": Kind(3, 6.5, _silence),
    "stall": Kind(4, 8, _stall),
}


def plan(seed: str, kinds: dict[str, Kind], processes: int) -> Iterator[Torment]:
    """Plan torments without end; the same seed gives the same."""
    chance = random.Random(seed)
    while True:
        (name,) = chance.choices(list(kinds), [kind.weight for kind in kinds.values()])
        number, pause = chance.randrange(processes), chance.expovariate(1 / PAUSE)
        seconds = chance.uniform(0.3, 1) * kinds[name].seconds
        yield Torment(name, number, round(pause, 2), round(seconds, 2))


class Tormentor(threading.Thread):
    """Carries out a plan until it is stopped; the house's events say what was done when."""

    def __init__(self, house: House, name: str, kinds: dict[str, Kind], seed: int) -> None:
        super().__init__(name=name)
        self._house, self._kinds = house, kinds
        self._plan = plan(f"{seed} {name}", kinds, house.size)
        self._is_stopped = threading.Event()

    def stop(self) -> None:
        """Do no more after the torment that is under way."""
        self._is_stopped.set()

    def run(self) -> None:
        for torment in self._plan:
            if self._is_stopped.wait(torment.pause):
                return
            began = time.monotonic()
            if self._kinds[torment.name].do(self._house, torment):
                done = {"name": torment.name, "number": torment.number, "began": began}
                self._house.events.write(what="torment", **done, ended=time.monotonic())


def both(house: House, seed: int) -> list[Tormentor]:
    """Make the two who torment this house."""
    on_database = ON_SQLITE if house.database_url.startswith("sqlite") else ON_POSTGRES
    return [
        Tormentor(house, "processes", ON_PROCESSES, seed),
        Tormentor(house, "database", on_database, seed),
    ]
