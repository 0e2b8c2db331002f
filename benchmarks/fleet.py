"""What Celery's workers cost and give, and the four figures that docs/growing.md asks for."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from celery import Celery

from afterwards.brokers.celery import QUEUE
from benchmarks import apps, goals, load, messages, servers, table, through_database
from benchmarks.clients import client_of, percentile
from benchmarks.rivals import CELERY_WORKER
from benchmarks.rows import DURABLE, FLEET, FLEET_WORKER, ON_POSTGRES, PER_COMMIT
from tests import serving

APP = "benchmarks.apps:durable"
STARTS, PAUSE_SECONDS = 200, 0.05  # so that the fleet is idle when the next request comes
TASKS = 4_000
PROCESSES = (1, 2)  # of a worker: what --concurrency takes
PATIENCE_SECONDS = 30

Fill = Callable[[servers.Variables], float]


class Workers(NamedTuple):
    """Workers over RabbitMQ, the queue that they empty, and what fills it and tells how fast."""

    name: str
    fsync: str
    command: tuple[str, ...]
    queue: str
    fill: Fill


class Drained(NamedTuple):
    """How fast a queue was filled and emptied, for each number of processes."""

    filled: Sequence[float]
    emptied: Sequence[float]


def measure(rounds: int, seconds: int) -> Iterator[str]:
    """Compare accepting, starting and working off; then yield the four figures."""
    if missing := FLEET.missing() | ({load.missing()} - {""}):
        yield from (f"left out: {complaint}" for complaint in sorted(missing))
        return
    yield from table.compared(ON_POSTGRES, (DURABLE, FLEET), rounds, seconds)
    with servers.running(FLEET.needs) as variables:
        yield ""
        yield from _starts_table(variables)
        yield ""
        drained = [_drained(workers, variables) for workers in WORKERS]
        yield from _drained_table(drained)
        yield ""
        through = yield from _figures(drained[0], variables, seconds)
    ours, *late = (each.emptied[0] for each in drained[:3])
    yield from goals.compare({"celery worker": ours / max(late), "through": through})


# --- answer to start ---


def _starts_table(variables: servers.Variables) -> Iterator[str]:
    on_postgres = {"DATABASE_URL": variables["DATABASE_URL"]}
    yield "| answer read to task started, idle | p50 ms | p99 ms |"
    yield "|---|--:|--:|"
    yield _starts_line(DURABLE.name, _starts({}))
    yield _starts_line(ON_POSTGRES.name, _starts(on_postgres))
    with _worker(FLEET_WORKER, 1, variables):
        yield _starts_line(FLEET.name, _starts(variables))


def _starts_line(name: str, times: Sequence[float]) -> str:
    return f"| {name} | {percentile(times, 50):.3f} | {percentile(times, 99):.3f} |"


def _starts(variables: servers.Variables) -> Sequence[float]:
    """Ask now and then; return how long after each answer its task began, wherever it ran."""
    with _web(variables) as (server, database_url), client_of(server) as client:
        client.ask("/tell")  # the first makes connections
        serving.until(lambda: len(_told(database_url)) == 1, PATIENCE_SECONDS)
        came = []
        for _ in range(STARTS):
            came.append(client.ask("/tell").came)
            time.sleep(PAUSE_SECONDS)
        serving.until(lambda: len(_told(database_url)) == STARTS + 1, PATIENCE_SECONDS)
        began = _told(database_url)[1:]
        serving.sql(database_url, "DELETE FROM tasks")
    return [(start - answer) / 1e6 for answer, start in zip(came, began, strict=True)]


def _told(database_url: str) -> list[int]:
    query = "SELECT result FROM tasks WHERE state = 'succeeded' ORDER BY id"
    return [json.loads(row.result) for row in serving.sql(database_url, query)]


# --- working off ---


def _publish_rows(variables: servers.Variables) -> float:
    """Have a web process publish what waits in the database, and nothing else."""
    serving.sql(variables["DATABASE_URL"], "DELETE FROM tasks")  # what the last had no time for
    asyncio.run(apps.queue(variables["DATABASE_URL"], TASKS))
    # Postgres does so by itself, but within a minute.
    serving.sql(variables["DATABASE_URL"], "ANALYZE tasks")
    with messages.queue(variables["CELERY_BROKER_URL"], QUEUE) as queue, _web(variables):
        return queue.rate_until(TASKS)


def _publish(variables: servers.Variables) -> float:
    with Celery(broker=variables["AMQP_URL"], set_as_current=False) as app:
        began = time.monotonic()
        for _ in range(TASKS):
            app.send_task("nothing")
        return TASKS / (time.monotonic() - began)


UNSAFE = "not waited for"
CAREFUL_WORKER = ("celery", "--app", "benchmarks.others.celery_app:careful", "worker")
LATE_WORKER = ("celery", "--app", "benchmarks.others.celery_app:late", "worker")
CAREFUL = "Celery over RabbitMQ, acks_late, prefetch 1"
LATE = "Celery over RabbitMQ, acks_late"
PLAIN = "Celery over RabbitMQ, as it comes"
WORKERS = (
    Workers("ours over RabbitMQ and Postgres", PER_COMMIT, FLEET_WORKER, QUEUE, _publish_rows),
    Workers(CAREFUL, UNSAFE, CAREFUL_WORKER, "celery", _publish),
    Workers(LATE, UNSAFE, LATE_WORKER, "celery", _publish),
    Workers(PLAIN, UNSAFE, CELERY_WORKER, "celery", _publish),
)


def _drained(workers: Workers, variables: servers.Variables) -> Drained:
    """Fill the queue and have it worked off, once with each number of processes."""
    broker_url = variables["CELERY_BROKER_URL"]
    own = variables if workers is WORKERS[0] else {"AMQP_URL": broker_url}
    filled, emptied = [], []
    with messages.queue(broker_url, workers.queue) as queue:
        for processes in PROCESSES:
            queue.empty()
            filled.append(workers.fill(own))
            # The broker may lag behind.
            serving.until(lambda: queue.waiting() >= TASKS, PATIENCE_SECONDS)
            with _worker(workers.command, processes, own):
                emptied.append(queue.rate_until(0))
    return Drained(filled, emptied)


def _drained_table(drained: Sequence[Drained]) -> Iterator[str]:
    heads = " | ".join(f"--concurrency {processes}, tasks/s" for processes in PROCESSES)
    yield f"| {TASKS:,} no-op tasks worked off | fsync | {heads} |"
    yield f"|---|---|{'--:|' * len(PROCESSES)}"
    for workers, each in zip(WORKERS, drained, strict=True):
        rates = " | ".join(f"{rate:,.0f}" for rate in each.emptied)
        yield f"| {workers.name} | {workers.fsync} | {rates} |"


# --- the four figures ---


def _figures(
    ours: Drained, variables: servers.Variables, seconds: int
) -> Generator[str, None, float]:
    serving.sql(variables["DATABASE_URL"], "ANALYZE tasks")
    rates = {
        callers: through_database.rate(variables["DATABASE_URL"], callers)
        for callers in through_database.CALLERS
    }
    accepted, published = _accepting(variables, seconds)
    yield "| figure, for docs/growing.md | a second |"
    yield "|---|--:|"
    yield f"| A: accepts of one web process, which publishes meanwhile | {accepted:,.0f} |"
    ids = "ids published by one web process, which accepts nothing meanwhile"
    yield f"| H: {ids} | {mean(ours.filled):,.0f} |"
    yield f"| H beside A: the same, while it accepts as fast as it can | {published:,.0f} |"
    yield f"| W: no-op tasks of one worker process | {ours.emptied[0]:,.0f} |"
    rows = "rows through Postgres, each inserted, claimed and settled"
    for callers, through in rates.items():
        by = f"{through_database.PROCESSES} processes of {callers} callers"
        yield f"| D: {rows}, by {by} on the same machine | {through:,.0f} |"
    return rates[through_database.CALLERS[0]]


def _accepting(variables: servers.Variables, seconds: int) -> tuple[float, float]:
    """Load a web process that has no worker; return answers and messages a second."""
    broker_url = variables["CELERY_BROKER_URL"]
    with messages.queue(broker_url, QUEUE) as queue, _web(variables) as (server, _):
        load.run(server.url, 1)
        before = queue.waiting()
        reading = load.run(server.url, seconds)
        return reading.rate, (queue.waiting() - before) / seconds


# --- the processes ---


@contextmanager
def _web(variables: servers.Variables) -> Iterator[tuple[serving.Server, str]]:
    """Run a web process; give it and its database, a SQLite file if the variables name none."""
    with tempfile.TemporaryDirectory() as name:
        database_url = variables.get("DATABASE_URL", f"sqlite:///{name}/service.db")
        with servers.service(Path(name), APP, **variables) as server:
            server.wait_for_log("startup complete")
            yield server, database_url


@contextmanager
def _worker(command: Sequence[str], processes: int, variables: servers.Variables) -> Iterator[None]:
    """Run a worker, and let it end what it has begun."""
    with tempfile.TemporaryDirectory() as name:
        words = [*command, "--concurrency", f"{processes}"]
        own = {"PYTHONPATH": str(serving.ROOT), **variables}
        worker = serving.start(Path(name), app="", command=words, **own)
        try:
            yield
            worker.stop()
        finally:
            worker.kill()
