"""What workers tell the database of themselves, and what the living do for the dead."""

from collections.abc import Collection, Sequence
from typing import Any

from afterwards.store import statements
from afterwards.store.database import Database
from afterwards.store.sql import listed


class ForWorkers:
    """The part of a `Store` that a heartbeat uses."""

    _database: Database

    async def make_tables(self) -> None:
        """Bring the tables to this version, as `Database.make_tables` does."""
        await self._database.make_tables()

    async def register(self, worker: str) -> None:
        """Make the worker known before it claims: others rescue what unknown workers run."""
        await self._database.change(statements.REGISTER, {"worker": worker})

    async def beat(self, worker: str) -> bool:
        """Tell that the worker lives; False if it was declared dead meanwhile."""
        return await self._database.change(statements.BEAT, {"worker": worker}) > 0

    async def beats(self) -> dict[str, int]:
        """Return every worker's count of beats."""
        return {row.id: row.beats for row in await self._database.all(statements.BEATS)}

    async def forget(self, dead: Sequence[str]) -> None:
        """Forget workers; what they run is to be rescued."""
        await self._database.change(statements.FORGET, {"ids": listed(dead)})

    async def rescue(self) -> Sequence[Any]:
        """Give back what unknown workers run; return those rows as they are now."""
        async with self._database.transaction() as connection:
            return (await connection.execute(self._database.sql(statements.RESCUE))).all()

    async def release(self, worker: str) -> int:
        """Give back all that the worker still runs, with the attempt not counted, and forget it."""
        sql = self._database.sql
        async with self._database.transaction() as connection:
            held = await connection.execute(sql(statements.RELEASE), {"holder": worker})
            await connection.execute(sql(statements.FORGET), {"ids": listed([worker])})
            return held.rowcount

    async def release_family(self, family: str) -> None:
        """Release every worker whose identity begins so."""
        for id in [id for id in await self.beats() if id.startswith(family)]:
            await self.release(id)

    async def held_by(self, worker: str) -> set[str]:
        """List the tasks that run under the worker's claim, as the database sees it."""
        return {row.id for row in await self._database.all(statements.HELD_BY, {"holder": worker})}

    async def give_back(self, worker: str, ids: Collection[str]) -> None:
        """Queue tasks again that the worker holds unknowingly, with the attempt not counted."""
        values = {"holder": worker, "ids": listed(ids)}
        await self._database.change(statements.GIVE_BACK, values)

    async def cancelled_under(self, worker: str) -> list[str]:
        """List the tasks that a person cancelled while the worker ran them, in the last minute."""
        found = await self._database.all(statements.CANCELLED_UNDER, {"worker": worker})
        return [row.id for row in found]

    async def now(self) -> int:
        """Ask the database for its clock, in microseconds."""
        [(now,)] = await self._database.all(statements.NOW)
        return int(now)

    async def pull_back(self) -> int:
        """Make due what was queued before the clock was set back, when it would have been."""
        return await self._database.change(statements.PULL_BACK)
