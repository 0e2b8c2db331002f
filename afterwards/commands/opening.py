"""The database of an `Afterwards` that is not started, as commands open it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from afterwards.app import Afterwards
from afterwards.commands import Complaint
from afterwards.redaction import without_credentials
from afterwards.store.database import Database
from afterwards.store.tasks import Store


def address(afterwards: Afterwards) -> str:
    """Return the database's URL without what is secret in it."""
    return without_credentials(afterwards.url.partition("?")[0])


def is_missing_file(afterwards: Afterwards) -> bool:
    """Tell whether this is SQLite's, and no file yet: whoever opened it would make one."""
    scheme, _, path = afterwards.url.partition("?")[0].partition(":///")
    return scheme == "sqlite" and not Path(path).exists()


@asynccontextmanager
async def opened(afterwards: Afterwards) -> AsyncIterator[Store]:
    """Open the database, whatever is in it."""
    database = Database(afterwards.url, afterwards.table_prefix)
    try:
        yield Store(database)
    finally:
        await database.close()


@asynccontextmanager
async def with_tables(afterwards: Afterwards) -> AsyncIterator[Store]:
    """Open the database; raise `Complaint` where no tasks can be in it."""
    where, how = address(afterwards), "the first start makes it, or `migrate` does"
    if is_missing_file(afterwards):
        raise Complaint(f"{where} is no file yet: {how}")
    async with opened(afterwards) as store:
        if await store.schema_version() is None:
            prefix = afterwards.table_prefix
            raise Complaint(f"{where} has no tables whose names begin with {prefix}: {how}")
        yield store
