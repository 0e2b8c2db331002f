"""The store's verbs, on both databases: no task is claimed twice, nothing late counts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from afterwards.model import State, new_task_id
from afterwards.retries import Settlement
from afterwards.store import statements
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.given import PoisonRow, Rows
from afterwards.store.tasks import Store
from afterwards.turns import Limit
from tests.store.rows import recorded, row, settled

pytestmark = pytest.mark.anyio

SUCCEEDED = Settlement(State.SUCCEEDED)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    store = Store(database)
    await store.register("a")
    await store.register("b")
    yield store
    await store.close()


async def enqueued(store: Store, count: int = 1, **changed: Any) -> list[str]:
    rows = [row(**changed) for _ in range(count)]
    await store.enqueue(rows)
    return [each.id for each in rows]


async def claimed(
    store: Store,
    worker: str = "a",
    most: int = 100,
    *,
    in_thread: bool = False,
    suspects: int = 100,
    alone: int = 100,
) -> list[str]:
    free = {Limit.SLOTS: most, Limit.SUSPECTS: suspects, Limit.ALONE: alone}
    return [each.id for each in await store.claim(worker, in_thread=in_thread, free=free)]


async def state(store: Store, id: str) -> tuple[str, int, int]:
    found = await store.get(id)
    assert found is not None
    return found.state, found.attempt, found.crashes


async def test_claims_are_bounded_longest_due_first(store: Store) -> None:
    ids = [(await enqueued(store))[0] for _ in range(3)]
    assert sorted(await claimed(store, most=2)) == ids[:2]
    assert await claimed(store) == ids[2:]
    assert await claimed(store) == []


async def test_a_claim_keeps_to_its_lane(store: Store) -> None:
    [plain] = await enqueued(store, in_thread=True)
    assert await claimed(store) == []
    assert await claimed(store, in_thread=True) == [plain]


async def test_a_later_task_is_claimed_later(store: Store) -> None:
    await enqueued(store, delay_us=3_600_000_000)
    [due] = await enqueued(store)
    assert await claimed(store) == [due]


async def test_simultaneous_claims_share_no_task(store: Store, database: Database) -> None:
    ids = await enqueued(store, 200)
    others = [Store(database) for _ in range(4)]
    claims = await asyncio.gather(
        *(claimed(each, f"w{number}", 20) for number, each in enumerate(others * 5))
    )
    taken = [id for claim in claims for id in claim]
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(ids)


async def test_a_settled_task_says_its_end(store: Store) -> None:
    [id] = await enqueued(store)
    await claimed(store)
    await settled(store, id, "a", 1, "dead", error_kind="ValueError", error_message="no")
    found = await store.get(id)
    assert found is not None
    assert (found.state, found.attempt, found.error_kind, found.error_message) == (
        "dead",
        1,
        "ValueError",
        "no",
    )
    assert found.finished_at >= found.started_at >= found.created_at


@pytest.mark.parametrize(("worker", "attempt"), [("b", 1), ("a", 2)])
async def test_outdated_or_foreign_settles_change_nothing(
    store: Store, worker: str, attempt: int
) -> None:
    [id] = await enqueued(store)
    await claimed(store)
    await settled(store, id, worker, attempt)
    assert await state(store, id) == ("running", 1, 0)


async def test_a_settle_never_overrules_a_cancel(store: Store) -> None:
    [id] = await enqueued(store)
    await claimed(store)
    assert await store.cancel(id)
    assert await store.cancelled_under("a") == [id]
    await settled(store, id, "a", 1)
    assert (await state(store, id))[0] == "cancelled"


async def test_retries_pause_and_count_attempts(store: Store) -> None:
    first, second = await enqueued(store, 2)
    await claimed(store)
    await settled(store, first, "a", 1, "retrying", delay_us=0)
    await settled(store, second, "a", 1, "retrying", delay_us=3600000000)
    assert await claimed(store) == [first]
    assert await state(store, first) == ("running", 2, 0)


async def test_a_rescue_frees_only_forgotten_work(
    store: Store,
) -> None:
    [mine, other] = [(await enqueued(store))[0] for _ in range(2)]
    assert await claimed(store, "a", 1) == [mine]
    assert await claimed(store, "b", 1) == [other]
    await store.forget(["a"])
    assert [each.id for each in await store.rescue()] == [mine]
    assert await state(store, mine) == ("queued", 0, 1)
    assert await state(store, other) == ("running", 1, 0)
    assert await store.rescue() == []


async def crashed(store: Store, id: str, times: int) -> None:
    for number in range(times):
        worker = f"crashes {number}"
        await store.register(worker)
        assert id in await claimed(store, worker)
        await store.forget([worker])
        await store.rescue()


async def test_ten_crashes_make_no_task_dead(store: Store) -> None:
    [id] = await enqueued(store)
    await crashed(store, id, 10)
    assert await state(store, id) == ("queued", 0, 10)
    assert await claimed(store) == [id]


@pytest.mark.parametrize("worker", ["a", "b"])
async def test_poison_dies_and_counts_no_attempt(store: Store, worker: str) -> None:
    [id] = await enqueued(store)
    await crashed(store, id, 2)
    await claimed(store, "a")
    await recorded(store, PoisonRow(id, worker, 1, 3, "Poison", "why"))
    found = await store.get(id)
    assert found is not None
    if worker == "b":  # whose it is not
        assert await state(store, id) == ("running", 1, 2)
        return
    assert (*await state(store, id), found.error_kind, found.error_message) == (
        "dead",
        0,
        3,
        "Poison",
        "why",
    )
    assert found.finished_at >= found.started_at


async def test_retried_poison_runs_alone_again(store: Store) -> None:
    [id] = await enqueued(store)
    await crashed(store, id, 2)
    await claimed(store, "a")
    await recorded(store, PoisonRow(id, "a", 1, 3, "Poison", "why"))
    assert await store.retry(id)
    assert await state(store, id) == ("queued", 0, 2)
    assert await claimed(store, alone=0) == []
    assert await claimed(store, most=0, suspects=0, alone=1) == [id]


async def test_suspects_are_claimed_as_room_allows(store: Store) -> None:
    once = await enqueued(store, 5)
    await claimed(store, "dies")
    await store.rescue()
    fresh = await enqueued(store, 5)
    assert len(taken := await claimed(store, suspects=2)) == 7
    assert set(fresh) < set(taken)
    assert await claimed(store, suspects=0) == []
    assert set(await claimed(store, most=2)) < set(once)
    assert len(await claimed(store)) == 1


async def test_what_crashed_twice_runs_alone(store: Store) -> None:
    ids = await enqueued(store, 3)
    for number in range(2):
        assert len(await claimed(store, f"dies {number}")) == 3
        await store.rescue()
    assert await claimed(store, alone=0) == []
    assert len(await claimed(store, most=0, suspects=0, alone=1)) == 1
    assert len(await claimed(store, most=0, suspects=0, alone=2)) == 2
    assert {(await state(store, id)) for id in ids} == {("running", 1, 2)}


async def test_names_share_slots_despite_long_queues(store: Store) -> None:
    many = await enqueued(store, 500, name="many")
    few = await enqueued(store, 3, name="few")
    taken = await claimed(store, most=10)
    assert len(taken) == 10
    assert set(few) < set(taken)
    assert len(set(taken) & set(many)) == 7  # what the few leave is not left free


async def test_names_take_turns_for_one_slot(store: Store) -> None:
    by_name = {name: await enqueued(store, 20, name=name) for name in ("a", "b", "c")}
    found = {id: name for name, ids in by_name.items() for id in ids}
    names = [found[(await claimed(store, most=1))[0]] for _ in range(9)]
    assert [{*names[start : start + 3]} for start in (0, 3, 6)] == [{"a", "b", "c"}] * 3


async def test_one_name_alone_gets_every_slot(store: Store) -> None:
    ids = await enqueued(store, 50, name="only")
    await enqueued(store, 50, name="later", delay_us=3_600_000_000)
    assert sorted(await claimed(store, most=40)) == ids[:40]


@pytest.mark.parametrize("end", ["succeeded", "dead", "cancelled"])
async def test_a_follower_waits_for_the_end(store: Store, end: str) -> None:
    [first] = await enqueued(store)
    [second] = await enqueued(store, follows=first)
    [third] = await enqueued(store, follows=second)
    assert await claimed(store) == [first]
    await settled(store, first, "a", 1, "retrying")
    assert await claimed(store) == [first]
    if end == "cancelled":
        await store.cancel(first)
    else:
        await settled(store, first, "a", 2, end)
    assert await claimed(store) == [second]
    await store.release("a")
    assert await due_to_publish(store) == [second]
    assert (await state(store, third))[0] == "queued"


async def test_a_follower_is_not_counted_due(store: Store) -> None:
    [first] = await enqueued(store)
    await enqueued(store, follows=first)
    assert await store.count_due(100) == 1


async def test_released_work_is_due_and_uncounted(store: Store) -> None:
    [id] = await enqueued(store)
    await claimed(store)
    assert await store.release("a") == 1
    assert await state(store, id) == ("queued", 0, 0)
    assert await claimed(store, "b") == [id]
    assert await state(store, id) == ("running", 1, 0)


async def test_a_buried_worker_is_told_so(store: Store) -> None:
    assert await store.beat("a")
    assert await store.beats() == {"a": 1, "b": 0}
    await store.forget(["a"])
    assert not await store.beat("a")


async def test_only_dead_and_cancelled_are_retried(store: Store) -> None:
    [id] = await enqueued(store)
    assert not await store.retry(id)
    await store.cancel(id)
    assert await store.retry(id)
    assert not await store.cancel(new_task_id())
    assert await claimed(store) == [id]


async def test_pruning_takes_settled_and_leaves_dead(store: Store) -> None:
    done, dead, waiting = [(await enqueued(store))[0] for _ in range(3)]
    await claimed(store, most=2)
    await settled(store, done, "a", 1)
    await settled(store, dead, "a", 1, "dead")
    assert await store.prune(statements.PRUNE_TASKS, 1) == 0
    assert await store.prune(statements.PRUNE_TASKS, 0) == 1
    assert await store.get(done) is None
    assert (await state(store, dead))[0] == "dead"
    assert (await state(store, waiting))[0] == "queued"


async def test_a_bounded_count_omits_later_tasks(
    store: Store,
) -> None:
    await enqueued(store, 5)
    await enqueued(store, 5, delay_us=3_600_000_000)
    assert await store.count_due(100) == 5
    assert await store.count_due(3) == 3
    assert await store.oldest_waiting() >= 0


async def test_simultaneous_enqueues_are_all_there(store: Store) -> None:
    ids = [
        id
        for batch in await asyncio.gather(*(enqueued(store, 3) for _ in range(100)))
        for id in batch
    ]
    assert len(await claimed(store, most=1000)) == len(set(ids)) == 300


async def test_a_bad_row_fails_one_commit(store: Store) -> None:
    [id] = await enqueued(store)
    with pytest.raises(Exception, match=r"(?i)unique|constraint"):
        await store.enqueue([row(id=id)])
    assert len(await enqueued(store)) == 1


# --- publishing ---


async def due_to_publish(store: Store, most: int = 100) -> list[str]:
    return [each.id for each in await store.due_to_publish(most)]


async def test_an_id_is_claimed_only_once(store: Store) -> None:
    [id, other] = await enqueued(store, 2)
    row = await store.claim_one("a", id)
    assert row is not None
    assert (row.id, row.state, row.worker, row.attempt) == (id, "running", "a", 1)
    assert await store.claim_one("b", id) is None
    assert (await state(store, other))[0] == "queued"


async def test_only_due_ids_can_be_claimed(store: Store) -> None:
    [later] = await enqueued(store, delay_us=3_600_000_000)
    [settled] = await enqueued(store)
    await store.cancel(settled)
    assert [await store.claim_one("a", id) for id in (later, settled, "task-of-nobody")] == [
        None
    ] * 3


async def test_one_of_many_claims_one_task(store: Store) -> None:
    [id] = await enqueued(store)
    won = [
        row for row in await asyncio.gather(*(store.claim_one("a", id) for _ in range(10))) if row
    ]
    assert len(won) == 1


async def test_simultaneous_claims_share_a_statement(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned, statements_sent = database.returned, 0

    async def counted(statement: str, rows: Rows) -> Sequence[Any]:
        nonlocal statements_sent
        statements_sent += 1
        return await returned(statement, rows)

    monkeypatch.setattr(database, "returned", counted)
    store = Store(database)
    ids = await enqueued(store, 50)
    rows = await asyncio.gather(*(store.claim_one("a", id) for id in ids))
    assert [row.id for row in rows] == ids
    assert statements_sent < 10


async def test_each_worker_claims_for_itself(store: Store) -> None:
    ids = await enqueued(store, 4)
    workers = ["a", "b", "b", "a"]
    claims = (store.claim_one(worker, id) for worker, id in zip(workers, ids, strict=True))
    assert [row.worker for row in await asyncio.gather(*claims)] == workers


async def test_a_failed_claim_hinders_no_other(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    [id] = await enqueued(store)

    async def away(statement: str, rows: Rows) -> Sequence[Any]:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(database, "returned", away)
    unlucky = Store(database)
    with pytest.raises(DatabaseUnavailable):
        await unlucky.claim_one("a", id)
    assert (await store.claim_one("a", id)).id == id


async def test_workers_told_the_same_share_it(store: Store, database_url: str) -> None:
    another = Database(database_url)
    others = Store(another)
    ids = await enqueued(store, 100)
    claims = [
        each.claim_one(worker, id)
        for worker, each, order in (("a", store, ids), ("b", others, ids[::-1]))
        for id in order
    ]
    assert len([row for row in await asyncio.gather(*claims) if row]) == len(ids)
    await another.close()


async def test_new_tasks_are_published_once(store: Store) -> None:
    [id] = await enqueued(store, carrier="a trace")
    [row] = await store.due_to_publish(100)
    assert (row.id, row.name, row.carrier) == (id, "nothing", "a trace")
    assert await due_to_publish(store) == []
    await store.not_published([id])
    assert await due_to_publish(store) == [id]
    await claimed(store)
    await store.not_published([id])
    assert await due_to_publish(store) == []


async def test_self_published_tasks_are_not_due(store: Store) -> None:
    await enqueued(store, publish_after_us=30_000_000)
    assert await due_to_publish(store) == []
    assert len(await claimed(store)) == 1  # which a worker of this process does not mind


async def test_delayed_tasks_are_published_when_due(store: Store) -> None:
    await enqueued(store, delay_us=3_600_000_000)
    assert await due_to_publish(store) == []


async def test_older_backlogs_are_published_more_rarely(store: Store, database: Database) -> None:
    young, old = await enqueued(store, 2)
    hour = 3_600_000_000
    await database.change(
        "UPDATE {tasks} SET run_at = run_at - :hour WHERE id = :id", {"hour": hour, "id": old}
    )
    assert set(await due_to_publish(store)) == {young, old}
    now = await store.now()
    waits = {id: found.publish_at - now for id in (young, old) if (found := await store.get(id))}
    assert 20_000_000 < waits[young] <= 30_000_000 + hour / 60
    assert 2 * hour - hour / 60 < waits[old] < 2 * hour + hour / 60


@pytest.mark.parametrize(
    "how", ["retried", "released", "rescued", "given back", "retried by a person"]
)
async def test_returned_tasks_are_due_for_publishing(store: Store, how: str) -> None:
    [id] = await enqueued(store, publish_after_us=3_600_000_000)
    await claimed(store)
    match how:
        case "retried":
            await settled(store, id, "a", 1, "retrying")
        case "released":
            await store.release("a")
        case "rescued":
            await store.forget(["a"])
            await store.rescue()
        case "given back":
            await store.give_back("a", [id])
        case _:
            await store.cancel(id)
            await store.retry(id)
    assert await due_to_publish(store) == [id]


async def test_two_who_publish_take_different_tasks(store: Store) -> None:
    ids = await enqueued(store, 40)
    batches = await asyncio.gather(*(due_to_publish(store, 10) for _ in range(4)))
    taken = [id for batch in batches for id in batch]
    assert len(set(taken)) == len(taken)
    while more := await due_to_publish(store, 10):
        taken += more
    assert sorted(taken) == sorted(ids)


async def test_a_release_covers_one_family(store: Store) -> None:
    await store.register("family-1")
    await store.register("family-2")
    ids = await enqueued(store, 3)
    for worker, id in zip(("family-1", "family-2", "b"), ids, strict=True):
        await store.claim_one(worker, id)
    await store.release_family("family-")
    assert [await state(store, id) for id in ids] == [
        ("queued", 0, 0),
        ("queued", 0, 0),
        ("running", 1, 0),
    ]
    assert set(await store.beats()) == {"a", "b"}
