"""The real service on a bad day: tasks that misbehave, failpoints at chosen steps.

`POST /do/{name}` attaches the task of that name, with the body as its keyword arguments. These
variables set the day: `DIARY` is the file that `keeps_a_diary` writes to; `DIE_ONCE` a step (see
`DEATHS`) at which the process kills itself, unless the file `DIED` exists; `FAIL_ONCE` a call (see
`FAILURES`) that fails once; `DEAD_SECONDS` quickens the heart.
"""

import asyncio
import functools
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Engine, event
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

import asgi_app
from afterwards import idempotency, registry, rescue
from afterwards.attempt import current_task_id
from afterwards.background import InOrder
from afterwards.registry import task
from afterwards.request_tasks import RequestTasks
from afterwards.retries import GiveUp, RetryAfter
from afterwards.store import statements
from afterwards.store.database import Database
from afterwards.store.engines import STATEMENT_SECONDS
from afterwards.store.failures import DatabaseUnavailable, OutcomeUnknown
from afterwards.store.given import PoisonRow, Rows, SettledRow
from afterwards.store.postgres_writer import Batch, PostgresWriter
from afterwards.store.sqlite_writer import SQLiteWriter
from afterwards.store.tasks import Store
from web.routing import Route

P = ParamSpec("P")
R = TypeVar("R")

DIARY = Path(os.environ.get("DIARY", os.devnull))


def die() -> None:
    """End this process as the kernel does when memory is used up: nothing in it runs on."""
    os.kill(os.getpid(), signal.SIGKILL)


