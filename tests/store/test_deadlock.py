"""Two transactions that wait for each other: Postgres ends one, which may be tried again."""

import asyncio

import pytest

from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_deadlock_is_not_our_bug(database: Database) -> None:
    both_hold = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> None:
        async with database.transaction() as connection:
            await connection.execute(database.sql(f"LOCK TABLE {first}"))
            await both_hold.wait()
            await connection.execute(database.sql(f"LOCK TABLE {second}"))

    results = await asyncio.gather(
        lock("{tasks}", "{workers}"), lock("{workers}", "{tasks}"), return_exceptions=True
    )
    [error] = [result for result in results if result is not None]
    assert isinstance(error, DatabaseUnavailable)
