"""What a person asks of many tasks at once, and does to all that they mean."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from afterwards.store import Filter
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from tests.store.rows import row

pytestmark = pytest.mark.anyio

STATES = ("queued", "running", "retrying", "succeeded", "dead", "cancelled")
OPEN, SETTLED = set(STATES[:3]), set(STATES[3:])
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    store = Store(database)
    yield store
    await store.close()


async def filled(store: Store, database: Database, copies: int = 1) -> None:
    """Enqueue tasks of each state, under two names, with an error if they have failed."""
    await store.enqueue([row(id=f"{s}-{n}") for s in STATES for n in range(2 * copies)])
    await database.change("UPDATE {tasks} SET state = substr(id, 1, {position}(id, '-') - 1)")
    await database.change("UPDATE {tasks} SET name = 'odd' WHERE id LIKE '%1'")
    await database.change("UPDATE {tasks} SET finished_at = 1 WHERE state {may:delete}")
    await database.change(
        "UPDATE {tasks} SET error_kind = 'ValueError', error_message = 'no 100% at _x_'"
        " WHERE state IN ('dead', 'retrying')"
    )


async def found(store: Store, filter: Filter) -> set[str]:
    return {each.id for each in await store.page(filter, limit=1000)}


async def states(store: Store) -> dict[str, str]:
    return {each.id: each.state for each in await store.page(Filter(), limit=1000)}


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        (Filter(), {f"{state}-{number}" for state in STATES for number in range(2)}),
        (Filter(state="dead"), {"dead-0", "dead-1"}),
        (Filter(name="odd", state="queued"), {"queued-1"}),
        (Filter(name="od"), set()),
        (Filter(name="odd\0"), set()),
        (Filter(error="Value", name="odd"), {"dead-1", "retrying-1"}),
        (Filter(error="100%", state="dead"), {"dead-0", "dead-1"}),
        (Filter(error="_x_", state="dead"), {"dead-0", "dead-1"}),
        (Filter(error="1%0"), set()),
        (Filter(error="' OR 1 = 1 --"), set()),
        (Filter(before=MOMENT), set()),
    ],
)
async def test_a_filter_means_what_it_says(
    store: Store, database: Database, filter: Filter, ids: set[str]
) -> None:
    await filled(store, database)
    assert await found(store, filter) == ids


async def test_before_is_a_tasks_creation(store: Store, database: Database) -> None:
    await store.enqueue([row(id="task-1"), row(id="task-2")])
    at = int(MOMENT.timestamp() * 1e6)
    await database.change("UPDATE {tasks} SET created_at = :at WHERE id = 'task-1'", {"at": at})
    assert await found(store, Filter(before=MOMENT)) == set()
    zone = (MOMENT + timedelta(microseconds=1)).astimezone()
    assert await found(store, Filter(before=zone)) == {"task-1"}


def test_a_moment_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match=r"before: .* takes a time zone"):
        Filter(before=datetime(2026, 1, 1))


async def test_pages_go_on_after_the_last(store: Store, database: Database) -> None:
    await filled(store, database)
    pages: list[Any] = []
    while page := await store.page(Filter(), limit=5, after=pages[-1].id if pages else None):
        pages += page
    assert [each.id for each in pages] == sorted(await states(store), reverse=True)


async def test_cancelling_all_spares_the_settled(store: Store, database: Database) -> None:
    await filled(store, database)
    assert await store.cancel_all(Filter()) == 6
    after = await states(store)
    assert {id for id, state in after.items() if state == "cancelled"} == {
        id for id in after if id.partition("-")[0] in OPEN | {"cancelled"}
    }


async def test_retrying_all_spares_what_succeeded(store: Store, database: Database) -> None:
    await filled(store, database)
    assert await store.retry_all(Filter()) == 4
    assert await store.retry_all(Filter()) == 0
    after = await states(store)
    assert {after[id] for id in ("dead-0", "dead-1", "cancelled-0")} == {"queued"}
    assert {after[id] for id in ("running-0", "succeeded-0")} == {"running", "succeeded"}


async def test_deleting_all_spares_the_open(store: Store, database: Database) -> None:
    await filled(store, database)
    assert await store.delete_all(Filter()) == 6
    assert {id.partition("-")[0] for id in await states(store)} == OPEN


async def test_only_what_is_meant_is_changed(store: Store, database: Database) -> None:
    await filled(store, database)
    assert await store.delete_all(Filter(state="dead", name="odd", error="100%")) == 1
    assert len(await states(store)) == 11
    assert await store.cancel_all(Filter(state="dead")) == 0
    assert await store.retry_all(Filter(name="nobody's")) == 0


async def test_thousands_are_changed_in_steps(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    write = database.write_timed

    async def noted(statement: str, values: Any) -> Any:
        rows, seconds = await write(statement, values)
        sizes.append(len(rows))
        return rows, seconds

    monkeypatch.setattr(database, "write_timed", noted)
    await store.enqueue([row() for _ in range(3000)])
    assert await store.cancel_all(Filter()) == sum(sizes) == 3000
    assert max(sizes) < 3000


async def test_two_who_retry_share_the_work(store: Store, database: Database) -> None:
    await filled(store, database, copies=100)
    counts = await asyncio.gather(*(store.retry_all(Filter()) for _ in range(2)))
    assert sum(counts) == 400


async def test_nothing_in_an_empty_table(store: Store) -> None:
    for verb in (store.cancel_all, store.retry_all, store.delete_all):
        assert await verb(Filter()) == 0
