import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import users
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable, SchemaRefused

pytestmark = pytest.mark.anyio


async def add(database: Database, email: str, username: str) -> users.User:
    async with users.adding(database, email, username) as (_, user):
        return user


async def test_a_user_is_kept_as_given(database: Database) -> None:
    added = await add(database, "Ada@example.com", "Ada \N{PILE OF POO}")
    assert await users.page(database, limit=10, after=0) == [added]
    assert (added.email, added.username) == ("Ada@example.com", "Ada \N{PILE OF POO}")
    assert datetime.now(UTC) - added.created_at < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("email", "username", "fields"),
    [
        ("ADA@example.com", "other", ["email"]),
        ("other@example.com", "ada", ["username"]),
        ("ada@EXAMPLE.com", "ada", ["email", "username"]),
    ],
)
async def test_a_conflict_names_the_taken_fields(
    database: Database, email: str, username: str, fields: list[str]
) -> None:
    await add(database, "ada@example.com", "ada")
    with pytest.raises(users.Taken) as taken:
        await add(database, email, username)
    assert taken.value.fields == fields
    assert len(await users.page(database, limit=10, after=0)) == 1


@pytest.mark.parametrize(
    "name", ["Ada", "\uff21da", "ad\u200ba", "\u202eada", "ada ", "\U0001d4d0da", "A\u00adDA"]
)
async def test_a_name_looking_alike_is_taken(database: Database, name: str) -> None:
    await add(database, "ada@example.com", "ada")
    with pytest.raises(users.Taken) as taken:
        await add(database, "ada2@example.com", name)
    assert taken.value.fields == ["username"]


@pytest.mark.parametrize("name", ["adam", "ad\xe4", "a da", "ado"])
async def test_a_name_looking_different_is_free(database: Database, name: str) -> None:
    await add(database, "ada@example.com", "ada")
    assert (await add(database, "ada2@example.com", name)).username == name


async def test_earlier_versions_users_keep_their_names(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "FILLED_AT_ONCE", 2)
    await users.make_table(database)
    async with database.transaction() as connection:
        for index in (users.NAMES, users.SUBJECTS):
            await connection.execute(text(f"DROP INDEX {index.name}"))
        for column in users.ADDED:
            await connection.execute(text(f"ALTER TABLE users DROP COLUMN {column}"))
        for name in ("Ada", "bob", "ada", "eve"):
            values = {
                "email": f"{name}@example.com",
                "email_folded": name,
                "username": name,
                "now": datetime.now(UTC),
            }
            columns = "email, email_folded, username, created_at"
            insert = text(
                f"INSERT INTO users ({columns}) VALUES (:email, :email_folded, :username, :now)"
            )
            await connection.execute(insert, values)
    for _ in range(2):
        users._made.clear()
        await users.make_table(database)
    assert [user.username for user in await users.page(database, limit=9, after=0)] == [
        "Ada",
        "bob",
        "ada",
        "eve",
    ]
    async with database.reading() as connection:
        kept = await connection.execute(text("SELECT username_folded FROM users ORDER BY id"))
        assert list(kept.scalars()) == ["ada", "bob", None, "eve"]
    for name in ("BOB", "ADA", "ada", "Eve"):
        with pytest.raises(users.Taken) as taken:
            await add(database, "new@example.com", name)
        assert taken.value.fields == ["username"]


async def test_the_last_versions_users_stay(database: Database) -> None:
    await users.make_table(database)
    async with database.transaction() as connection:
        await connection.execute(text(f"DROP INDEX {users.SUBJECTS.name}"))
        for column in ("password_hash", "subject"):
            await connection.execute(text(f"ALTER TABLE users DROP COLUMN {column}"))
        await connection.execute(
            text(
                "INSERT INTO users (email, email_folded, username, username_folded, created_at)"
                " VALUES ('Ada@a.example', 'ada@a.example', 'Ada', 'ada', :now)"
            ),
            {"now": datetime.now(UTC)},
        )
    users._made.clear()
    [ada] = await users.page(database, limit=9, after=0)
    assert (ada.email, ada.username) == ("Ada@a.example", "Ada")
    assert await users.credentials(database, "ada") is None
    async with users.adding(database, "b@a.example", "bob", "hash"):
        pass
    assert await users.credentials(database, "bob") is not None


