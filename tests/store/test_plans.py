"""The planners take the indexes that are meant, on statistics of a moment when nothing waited."""

from typing import Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from afterwards.store import engines, people, postgres_writer, statements
from afterwards.store.database import Database
from afterwards.store.given import SettledRow, WantedRow
from afterwards.store.sql import listed

pytestmark = pytest.mark.anyio

FILL = """
INSERT INTO {tasks} (id, name, arguments, in_thread, carrier, state, attempt, max_attempts, crashes,
    worker, created_at, run_at, publish_at, finished_at)
WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 20000)
SELECT :kind || CAST(n AS VARCHAR), 'n' || CAST(n % 3 AS VARCHAR), '', false, '', :state, 1, 1, 0,
    'w' || CAST(n % 9 AS VARCHAR), n, n, n, n FROM g
"""
IDS = {"ids": listed(["queued7", "queued8"])}
SETTLED = [SettledRow("running7", "w7", 1, "succeeded")]
WANTED = [WantedRow("queued7", "w")]
PRUNING = {"age_us": 0, "since": 0, "most": 100}
LANE = {"lane": False}
QUEUE = {**LANE, "crashed": 0, "named": "n1", "claimer": "w", "most": 10}
# Each statement with the indexes that it may use; `pkey` is the tables' own.
PLANS: list[tuple[str, dict[str, Any], set[str]]] = [
    (statements.SETTLE, {}, {"pkey"}),
    (statements.ROWS, IDS, {"pkey"}),
    (statements.ENDED, IDS, {"pkey"}),
    (statements.QUEUES, LANE, {"next", "pkey"}),
    (statements.CLAIM, QUEUE, {"next", "following", "pkey"}),
    (statements.CLAIM_GIVEN, {}, {"following", "pkey"}),
    (statements.WAITED, LANE, {"next", "pkey"}),
    (statements.COUNT_DUE, {**LANE, "most": 10}, {"next", "pkey"}),
    (statements.FOLLOW, {}, {"following", "pkey"}),
    (statements.PUBLISH, {"most": 10, "patience_us": 1}, {"to_publish", "pkey"}),
    (statements.HELD_BY, {"holder": "w1"}, {"running"}),
    (statements.RELEASE, {"holder": "w1"}, {"running"}),
    (statements.RESCUE, {}, {"running"}),
    (statements.CANCELLED_UNDER, {"worker": "w1"}, {"pruned"}),
    (statements.SETTLED_LATELY, {"lately_us": 1}, {"pruned"}),
    (statements.COUNT_DEAD, {"most": 10}, {"dead"}),
    (people.CANCEL, IDS, {"pkey"}),
    (people.RETRY, IDS, {"pkey"}),
    (people.DELETE, IDS, {"pkey"}),
    (statements.PRUNE_TASKS, PRUNING, {"pruned", "pkey"}),
    (statements.PRUNE_DEAD, PRUNING, {"dead", "pkey"}),
]


async def plan(database: Database, statement: str, values: dict[str, Any]) -> str:
    async with database.migrating() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
        text = explain + statement.strip()
        given = next(database.sql.for_rows(text, WANTED if "WantedRow" in text else SETTLED))
        made, values = given if "{given:" in text else (database.sql(text), values)
        rows = await connection.execute(made, values)
        return "\n".join(str(row[-1]) for row in rows)


@pytest.fixture
async def full(database: Database) -> Database:
    """Tasks of every state, all of which came when the planner had looked."""
    for state in ("succeeded", "dead"):
        await database.change(FILL, {"kind": state, "state": state})
    await database.change("ANALYZE {tasks}")
    for state in ("queued", "running"):
        await database.change(FILL, {"kind": state, "state": state})
    return database


def used(found: str) -> set[str]:
    """Tell which indexes a plan names, and "all rows" where it goes through them."""
    names = ("next", "following", "running", "to_publish", "pruned", "dead")
    marks = {f"tasks_{name}": name for name in names} | {
        "afterwards_tasks_pkey": "pkey",
        "autoindex_afterwards_tasks_1": "pkey",
        "Seq Scan on afterwards_tasks": "all rows",
    }
    lines = found.splitlines()
    scans = [each for each in lines if "SCAN afterwards_tasks" in each and "USING" not in each]
    return {name for mark, name in marks.items() if mark in found} | (
        {"all rows"} if scans else set()
    )


async def test_each_statement_takes_its_indexes(full: Database) -> None:
    for statement, values, meant in PLANS:
        found = await plan(full, statement, values)
        assert used(found) <= meant, f"{statement}\n{found}"


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("looked", ["never", "before", "after"])
@pytest.mark.parametrize("count", [1, 250])
async def test_writers_settle_by_the_key(
    database: Database, database_url: str, looked: str, count: int
) -> None:
    """Whatever the planner knows: the plan that was made for an empty table stays right."""
    await database.change("ALTER TABLE {tasks} SET (autovacuum_enabled = false)")
    engine = engines.postgres(engines.with_driver(make_url(database_url)), poolclass=NullPool)
    writer, _ = await postgres_writer.connect(engine)
    settled = [SettledRow(f"running{at}", "w7", 1, "succeeded") for at in range(1, count + 1)]
    [(text, columns)] = database.sql.together({statements.SETTLE: settled})
    await writer.execute(f"PREPARE settle AS {text}")
    arrays = [", ".join(map(str, each)).replace("None", "NULL") for each in columns]
    settle = "EXECUTE settle({})".format(", ".join(f"'{{{each}}}'" for each in arrays))
    await writer.execute(settle)
    await database.change(FILL, {"kind": "running", "state": "running"})
    if looked != "never":
        await database.change("ANALYZE {tasks}")
    if looked == "before":
        await database.change(FILL, {"kind": "later", "state": "running"})
    found = "\n".join(line for (line,) in await writer.fetch(f"EXPLAIN {settle}"))
    assert (used(found), "Join" in found) == ({"pkey"}, False), found
    await writer.close()


async def test_another_statement_reads_all_rows(full: Database) -> None:
    found = await plan(full, "SELECT id FROM {tasks} WHERE carrier = :carrier", {"carrier": "x"})
    assert used(found) == {"all rows"}
