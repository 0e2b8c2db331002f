"""Secret arguments are hidden wherever a row is shown, encrypted where there is a key, and run."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from afterwards import Afterwards, registry, task
from afterwards.brokers.consumer import Consumer
from afterwards.limits import Limits
from afterwards.model import Delivery
from afterwards.store import Filter
from afterwards.store.database import Database
from afterwards.telling import told_to_operators
from afterwards.testing import TaskKit
from afterwards.tracing import NO_TRACING

pytestmark = pytest.mark.anyio

ADA = "ada@example.com"
OLD, NEW = "o" * 32, "n" * 32

greeted: list[tuple[str, str]] = []


@task(secret={"email"}, attempts=2, first_pause=0.01)
async def secrets_greet(email: str, name: str, fails: bool = False) -> None:
    greeted.append((email, name))
    if fails:
        raise ValueError(f"550 <{email.upper()}>: no such user")


@task(secret={"email"})
def secrets_in_thread(email: str) -> None:
    raise LookupError(email)


@pytest.fixture(autouse=True)
def _none_was_greeted() -> None:
    greeted.clear()


Make = Callable[..., Afterwards]


@pytest.fixture
async def make(database_url: str) -> AsyncIterator[Make]:
    """Make what accepts or runs on one database; it ends with the test."""
    made = []

    def make(**options: Any) -> Afterwards:
        made.append(Afterwards(database_url, **options))
        return made[-1]

    yield make
    for each in made:
        await each.stop(0)


async def held(afterwards: Afterwards) -> list[tuple[str, str | None]]:
    rows = await afterwards.database.all("SELECT arguments, secrets FROM {tasks} ORDER BY id")
    return [(row.arguments, row.secrets) for row in rows]


async def ended(afterwards: Afterwards, id: str) -> str:
    async with asyncio.timeout(60):
        while True:
            row = await afterwards.store.get(id)
            if row.finished_at is not None:
                return str(row.state)
            await asyncio.sleep(0.01)


SHOWN = '{"email":"***","name":"Ada","fails":false}'


async def test_without_a_key_secrets_are_hidden(make: Make) -> None:
    accepting = make(run_tasks=False)
    id = await accepting.enqueue(secrets_greet, ADA, "Ada")
    assert await held(accepting) == [(SHOWN, f'{{"email":"{ADA}"}}')]
    for row in (await accepting.store.get(id), *await accepting.store.page(Filter())):
        assert told_to_operators(row)["arguments"]["email"] == "***"
        assert ADA not in str(told_to_operators(row))


async def test_with_a_key_secrets_are_encrypted(make: Make) -> None:
    accepting = make(run_tasks=False, secret_key=NEW)
    await accepting.enqueue(secrets_greet, ADA, "Ada")
    async with accepting.database.transaction() as connection:
        await accepting.enqueue(secrets_greet, ADA, "Ada", within=connection)
    for shown, secrets in await held(accepting):
        assert shown == SHOWN
        assert secrets is not None
        assert secrets.startswith("gAAAA")
    assert len({secrets for _, secrets in await held(accepting)}) == 2  # equal ones look different


@pytest.mark.parametrize("keys", [None, OLD, [NEW, OLD]])
async def test_another_process_runs_them(make: Make, keys: Any) -> None:
    accepting = make(run_tasks=False, secret_key=OLD if keys else None)
    id = await accepting.enqueue(secrets_greet, ADA, "Ada", fails=True)
    running = make(secret_key=keys)
    await running.start()
    assert await ended(running, id) == "dead"
    assert greeted == [(ADA, "Ada")] * 2


async def test_the_same_process_runs_them(make: Make) -> None:
    running = make(secret_key=NEW)
    await running.start()
    id = await running.enqueue(secrets_greet, ADA, "Ada")
    assert await ended(running, id) == "succeeded"
    assert greeted == [(ADA, "Ada")]


@pytest.mark.parametrize(
    ("key", "why"), [(None, "there is no secret_key here"), (NEW, "the secret_key here is another")]
)
async def test_rows_outlive_their_key(make: Make, key: str | None, why: str) -> None:
    accepting = make(run_tasks=False, secret_key=OLD)
    id = await accepting.enqueue(secrets_greet, ADA, "Ada")
    keyless = make(secret_key=key)
    await keyless.start()
    assert await ended(keyless, id) == "dead"
    row = await keyless.store.get(id)
    assert row.error_kind == "SecretsUnreadable"
    assert row.error_message == (
        f"its secret arguments are encrypted, and {why}: bring the key back, then retry it"
    )
    await keyless.stop(0)
    running = make(secret_key=[NEW, OLD])
    await running.start()
    await running.store.retry(id)
    running.process.wake()
    assert await ended(running, id) == "succeeded"
    assert greeted == [(ADA, "Ada")]


async def test_celerys_workers_run_them(make: Make, database_url: str) -> None:
    accepting = make(run_tasks=False, secret_key=OLD)
    id = await accepting.enqueue(secrets_greet, ADA, "Ada")
    consumer = Consumer(
        Database(database_url, seal=accepting.seal), Limits(), NO_TRACING, family="celery-"
    )
    await consumer.begin()
    assert await consumer.run(id, "secrets_greet", Delivery("")) == "succeeded"
    await consumer.end()
    assert greeted == [(ADA, "Ada")]


async def test_rows_of_before_still_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    accepting = make(run_tasks=False)
    entry = registry.of_name("secrets_greet")
    for table in ("_by_name", "_by_function"):
        monkeypatch.setattr(registry, table, {**getattr(registry, table)})
    task()(entry.function)  # as before the argument was a secret
    open_id = await accepting.enqueue(entry.function, ADA, "open")
    registry._by_name[entry.name] = registry._by_function[entry.function] = entry
    secret_id = await accepting.enqueue(entry.function, ADA, "secret")
    running = make()
    await running.start()
    for id in (open_id, secret_id):
        assert await ended(running, id) == "succeeded"
    assert sorted(greeted) == [(ADA, "open"), (ADA, "secret")]


@pytest.mark.parametrize("crashes", [0, 3])
@pytest.mark.parametrize("function", [secrets_greet, secrets_in_thread])
async def test_neither_log_nor_row_tells_them(
    make: Make, caplog: pytest.LogCaptureFixture, function: Any, crashes: int
) -> None:
    caplog.set_level(logging.DEBUG)
    more: Any = {"name": "Ada", "fails": True} if function is secrets_greet else {}
    accepting = make(run_tasks=False, secret_key=NEW)
    id = await accepting.enqueue(function, ADA, **more)
    # So it runs in a process of its own.
    crash = "UPDATE {tasks} SET crashes = :crashes, max_attempts = 1"
    await accepting.database.change(crash, {"crashes": crashes})
    running = make(secret_key=NEW)
    await running.start()
    assert await ended(running, id) == "dead"
    assert "***" in (await running.store.get(id)).error_message
    told = caplog.text + str(tuple(await running.store.get(id)))
    assert "Traceback" in caplog.text
    assert "***" in caplog.text
    assert "ada@" not in told.lower()


async def test_the_kit_hides_them_too(caplog: pytest.LogCaptureFixture) -> None:
    async with TaskKit() as kit:
        id = await kit.enqueue(secrets_greet, ADA, "Ada", fails=True)
        attempts = await kit.drain()
        await kit.advance(60)
        attempts += await kit.drain()
        assert [str(each.error) for each in attempts] == ["550 <***>: no such user"] * 2
        assert isinstance(attempts[0].error, ValueError)
        assert "ada@" not in (await kit.row(id)).arguments + caplog.text.lower()
    assert greeted == [(ADA, "Ada")] * 2


@pytest.mark.parametrize("key", ["short", "", ["x" * 32, ""], [7]])
def test_a_wrong_key_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="secret_key: takes texts of 32 characters or more"):
        Afterwards(secret_key=key)


def test_a_key_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afterwards.sealing.find_spec", lambda name: None)
    Afterwards()
    with pytest.raises(ValueError, match=r"takes the package too: pip install 'afterwards\[encr"):
        Afterwards(secret_key=NEW)
