"""Users in the database: added once, listed by rising id."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, Row, String, Table, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import Database, Instant, metadata

users = Table(
    "users",
    metadata,
    # SQLite gives rising ids to INTEGER alone.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("email", String, nullable=False),
    Column("email_folded", String, nullable=False, unique=True),  # unique without regard to case
    Column("username", String, nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
)


@dataclass(frozen=True, slots=True)
class User:
    id: int
    email: str
    username: str
    created_at: datetime


class Taken(Exception):
    """Another user has the e-mail address, the user name, or both; `fields` says which."""

    def __init__(self, fields: list[str]) -> None:
        super().__init__(f"taken: {', '.join(fields)}")
        self.fields = fields


@asynccontextmanager
async def adding(database: Database, email: str, username: str) -> AsyncIterator[tuple[AsyncConnection, User]]:
    """Add a user in a transaction that the block may go on with; raise `Taken` where another user is in the way."""
    row = {"email": email, "username": username, "created_at": datetime.now(UTC)}
    insert = users.insert().values(row | {"email_folded": email.casefold()}).returning(users)
    try:
        async with database.transaction() as connection:
            yield connection, _user((await connection.execute(insert)).one())
    except IntegrityError:
        raise Taken(await _taken(database, email, username)) from None


async def page(database: Database, *, limit: int, after: int) -> list[User]:
    """List at most `limit` users whose ids are above `after`, by rising id."""
    query = select(users).where(users.c.id > after).order_by(users.c.id).limit(limit)
    async with database.reading() as connection:
        return [_user(row) for row in await connection.execute(query)]


async def _taken(database: Database, email: str, username: str) -> list[str]:
    query = select(users).where(or_(users.c.email_folded == email.casefold(), users.c.username == username))
    async with database.reading() as connection:
        rows = (await connection.execute(query)).all()
    fields = {"email": any(row.email_folded == email.casefold() for row in rows)}
    fields["username"] = any(row.username == username for row in rows)
    return [field for field, is_taken in fields.items() if is_taken]


def _user(row: Row[Any]) -> User:
    return User(row.id, row.email, row.username, row.created_at)
