"""How fast one process works off what waits, and what a million waiting rows cost it."""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import apps, goals, load, servers
from benchmarks.clients import resident_kib
from tests import serving

SMALL, ON_POSTGRES = 5_000, 20_000
APP = "benchmarks.apps:durable"
WORKER = ("python", "-m", "afterwards", "worker", "benchmarks.apps:afterwards")
LIMITS = {"MAX_QUEUED": "100000000"}
FAR_US = 365 * 86_400 * 1_000_000  # a delay that outlives the measurement
CHUNK = 10_000
IDLE_SECONDS = 6.0  # three heartbeats, each of which counts what waits
TURNS = 3  # the two databases take turns, because a machine's speed changes
PATIENCE_SECONDS = 120


class Done(NamedTuple):
    """The tasks that succeeded since a moment, their first start and their last end (us)."""

    tasks: int
    first: int | None
    last: int | None

    @property
    def rate(self) -> float:
        return self.tasks / ((self.last or 0) - (self.first or 0)) * 1e6


def measure(rows: int, seconds: int) -> Iterator[str]:
    """Work off 5,000 rows; then idle, accept and work off as many beside `rows` that wait."""
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as full:
        small = _worked_off_in(Path(empty))
        alone = f"{SMALL:,} rows, nothing else in the table"
        yield f"{alone}: {small:,.0f} tasks/s from the first claim to the last end"
        _fill(Path(full), rows)
        yield f"beside {rows:,} rows that are due in a year:"
        with ExitStack() as stack:
            services = [servers.service(Path(each), APP, **LIMITS) for each in (empty, full)]
            running = [stack.enter_context(each) for each in services]
            without, beside = _idle(running)
            idle = f"{beside:.1f} MiB resident, {without:.1f} MiB without them"
            yield f"  idle for {IDLE_SECONDS:.0f} s: {idle}"
            yield f"  accepting: {_accepting(running, seconds)}"
        yield f"  {SMALL:,} rows that are due now: {_worked_off_in(Path(full)):,.0f} tasks/s"
        yield f"all of the {rows:,} due now: {_all_due(Path(full), seconds)}"
    seen = {"backlog": small, "waiting rows": beside - without}
    yield from goals.compare(seen | (yield from _on_postgres()))


def _on_postgres() -> Generator[str, None, dict[str, float | None]]:
    """Work off 20,000 rows twice: in a web process, and in a worker without one."""
    rates: dict[str, float | None] = {"backlog, postgres": None, "worker": None}
    if complaint := servers.POSTGRES.missing():
        yield f"left out: {complaint}"
        return rates
    with servers.running((servers.POSTGRES,)) as variables, tempfile.TemporaryDirectory() as name:
        url, limits = variables["DATABASE_URL"], LIMITS | variables
        web = _worked_off(url, ON_POSTGRES, servers.service(Path(name), APP, **limits))
        worker = _worked_off(url, ON_POSTGRES, _worker(Path(name), limits))
    yield f"{ON_POSTGRES:,} rows on Postgres: {web:,.0f} tasks/s by a web process,"
    yield f"  {worker:,.0f} tasks/s by `python -m afterwards worker`"
    return {"backlog, postgres": web, "worker": worker}


def _worked_off_in(directory: Path) -> float:
    return _worked_off(_url(directory), SMALL, servers.service(directory, APP, **LIMITS))


def _worked_off(
    database_url: str, count: int, working: AbstractContextManager[serving.Server]
) -> float:
    asyncio.run(apps.queue(database_url, count))
    if not database_url.startswith("sqlite"):
        serving.sql(database_url, "ANALYZE tasks")  # it does so by itself, but within a minute
    since = time.time()
    with working:
        serving.until(lambda: _done(database_url, since).tasks == count, PATIENCE_SECONDS)
    return _done(database_url, since).rate


@contextmanager
def _worker(directory: Path, variables: servers.Variables) -> Iterator[serving.Server]:
    worker = serving.start(directory, app="", command=WORKER, **variables)
    try:
        yield worker
    finally:
        worker.kill()


def _idle(running: list[serving.Server]) -> list[float]:
    """Return the MiB that each holds after its start, with nothing asked of it."""
    for server in running:
        server.wait_for_log("startup complete")
    time.sleep(IDLE_SECONDS)
    return [resident_kib(server.pid) / 1024 for server in running]


def _accepting(running: list[serving.Server], seconds: int) -> str:
    if complaint := load.missing():
        return f"left out: {complaint}"
    readings = [[load.run(server.url, seconds) for server in running] for _ in range(TURNS)]
    without, beside = (median(each.rate for each in own) for own in zip(*readings, strict=True))
    failed = sum(reading.failed for each in readings for reading in each)
    ratio = median(full.rate / empty.rate for empty, full in readings)
    rates = f"{beside:,.0f} requests/s against {without:,.0f}"
    return f"{rates}, a ratio of {ratio:.2f}; {failed:,} failed"


def _all_due(directory: Path, seconds: int) -> str:
    """Make all rows due at once, and watch the first seconds of the work."""
    with closing(sqlite3.connect(_file(directory))) as connection, connection:
        waiting = "state IN ('queued', 'retrying')"
        connection.execute(f"UPDATE afterwards_tasks SET run_at = created_at WHERE {waiting}")
    since = time.time()
    with servers.service(directory, APP, **LIMITS) as server:
        serving.until(lambda: _done(_url(directory), since).tasks, PATIENCE_SECONDS)
        before = resident_kib(server.pid) / 1024
        time.sleep(seconds)
        done, after = _done(_url(directory), since), resident_kib(server.pid) / 1024
    memory = f"{before:.1f} MiB, then {after:.1f} MiB"
    return f"{done.rate:,.0f} tasks/s for {seconds} s; resident memory {memory}"


def _fill(directory: Path, rows: int) -> None:
    """Multiply one queued row, in bulk: what its columns are is the store's matter."""
    asyncio.run(apps.queue(_url(directory), 1))
    with closing(sqlite3.connect(_file(directory))) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM afterwards_tasks").fetchone())
        row["run_at"] += FAR_US
        values = ", ".join(f":{name}" for name in row)
        insert = f"INSERT INTO afterwards_tasks ({', '.join(row)}) VALUES ({values})"
        for start in range(0, rows, CHUNK):
            numbers = range(start, min(start + CHUNK, rows))
            copies = ({**row, "id": f"{row['id']}-{number:08}"} for number in numbers)
            with connection:
                connection.executemany(insert, copies)
        with connection:
            connection.execute("DELETE FROM afterwards_tasks WHERE id = ?", (row["id"],))


def _done(database_url: str, since: float) -> Done:
    # In the words of the table's index, so that asking costs the process that works hardly a thing.
    query = (
        "SELECT count(*), min(started_at), max(finished_at) FROM tasks "
        "WHERE state IN ('succeeded', 'cancelled') AND finished_at > :since"
    )
    return Done(*serving.sql(database_url, query, since=int(since * 1e6))[0])


def _file(directory: Path) -> Path:
    return directory / "service.db"


def _url(directory: Path) -> str:
    return f"sqlite:///{_file(directory)}"
