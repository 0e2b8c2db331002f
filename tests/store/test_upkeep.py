"""What is old goes, however much it is, the files shrink, and nobody is held up."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from afterwards import attachments, rescue, upkeep
from afterwards.limits import Limits
from afterwards.process import Process
from afterwards.store import sqlite_writer, statements
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from afterwards.upkeep import Upkeep
from tests.databases import empty_database
from tests.store.rows import row

pytestmark = pytest.mark.anyio

MANY = 6000  # more than one minute's worth once was
NUMBERS = "WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < :count)"
TASKS = f"""INSERT INTO {{tasks}} (id, name, arguments, in_thread, carrier, state, attempt,
    max_attempts, crashes, created_at, run_at, publish_at, finished_at)
    {NUMBERS} SELECT CAST(n AS VARCHAR), 'old', '', false, '', 'succeeded', 1,
    1, 0, n, n, n, n / 10 FROM g"""
ANSWERS = f"""INSERT INTO {{answers}} (key, fingerprint, created_at)
    {NUMBERS} SELECT CAST(n AS VARCHAR), '', n / 10 FROM g"""

CHANGES = f"""INSERT INTO {{changes}} (id, at, who, address, what, which)
    {NUMBERS} SELECT CAST(n AS VARCHAR), n / 10, 'operator', '', 'retry', '[]' FROM g"""


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    store = Store(database)
    yield store
    await store.close()


async def execute(database: Database, statement: str, **values: object) -> None:
    await database.change(statement, values)


async def emptied(database: Database, table: str) -> None:
    async with asyncio.timeout(30):
        while True:
            if not await database.all(f"SELECT 1 FROM {table} LIMIT 1"):
                return
            await asyncio.sleep(0.01)


DEAD = TASKS.replace("succeeded", "dead")


@pytest.mark.parametrize(
    ("pruning", "old"),
    [
        (statements.PRUNE_TASKS, TASKS),
        (statements.PRUNE_DEAD, DEAD),
        (statements.PRUNE_ANSWERS, ANSWERS),
        (statements.PRUNE_CHANGES, CHANGES),
    ],
)
async def test_pruning_leaves_nothing_old(
    database: Database, store: Store, pruning: str, old: str
) -> None:
    await execute(database, old, count=MANY)
    assert await store.prune(pruning, 40_000) == 0
    assert await store.prune(pruning, 1) == MANY


def known() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def test_the_dead_have_their_own_time(database: Database, store: Store) -> None:
    await execute(database, DEAD, count=100)
    await execute(database, TASKS.replace("CAST(n", "'b' || CAST(n"), count=100)
    chores = Upkeep(store, Limits(keep_days=1, keep_dead_days=40_000), known())
    chores.begin()
    await emptied(database, "{tasks} WHERE state = 'succeeded'")
    await chores.end()
    assert len(await database.all("SELECT state FROM {tasks}")) == 100
    later = Upkeep(store, Limits(keep_days=40_000, keep_dead_days=1), known())
    later.begin()
    await emptied(database, "{tasks}")
    await later.end()


async def test_two_processes_may_prune_at_once(database: Database, store: Store) -> None:
    await execute(database, TASKS, count=MANY)
    counts = await asyncio.gather(*(store.prune(statements.PRUNE_TASKS, 1) for _ in range(2)))
    assert sum(counts) + await store.prune(statements.PRUNE_TASKS, 1) == MANY


async def test_a_failing_pruning_stops_no_other(database: Database, store: Store) -> None:
    await execute(database, TASKS, count=MANY)
    await execute(database, "DROP TABLE {answers}")
    chores = Upkeep(store, Limits(keep_days=1), known())
    chores.begin()
    await emptied(database, "{tasks}")
    await chores.end()


async def test_upkeep_comes_round_again(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "UPKEEP_SECONDS", 0.01)
    chores = Upkeep(store, Limits(keep_days=1), known())
    chores.begin()
    every = ((TASKS, "{tasks}"), (ANSWERS, "{answers}"), (CHANGES, "{changes}"))
    for statement, table in every * 2:
        await execute(database, statement, count=10)
        await emptied(database, table)
    await chores.end()


async def test_a_long_pruning_delays_no_heartbeat(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()
    monkeypatch.setattr(rescue, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(store, "prune", lambda *_: never.wait())
    process = Process(store, Limits())
    await process.begin()
    async with asyncio.timeout(30):
        while True:
            if min((await store.beats()).values()) >= 10:
                break
            await asyncio.sleep(0.01)
    await process.drain(0.1)


# --- attachments ---


class Files:
    """What is kept for tasks, in memory."""

    def __init__(self, *ids: str) -> None:
        self.kept = {*ids}

    def ids(self) -> list[str]:
        assert threading.current_thread() is not threading.main_thread()
        return sorted(self.kept)

    def remove(self, id: str) -> None:
        self.kept.discard(id)


async def test_attachments_go_with_their_tasks(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(attachments, "MOST", 3)
    new = [row() for _ in range(10)]
    await store.enqueue(new)
    files = Files("task-gone", *(each.id for each in new))
    limits = Limits(keep_days=1)
    chores = Upkeep(store, limits, known(), files)
    chores.begin()
    await until(lambda: files.kept == {each.id for each in new})
    await execute(database, "DELETE FROM {tasks} WHERE id = :id", id=new[0].id)
    await until(lambda: files.kept == {each.id for each in new[1:]})
    await chores.end()
    files.kept.add("task-gone")
    await asyncio.sleep(0.05)
    assert "task-gone" in files.kept


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def test_without_the_database_nothing_is_removed(store: Store) -> None:
    files = Files("task-a")
    await execute(store._database, "ALTER TABLE {tasks} RENAME TO elsewhere")
    with pytest.raises(Exception, match="afterwards_tasks"):
        await attachments.sweep(store, files)
    assert files.kept == {"task-a"}


# --- SQLite's files ---


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[tuple[Database, Path]]:
    async with empty_database("sqlite", tmp_path) as url:
        database = Database(url)
        await database.make_tables()
        yield database, tmp_path / "service.db"
        await database.close()


async def test_the_log_empties_after_long_readers(
    file: tuple[Database, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, path = file
    monkeypatch.setattr(sqlite_writer, "LARGE_LOG", 1_000_000)
    log = path.with_name("service.db-wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM afterwards_tasks").fetchall()
        await execute(database, TASKS, count=20_000)
        large = log.stat().st_size
        await database.shrink()  # in vain, but nobody waits for the reader
        assert log.stat().st_size >= large > 1_000_000
        await execute(database, TASKS.replace("CAST(n", "'b' || CAST(n"), count=1)
        reader.execute("ROLLBACK")
        await database.shrink()
    assert log.stat().st_size == 0


async def test_a_small_log_is_left_alone(file: tuple[Database, Path]) -> None:
    database, path = file
    before = path.with_name("service.db-wal").stat().st_size
    await database.shrink()
    assert path.with_name("service.db-wal").stat().st_size == before > 0


async def test_a_file_that_was_pruned_shrinks(
    file: tuple[Database, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, path = file
    monkeypatch.setattr(sqlite_writer, "LARGE_LOG", 0)
    await execute(database, TASKS, count=20_000)
    monkeypatch.setattr(sqlite_writer, "FEW_PAGES", 100)
    await database.shrink()
    full = path.stat().st_size
    await Store(database).prune(statements.PRUNE_TASKS, 1)
    await database.shrink()
    await database.shrink()  # the file itself is shortened by the checkpoint
    assert path.stat().st_size < full / 2  # a quarter of what is left may stay free


async def test_some_free_pages_are_kept(file: tuple[Database, Path]) -> None:
    database, path = file
    await execute(database, TASKS, count=2000)
    await Store(database).prune(statements.PRUNE_TASKS, 1)
    await database.shrink()
    with closing(sqlite3.connect(path)) as connection:
        [free] = connection.execute("PRAGMA freelist_count").fetchone()
    assert free > 10


# --- who may read them ---


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(path: Path) -> list[int]:
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]
    return [each.stat().st_mode & 0o777 for each in files]


async def test_the_file_is_its_owners_alone(usual_umask: None, tmp_path: Path) -> None:
    path = tmp_path / "data" / "service.db"
    database = Database(f"sqlite:///{path}")
    await database.make_tables()
    await database.change("UPDATE {version} SET number = number")
    assert modes(path) == [0o600] * 3
    assert path.parent.stat().st_mode & 0o777 == 0o700
    await database.close()


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o640), (0o666, 0o660), (0o600, 0o600)])
async def test_a_file_that_is_there_loses_strangers(
    usual_umask: None, tmp_path: Path, before: int, after: int
) -> None:
    path = tmp_path / "service.db"
    with closing(sqlite3.connect(path)) as earlier:
        earlier.execute("PRAGMA journal_mode=WAL").close()
        earlier.execute("CREATE TABLE x (y)").close()
        for end in ("", "-wal", "-shm"):
            os.chmod(f"{path}{end}", before)
        database = Database(f"sqlite:///{path}")
        await database.make_tables()
        assert modes(path) == [after] * 3
        await database.close()