def note(word: str) -> None:
    """Append a line at once and whole, also where several processes write."""
    # The monotonic clock counts from the machine's start: times of several processes compare.
    line = f"{word} {current_task_id.get()} {os.getpid()} {time.monotonic()}\n"
    diary = os.open(DIARY, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(diary, line.encode())
    os.close(diary)


def starts() -> int:
    """Count how often this task was begun."""
    return DIARY.read_text().count(f"start {current_task_id.get()}")


# --- tasks ---


@task()
async def keeps_a_diary(seconds: float = 0.0) -> int:
    note("start")
    if is_doomed("while running"):
        die()
    await asyncio.sleep(seconds)
    note("end")
    return os.getpid()


@task()
def keeps_a_diary_in_a_thread(seconds: float = 0.0) -> int:
    note("start")
    threading.Event().wait(seconds)
    note("end")
    return os.getpid()


@task(attempts=3, first_pause=0.01)
async def raises() -> None:
    note("start")
    raise ValueError("as asked")


@task(attempts=3, first_pause=0.01)
async def raises_until_the_third() -> str:
    note("start")
    if starts() < 3:
        raise ValueError("as asked")
    return "third time lucky"


@task(attempts=2, timeout=0.2, first_pause=0.01)
async def hangs() -> None:
    note("start")
    await asyncio.Event().wait()


@task(attempts=2, first_pause=0.01)
async def exits() -> None:
    sys.exit(3)


@task(attempts=2, first_pause=0.01)
def exits_in_a_thread() -> None:
    sys.exit(3)


@task()
def takes_its_process_down() -> None:
    note("start")
    if starts() == 2:
        os._exit(1)
    die()


@task()
async def returns(what: str) -> Any:
    return {
        "an object": object(),
        "nan": float("nan"),
        "bytes": b"\xff",
        "json": {"a": [1, None, "ü"]},
    }[what]


@task()
async def measures(text: str) -> int:
    return len(text)


@task(attempts=2)
async def asks_for_time(seconds: float) -> str:
    note("start")
    if starts() < 2:
        raise RetryAfter(seconds, "the other side is busy")
    return "in time"


@task(attempts=5)
async def gives_up() -> None:
    note("start")
    raise GiveUp("the address does not exist")


# --- failpoints ---


def is_doomed(step: str) -> bool:
    """Tell whether this step is the process's last, which it is once in a test."""
    if os.environ.get("DIE_ONCE") != step:
        return False
    died = Path(os.environ["DIED"])
    if died.exists():
        return False
    died.touch()
    return True


def die_in_the_commit_of(step: str, mark: str) -> None:
    """Die between a statement with `mark` in it and its COMMIT, whoever executes them."""
    marked: set[int] = set()

    def see(connection: object, statement: str) -> None:
        if mark in statement:
            marked.add(id(connection))
        if statement == "COMMIT" and id(connection) in marked and is_doomed(step):
            die()

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect_to_sqlite(*args, **kwargs)
        # It is called before each statement.
        connection.set_trace_callback(functools.partial(see, connection))
        return connection

    connect_to_sqlite = sqlite3.connect
    sqlite3.connect = connect  # type: ignore[assignment]  # it has overloads
    event.listen(
        Engine,
        "before_cursor_execute",
        lambda at, cursor, statement, *others: see(at.engine, statement),
    )
    event.listen(Engine, "commit", lambda at: see(at.engine, "COMMIT"))

    # A group commit on Postgres is one statement that commits by itself: here it is kept from that.
    write = PostgresWriter.write

    async def write_or_die(writer: PostgresWriter, batch: Batch) -> Sequence[Any]:
        if any(mark in statement for statement, _ in batch) and is_doomed(step):
            connection = await writer._connected()
            await connection.execute("BEGIN")
            for statement, values in batch:
                await connection.execute(statement, *values)
            die()
        return await write(writer, batch)

    setattr(PostgresWriter, "write", write_or_die)  # noqa: B010  # mypy forbids the assignment


def die_around(
    step: str, method: Callable[P, Awaitable[R]], *, before: bool
) -> Callable[P, Awaitable[R]]:
    """Wrap a method, so that the process dies just before or just after it."""

    @functools.wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if before and is_doomed(step):
            die()
        result = await method(*args, **kwargs)
        if not before and is_doomed(step):
            die()
        return result

    return wrapped


def fail_around(method: Callable[P, Awaitable[R]], *, before: bool) -> Callable[P, Awaitable[R]]:
    """Wrap a method, so that once the database is away before it, or before its answer."""
    error = DatabaseUnavailable if before else OutcomeUnknown
    left = [error("a failpoint cut the connection")]

    @functools.wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if before and left:
            raise left.pop()
        result = await method(*args, **kwargs)
        if left and result != []:  # a claim that found nothing is not the one
            raise left.pop()
        return result

    return wrapped


def die_settling(step: str, *, before: bool) -> Callable[..., None]:
    """Have the process die just before a settle is asked for, or just after it was recorded."""
    settle = Store.settle

    def wrapped(store: Store, row: SettledRow | PoisonRow, settled: Callable[[], None]) -> None:
        def recorded() -> None:
            if not before and is_doomed(step):
                die()
            settled()

        if before and is_doomed(step):
            die()
        settle(store, row, recorded)

    return wrapped


def fail_settling(*, before: bool) -> Callable[..., Awaitable[None]]:
    """Have the database be away once before a commit with a settle, or before its answer."""
    write = Database.write_together
    error = DatabaseUnavailable if before else OutcomeUnknown
    left = [error("a failpoint cut the connection")]

    async def wrapped(database: Database, batch: Mapping[str, Rows]) -> None:
        fails = left and statements.SETTLE in batch
        if not (before and fails):
            await write(database, batch)
        if fails:
            raise left.pop()

    return wrapped


def starve(write: Callable[P, R]) -> Callable[P, R]:
    """Wrap a method, so that once it waits for SQLite's write lock until its time is up."""
    left = [sqlite3.OperationalError("database is locked")]

    @functools.wraps(write)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if left:
            time.sleep(STATEMENT_SECONDS)
            raise left.pop()
        return write(*args, **kwargs)

    return wrapped


DEATHS: dict[str, Callable[[str], object]] = {
    "before the commit": lambda step: die_in_the_commit_of(step, "INSERT INTO afterwards_tasks"),
    "after the commit, before the answer": lambda step: wrap(
        "enqueue", die_around(step, Store.enqueue, before=False)
    ),
    "before publishing": lambda step: None,  # `fleet_app` does it
    "while running": lambda step: None,  # `keeps_a_diary` does it
    "between work and settle": lambda step: wrap("settle", die_settling(step, before=True)),
    "while settling": lambda step: die_in_the_commit_of(step, "result = given.result"),
    "after settling": lambda step: wrap("settle", die_settling(step, before=False)),
    "before an answer is kept": lambda step: setattr(
        idempotency, "remember", die_around(step, idempotency.remember, before=True)
    ),
    "before an answer is sent": lambda step: setattr(
        RequestTasks, "take_over", die_around(step, RequestTasks.take_over, before=False)
    ),
}

FAILURES: dict[str, Callable[[], object]] = {
    "the answer to an enqueue is lost": lambda: wrap(
        "enqueue", fail_around(Store.enqueue, before=False)
    ),
    "the answer to a claim is lost": lambda: wrap("claim", fail_around(Store.claim, before=False)),
    "the answer to a settle is lost": lambda: setattr(
        Database, "write_together", fail_settling(before=False)
    ),
    "a settle is refused": lambda: setattr(Database, "write_together", fail_settling(before=True)),
    "others have the write lock whenever it is free": lambda: setattr(
        SQLiteWriter, "_write", starve(SQLiteWriter._write)
    ),
    "an answer cannot be kept": lambda: setattr(
        idempotency, "remember", fail_around(idempotency.remember, before=True)
    ),
}


def wrap(name: str, method: object) -> None:
    setattr(Store, name, method)


if doom := os.environ.get("DIE_ONCE"):
    DEATHS[doom](doom)
if failure := os.environ.get("FAIL_ONCE"):
    FAILURES[failure]()
if silence := os.environ.get("DEAD_SECONDS"):
    rescue.DEAD_SECONDS, rescue.BEAT_SECONDS = float(silence), float(silence) / 5


async def do(request: Request) -> Response:
    function = registry.of_name(request.path_params["name"]).function
    return PlainTextResponse("ok", 202, background=BackgroundTask(function, **await request.json()))


async def do_in_order(request: Request) -> Response:
    function = registry.of_name(request.path_params["name"]).function
    return PlainTextResponse(
        "ok",
        background=InOrder([BackgroundTask(function, **each) for each in await request.json()]),
    )


app = asgi_app.app
app.router.routes += [
    Route("/do/{name}", do, methods=["POST"], max_body=1024 * 1024),
    Route("/do-in-order/{name}", do_in_order, methods=["POST"]),
]
