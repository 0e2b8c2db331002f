"""What operators change is written down with it, or neither is."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from afterwards.store import Filter, changes
from afterwards.store.changes import Change
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from tests.store.rows import row

pytestmark = pytest.mark.anyio

CHANGE = Change("operator 12345678", "203.0.113.9", "cancel")


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    store = Store(database)
    yield store
    await store.close()


async def filled(store: Store, count: int) -> list[str]:
    rows = [row() for _ in range(count)]
    await store.enqueue(rows)
    return sorted(each.id for each in rows)


async def test_a_change_names_its_tasks(store: Store) -> None:
    ids = await filled(store, 300)
    assert await store.cancel(ids[0], CHANGE)
    assert await store.cancel_all(Filter(), CHANGE) == 299
    noted = await store.changes()
    assert {(each.who, each.address, each.what) for each in noted} == {CHANGE}
    assert json.loads(noted[-1].which) == ids[:1]
    assert max(len(json.loads(each.which)) for each in noted) == changes.MOST_IN_ROW
    assert sorted(id for each in noted for id in json.loads(each.which)) == ids


async def test_what_changes_nothing_is_not_noted(store: Store) -> None:
    [id] = await filled(store, 1)
    assert not await store.retry(id, CHANGE)
    assert not await store.delete("task-1", CHANGE)
    assert await store.retry_all(Filter(), CHANGE) == 0
    assert await store.cancel(id)  # without anybody to note
    assert await store.changes() == []


async def test_without_its_row_nothing_changes(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    [id] = await filled(store, 1)
    monkeypatch.setattr(changes, "RECORD", "INSERT INTO {changes} (id) VALUES (:id)")
    with pytest.raises(Exception, match="changes"):
        await store.cancel(id, CHANGE)
    assert (await store.get(id)).state == "queued"
    monkeypatch.undo()
    assert await store.changes() == []


async def test_other_changes_join_a_transaction(database: Database, store: Store) -> None:
    async with database.transaction() as connection:
        await store.record(CHANGE, ["user 7"], within=connection)
    with suppress(ZeroDivisionError):
        async with database.transaction() as connection:
            await store.record(CHANGE, ["user 8"], within=connection)
            raise ZeroDivisionError
    await store.record(CHANGE, ["user 9"])
    assert [json.loads(each.which) for each in await store.changes()] == [["user 9"], ["user 7"]]


async def test_changes_come_in_pages(store: Store) -> None:
    for number in range(5):
        await store.record(CHANGE, [str(number)])
    first = await store.changes(limit=3)
    rest = await store.changes(limit=3, after=first[-1].id)
    assert [json.loads(each.which) for each in [*first, *rest]] == [
        [str(n)] for n in (4, 3, 2, 1, 0)
    ]
