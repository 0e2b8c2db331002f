"""A person is erased from tasks and stored answers, and nobody else is."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from afterwards import Afterwards, task
from afterwards.sealing import Seal
from afterwards.store import answers, erasing
from afterwards.store.database import Database
from afterwards.store.failures import WrongConnection
from afterwards.store.tasks import Store
from tests.databases import empty_database
from tests.store.rows import row, settled

pytestmark = pytest.mark.anyio

ADA = "ada@example.com"


@task()
async def erasing_greet(email: str) -> None: ...


@pytest.fixture
async def afterwards(database_url: str) -> AsyncIterator[Afterwards]:
    afterwards = Afterwards(database_url, run_tasks=False)
    await afterwards.enqueue(erasing_greet, "grace@example.com")
    yield afterwards
    await afterwards.stop()


async def ids(afterwards: Afterwards) -> set[str]:
    return {row.id for row in await afterwards.database.all("SELECT id FROM {tasks}")}


async def add(store: Store, state: str = "queued", **changed: Any) -> str:
    """Add a task in this state, under the claim of a worker where one has had it."""
    new = row(**changed, worker=None if state == "queued" else "w")
    await store.enqueue([new])
    if state not in ("queued", "running", "cancelled"):
        await settled(store, new.id, "w", state=state)
    if state == "cancelled":
        await store.cancel(new.id)
    return new.id


@pytest.mark.parametrize("state", ["queued", "retrying", "succeeded", "dead", "cancelled"])
async def test_a_task_is_erased(afterwards: Afterwards, state: str) -> None:
    others = await ids(afterwards)
    await add(afterwards.store, state, arguments=json.dumps({"email": ADA.upper()}))
    assert await afterwards.erase(ADA) == 1
    assert await ids(afterwards) == others
    assert await afterwards.erase(ADA) == 0


async def test_what_runs_is_emptied_and_cancelled(afterwards: Afterwards) -> None:
    id = await add(afterwards.store, "running", arguments=f'{{"email":"{ADA}"}}', carrier="c")
    assert await afterwards.erase(ADA) == 1
    assert await afterwards.store.cancelled_under("w") == [id]
    left = await afterwards.store.get(id)
    assert (left.state, left.arguments, left.secrets, left.carrier) == ("cancelled", "{}", None, "")
    await settled(afterwards.store, id, "w", result=json.dumps(ADA))  # too late
    assert (await afterwards.store.get(id)).result is None


@pytest.mark.parametrize(
    "end",
    [
        {"result": json.dumps({"to": f"Zoë\n{ADA}"})},
        {"state": "dead", "error_kind": "MailRefused", "error_message": f"550 <{ADA}>: unknown"},
    ],
)
async def test_results_and_errors_are_looked_at(
    afterwards: Afterwards, end: dict[str, Any]
) -> None:
    meant = await add(afterwards.store, "running")
    await settled(afterwards.store, meant, "w", **end)
    other = await add(afterwards.store, "running")
    await settled(
        afterwards.store,
        other,
        "w",
        **{key: text.replace("ada", "adam") for key, text in end.items()},
    )
    assert await afterwards.erase(ADA) == 1
    assert meant not in await ids(afterwards)
    assert other in await ids(afterwards)


@pytest.mark.parametrize("wild", ["a_a@example.com", "a%@example.com", "___a", "ad\\a@example.com"])
async def test_no_character_is_wild(afterwards: Afterwards, wild: str) -> None:
    await add(afterwards.store, arguments=f'{{"email":"{ADA}"}}')
    before = await ids(afterwards)
    assert await afterwards.erase(wild) == 0
    assert await ids(afterwards) == before


@pytest.mark.parametrize("name", ["ЖАННА", "zoë", 'O"Brien\\', "100%"])
async def test_any_writing_is_erased(afterwards: Afterwards, name: str) -> None:
    for dump in (json.dumps(name), json.dumps(name, ensure_ascii=False)):
        await add(afterwards.store, arguments=f'{{"name":{dump}}}')
    assert await afterwards.erase(name.lower()) == 2


async def test_all_parts_are_looked_at(
    afterwards: Afterwards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "MOST", 3)
    for number in range(10):
        await add(afterwards.store, arguments=f'{{"email":"{ADA if number % 2 else number}"}}')
    assert await afterwards.erase(ADA) == 5
    assert len(await ids(afterwards)) == 6


async def test_it_is_the_callers_transaction(afterwards: Afterwards) -> None:
    await add(afterwards.store, arguments=f'{{"email":"{ADA}"}}')
    before = await ids(afterwards)
    async with afterwards.database.transaction() as connection:
        assert await afterwards.erase(ADA, within=connection) == 1
        await connection.rollback()
    assert await ids(afterwards) == before
    async with afterwards.database.transaction() as connection:
        await afterwards.erase(ADA, within=connection)
    assert await ids(afterwards) < before


async def test_another_database_is_refused(afterwards: Afterwards, tmp_path: Any) -> None:
    async with empty_database("sqlite", tmp_path / "..") as url:
        other = Database(url.replace("service.db", f"{tmp_path.name}.db"))
        async with other.transaction() as connection:
            await connection.execute(text("SELECT 1"))
            with pytest.raises(WrongConnection, match="takes a connection"):
                await afterwards.erase(ADA, within=connection)
        await other.close()


# --- secrets ---


async def test_encrypted_secrets_are_read(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ["1" * 32, "2" * 32]
    afterwards = Afterwards(database_url, run_tasks=False, secret_key=keys[0])
    await afterwards.enqueue(erasing_greet, "grace@example.com")
    for key, email in [(keys[0], ADA), (keys[1], ADA), (keys[0], "grace@example.com")]:
        secrets = Seal(key).close(json.dumps({"email": email}))
        await add(afterwards.store, arguments='{"email":"***"}', secrets=secrets)
    assert await afterwards.erase(ADA) == 1
    assert "1 tasks' secret arguments are encrypted with a key that is not here" in caplog.text
    await afterwards.stop()
    rotated = Afterwards(database_url, run_tasks=False, secret_key=keys)
    assert await rotated.erase(ADA) == 1
    assert await rotated.erase(ADA) == 0
    await rotated.stop()


# --- answers ---


async def keep(database: Database, key: str, body: bytes, headers: str = "[]") -> None:
    async with database.transaction() as connection:
        values = {"key": key, "fingerprint": "f", "headers": "[]"}
        assert await answers.reserve(database, connection, values)
        kept = {"key": key, "status": 201, "headers": headers, "body": body}
        await answers.keep(database, connection, kept)


async def test_stored_answers_are_erased(
    afterwards: Afterwards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "MOST", 2)
    database = afterwards.database
    await keep(database, "in the body", json.dumps({"email": ADA, "name": "Zoë"}).encode())
    await keep(database, "in a header", b"", json.dumps([["location", "/users/Ada%40example.com"]]))
    await keep(database, "as bytes", f"Žižka\xff {ADA}".encode("latin-1", "replace"))
    await keep(database, "another's", json.dumps({"email": f"x{ADA}"}).encode())
    await keep(database, "none", b"")
    assert await afterwards.erase(ADA) == 0  # it counts tasks
    left = await database.all("SELECT key FROM {answers}")
    assert {row.key for row in left} == {"another's", "none"}
