"""The front door of Celery's workers: the wiring; `celery -A celery_app worker --concurrency 4` serves it."""

import asyncio
import secrets

import tasks as task_functions  # importing them registers them
import tracing
from afterwards import registry
from afterwards.attempt import current_task_id
from afterwards.brokers import celery as engine
from afterwards.brokers import celery_worker as worker
from afterwards.brokers.consumer import LoopThread, Runner
from afterwards.slots import LocalEngine
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from settings import exit_with, read_or_exit, settings
from web import logs

__all__ = ["app", "task_functions"]

UNBOUNDED = 1_000_000  # so many attempts at a time: Celery's --concurrency is the bound

# The processes that this worker forks have identities that begin so.
FAMILY = f"celery-{secrets.token_hex(4)}-"

_process: list[tuple[LoopThread, Runner]] = []  # what runs tasks in this process


def _make_run() -> worker.Run:
    """Start what runs tasks in this process: after the fork, because neither threads nor connections survive it."""
    tracing.start(in_fleet=True)
    loop = LoopThread()
    runner = loop.run(_runner())
    _process[:] = [(loop, runner)]
    return lambda id, name, carrier: loop.run(runner.run(id, name, carrier))


async def _runner() -> Runner:
    local = LocalEngine(
        max_running=UNBOUNDED,
        threads=UNBOUNDED,
        timeout=settings.request_timeout,
        surrounding=tracing.handed_off_attempt_span,
    )
    runner = Runner(
        Database(settings.database_url), local, keep_days=settings.keep_days, family=FAMILY
    )
    await runner.begin()
    return runner


def _end_process() -> None:
    while _process:
        loop, runner = _process.pop()
        loop.run(runner.end())
        loop.run(tracing.stop())


def _end_worker() -> None:
    """Give back what a process of this worker still held when it was killed."""

    async def release() -> None:
        database = Database(settings.database_url)
        try:
            await Store(database).release_family(FAMILY)
        finally:
            await database.close()

    asyncio.run(release())


read_or_exit()
logs.configure(
    settings.log_level, settings.log_format, task_id=current_task_id.get, trace_id=tracing.trace_id
)
if settings.celery_broker_url is None:
    exit_with("CELERY_BROKER_URL: not set, takes the broker that the web processes hand tasks to")
app = engine.make_app(
    settings.celery_broker_url, longest=registry.longest(settings.request_timeout)
)
worker.serve(app, registry.names(), _make_run, drain_seconds=settings.drain_seconds)
worker.at_end(_end_process, _end_worker)
