"""Users in the database: added once, listed by rising id, known by their password, erased."""

import secrets
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    Row,
    Select,
    String,
    Table,
    TypeDecorator,
    bindparam,
    delete,
    exists,
    inspect,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from afterwards.store.database import Database
from afterwards.store.failures import SchemaRefused

metadata = MetaData()

FILLED_AT_ONCE = 1000  # users of an earlier version, in one statement


class Instant(TypeDecorator[datetime]):
    """A moment in UTC with microseconds; SQLite keeps no zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def folded(username: str) -> str:
    """Return a name without case, form, and what cannot be seen: names that share it look the same.

    Letters of other alphabets that look alike are other letters here.
    https://www.unicode.org/reports/tr15/
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold())
    visible = "".join(each for each in text if unicodedata.category(each) != "Cf")
    return " ".join(visible.split())


users = Table(
    "users",
    metadata,
    # SQLite gives rising ids to INTEGER alone.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("email", String, nullable=False),
    Column("email_folded", String, nullable=False, unique=True),  # unique without regard to case
    Column("username", String, nullable=False, unique=True),
    # Unique without regard to looks; null for those who looked like another before that was so.
    Column("username_folded", String),
    Column("created_at", Instant, nullable=False),
    # Null for those who were added without a password, and cannot ask for a token.
    Column("password_hash", String),
    # What tokens call a user: SQLite may give an erased user's id to another.
    Column("subject", String),
)
# What earlier versions' tables lack.
ADDED = ("username_folded", "password_hash", "subject")
NAMES = Index("users_username_folded", users.c.username_folded, unique=True)
SUBJECTS = Index("users_subject", users.c.subject, unique=True)


_made = WeakSet[Database]()  # whose table was found as it is meant to be


async def make_table(database: Database) -> None:
    """Make the table, or what an earlier version's lacks; raise `DatabaseUnavailable`.

    That is a `SchemaRefused` where there is a table of this name that is another's.

    Whatever else is called here does so by itself, where it has not been done yet.
    """
    if database not in _made:
        async with database.migrating() as connection:
            await connection.run_sync(_migrate)
        _made.add(database)


def _migrate(connection: Connection) -> None:
    metadata.create_all(connection)
    found = {column["name"] for column in inspect(connection).get_columns("users")}
    if found | {*ADDED} != {column.name for column in users.columns}:
        raise SchemaRefused(
            "there is a table users that is none of ours, and it is left alone: give the service a"
            " database where there is none"
        )
    for name in ADDED:
        if name not in found:
            connection.execute(text(f"ALTER TABLE users ADD COLUMN {name} VARCHAR"))
    if "username_folded" not in found:
        _fold_names(connection)
    for index in (NAMES, SUBJECTS):
        index.create(connection, checkfirst=True)


def _fold_names(connection: Connection) -> None:
    """Fold the names of an earlier version's users; of those that look alike the first has it."""
    others = users.alias()
    is_taken = exists().where(others.c.username_folded == bindparam("name"))
    fold = (
        update(users)
        .where(users.c.id == bindparam("user"), ~is_taken)
        .values(username_folded=bindparam("name"))
    )
    last = 0
    while rows := connection.execute(
        select(users.c.id, users.c.username)
        .where(users.c.id > last)
        .order_by(users.c.id)
        .limit(FILLED_AT_ONCE)
    ).all():
        connection.execute(fold, [{"user": row.id, "name": folded(row.username)} for row in rows])
        last = rows[-1].id


@dataclass(frozen=True, slots=True)
class User:
    id: int
    email: str
    username: str
    created_at: datetime
    subject: str | None  # what tokens call the user, and what the user's own tasks bear


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user is asked for, and what a token calls them then."""

    id: int
    password_hash: str
    subject: str


class Unknown(Exception):
    """There is no such user."""


class Taken(Exception):
    """Another user has the e-mail address, the user name, or both; `fields` says which."""

    def __init__(self, fields: list[str]) -> None:
        super().__init__(f"taken: {', '.join(fields)}")
        self.fields = fields


@asynccontextmanager
async def adding(
    database: Database, email: str, username: str, password_hash: str | None = None
) -> AsyncIterator[tuple[AsyncConnection, User]]:
    """Add a user in a transaction that the block may go on with; raise `Taken`."""
    row = {"email": email, "username": username, "created_at": datetime.now(UTC)}
    row |= {"email_folded": email.casefold(), "username_folded": folded(username)}
    if password_hash is not None:
        row |= {"password_hash": password_hash, "subject": secrets.token_hex(16)}
    insert = users.insert().values(row).returning(users)
    await make_table(database)
    try:
        async with database.transaction() as connection:
            yield connection, _user((await connection.execute(insert)).one())
    except IntegrityError:
        raise Taken(await _taken(database, email, username)) from None


async def page(
    database: Database, *, limit: int, after: int, only: int | None = None
) -> list[User]:
    """List at most `limit` users whose ids are above `after`, by rising id, or `only` this one."""
    query = select(users).where(users.c.id > after).order_by(users.c.id).limit(limit)
    if only is not None:
        query = query.where(users.c.id == only)
    return [_user(row) for row in await _rows(database, query)]


async def with_subject(database: Database, subject: str) -> User | None:
    """Find the user to whom tokens refer by this; None if there is none (any more)."""
    query = select(users).where(users.c.subject == subject)
    rows = await _rows(database, query) if subject.isalnum() else ()  # Postgres takes no NUL
    return _user(rows[0]) if rows else None


async def credentials(database: Database, username: str) -> Credentials | None:
    """Find what a user of this name is asked for; None if there is none who has a password."""
    named = select(users).where(users.c.username_folded == folded(username))
    for row in await _rows(database, named.where(users.c.password_hash.is_not(None))):
        return Credentials(row.id, row.password_hash, row.subject)
    return None


async def renew(database: Database, known: Credentials, password_hash: str) -> None:
    """Keep another hash of the same password, unless it has changed meanwhile."""
    is_same = users.c.password_hash == known.password_hash
    query = update(users).where(users.c.id == known.id, is_same)
    async with database.transaction() as connection:
        await connection.execute(query.values(password_hash=password_hash))


@asynccontextmanager
async def erasing(database: Database, id: int) -> AsyncIterator[tuple[AsyncConnection, User]]:
    """Delete a user in a transaction that the block may go on with; raise `Unknown`."""
    await make_table(database)
    erase = delete(users).where(users.c.id == id).returning(users)
    async with database.transaction() as connection:
        row = (await connection.execute(erase)).first()
        if row is None:
            raise Unknown
        yield connection, _user(row)


async def _rows(database: Database, query: Select[*tuple[Any, ...]]) -> Sequence[Row[Any]]:
    await make_table(database)
    async with database.reading() as connection:
        return (await connection.execute(query)).all()


async def _taken(database: Database, email: str, username: str) -> list[str]:
    has_email, name = users.c.email_folded == email.casefold(), folded(username)
    has_name = or_(users.c.username == username, users.c.username_folded == name)
    taken = has_email.label("email"), has_name.label("username")
    rows = await _rows(database, select(*taken).where(or_(has_email, has_name)))
    return [field for field in ("email", "username") if any(getattr(row, field) for row in rows)]


def _user(row: Row[Any]) -> User:
    return User(row.id, row.email, row.username, row.created_at, row.subject)
