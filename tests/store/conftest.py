"""An empty database with its tables, of each kind."""

from collections.abc import AsyncIterator

import pytest

from afterwards.store.database import Database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await database.make_tables()
    yield database
    await database.close()
