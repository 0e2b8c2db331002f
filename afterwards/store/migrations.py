"""The tables as they are meant to be, and how those of an earlier version become so."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection as SyncConnection
from sqlalchemy import DateTime, Dialect, Index, MetaData, TypeDecorator, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateColumn, CreateIndex

metadata = MetaData()

INDEX_SECONDS = 600.0  # for an index that an earlier version's table lacks
TABLES_LOCK = (
    0x7461736B  # Postgres' advisory lock; any number, as long as only the making of tables takes it
)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC with microseconds; SQLite keeps no zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


async def make(connection: AsyncConnection) -> None:
    """Make the tables, columns and indexes that are missing; several processes may do so at once."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": TABLES_LOCK})
    await connection.run_sync(metadata.create_all)
    await connection.run_sync(_add_missing_columns)
    for index in await connection.run_sync(_missing_indexes):
        await _make_index(connection, index)


def _add_missing_columns(connection: SyncConnection) -> None:
    """Bring the tables of an earlier version up to date: add the columns that they lack.

    A column whose `info` has a "fill" is filled by it, for the rows that there are.
    """
    for table in metadata.sorted_tables:
        known = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in [column for column in table.columns if column.name not in known]:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
            if fill := column.info.get("fill"):
                fill(connection)


def _missing_indexes(connection: SyncConnection) -> list[Index]:
    # SQLAlchemy's inspection asks so much that it doubles the time of a start on Postgres.
    listing = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
        "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()",
    }
    known = set(connection.execute(text(listing[connection.dialect.name])).scalars())
    return [
        index
        for table in metadata.sorted_tables
        for index in table.indexes
        if index.name not in known
    ]


async def _make_index(connection: AsyncConnection, index: Index) -> None:
    if connection.dialect.name == "postgresql":  # millions of rows take longer than a statement may
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(
            str(CreateIndex(index).compile(dialect=connection.dialect)), timeout=INDEX_SECONDS
        )
    else:
        await connection.execute(CreateIndex(index))