async def test_credentials_are_found_by_looks(database: Database) -> None:
    async with users.adding(database, "ada@example.com", "Ada", "hash") as (_, ada):
        pass
    found = await users.credentials(database, "\uff21DA")
    assert found is not None
    assert (found.id, found.password_hash) == (ada.id, "hash")
    assert await users.with_subject(database, found.subject) == ada
    assert await users.credentials(database, "adam") is None
    for subject in ("", "0" * 32, "\0", str(ada.id)):
        assert await users.with_subject(database, subject) is None


async def test_a_hash_is_renewed_once(database: Database) -> None:
    async with users.adding(database, "ada@example.com", "ada", "first"):
        pass
    found = await users.credentials(database, "ada")
    assert found is not None
    for renewed in ("second", "third"):  # of those that knew the first
        await users.renew(database, found, renewed)
    kept = await users.credentials(database, "ada")
    assert kept is not None
    assert (kept.password_hash, kept.subject) == ("second", found.subject)


async def test_an_erased_user_is_gone(database: Database) -> None:
    ada, bob = await add(database, "a@a.example", "ada"), await add(database, "b@a.example", "bob")
    with pytest.raises(ZeroDivisionError):
        async with users.erasing(database, ada.id):
            raise ZeroDivisionError
    assert await users.page(database, limit=9, after=0) == [ada, bob]
    async with users.erasing(database, ada.id) as (_, erased):
        assert erased == ada
    assert await users.page(database, limit=9, after=0) == [bob]
    with pytest.raises(users.Unknown):
        async with users.erasing(database, ada.id):
            pass


async def test_a_page_may_be_one_users(database: Database) -> None:
    ada, bob = await add(database, "a@a.example", "ada"), await add(database, "b@a.example", "bob")
    assert await users.page(database, limit=9, after=0, only=bob.id) == [bob]
    assert await users.page(database, limit=9, after=bob.id, only=bob.id) == []
    assert await users.page(database, limit=1, after=0, only=None) == [ada]


async def test_anothers_users_are_left_alone(database: Database) -> None:
    async with database.migrating() as connection:
        await connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY, pet VARCHAR)"))
        await connection.execute(text("INSERT INTO users VALUES (1, 'cat')"))
    with pytest.raises(SchemaRefused, match="a table users that is none of ours"):
        await users.make_table(database)
    with pytest.raises(DatabaseUnavailable):
        await add(database, "ada@example.com", "ada")
    assert await database.all("SELECT * FROM users") == [(1, "cat")]


async def test_simultaneous_namesakes_add_one_user(database: Database) -> None:
    adding = (add(database, f"{number}@example.com", "ada") for number in range(10))
    results = await asyncio.gather(*adding, return_exceptions=True)
    assert sum(isinstance(result, users.User) for result in results) == 1
    assert sum(isinstance(result, users.Taken) for result in results) == 9


async def test_pages_list_users_by_rising_id(database: Database) -> None:
    added = [await add(database, f"{number}@example.com", str(number)) for number in range(5)]
    assert await users.page(database, limit=2, after=0) == added[:2]
    assert await users.page(database, limit=2, after=added[1].id) == added[2:4]
    assert await users.page(database, limit=2, after=added[-1].id) == []


async def test_several_make_tables_at_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(8)]
    await asyncio.gather(*(database.make_tables() for database in databases))
    assert [await users.page(database, limit=1, after=0) for database in databases] == [[]] * 8
    await asyncio.gather(*(database.close() for database in databases))


async def test_an_absent_server_says_why() -> None:
    database = Database("postgres://127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable, match="Connect call failed"):
        await users.page(database, limit=1, after=0)
    await database.close()


async def test_an_impossible_file_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    database = Database(f"sqlite:///{tmp_path}/file/service.db")
    with pytest.raises(DatabaseUnavailable, match="File exists"):
        await database.make_tables()
    await database.close()


async def test_an_errors_text_holds_no_values(database: Database) -> None:
    await users.make_table(database)
    query = users.users.insert().values(email="ada@example.com", password_hash="a hash of hers")
    with pytest.raises(IntegrityError) as raised:
        async with database.transaction() as connection:
            await connection.execute(query)
    assert "INSERT INTO users" in str(raised.value)
    assert "a hash of hers" not in str(raised.value)
