"""Our applications that are measured: the same answer and the same task as in `plain`."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import tracing
from afterwards import Afterwards
from afterwards.attempt import current_task_id
from afterwards.model import Task, new_task_id
from afterwards.registry import task
from afterwards.rows import check, row_of
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from asgi_app import lifespan
from benchmarks.plain import (
    ANSWER,
    LEVEL,
    TOLD,
    Handler,
    nothing,
    sleep,
    tell,
    with_sleep,
    with_task,
)
from settings import for_afterwards, settings

logging.getLogger().setLevel(LEVEL)  # which the service itself has set

# The same, stored: registered task functions become rows.


@task("nothing")
async def stored_nothing() -> None:
    await nothing()


@task("sleep")
async def stored_sleep() -> None:
    await sleep()


@task("tell")
async def stored_tell() -> int:
    return await tell()


@task("doze")
async def stored_doze(diary: str) -> None:
    """Sleep for 50 ms; write down the start and the end, whatever a database hears of them."""
    _write_down(diary, "start")
    await asyncio.sleep(0.05)
    _write_down(diary, "end")


def _write_down(diary: str, word: str) -> None:
    with Path(diary).open("a") as lines:
        lines.write(f"{word} {current_task_id.get()}\n")


async def with_stored_task(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(stored_nothing))


async def with_stored_sleep(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(stored_sleep))


async def with_stored_tell(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(stored_tell))


async def with_stored_doze(request: Request) -> Response:
    diary = request.query_params["diary"]
    return JSONResponse(ANSWER, background=BackgroundTask(stored_doze, diary))


async def queue(database_url: str, count: int) -> None:
    """Queue tasks that do nothing, as a service does that has no free slot."""
    database = Database(database_url)
    await database.make_tables()
    new = [Task(new_task_id(), "nothing", stored_nothing, is_async=True) for _ in range(count)]
    await Store(database).enqueue([row_of(task, check(task)[1]) for task in new])
    await database.close()


def _ours(handlers: Mapping[str, Handler]) -> Starlette:
    routes = [*(Route(path, handler) for path, handler in handlers.items()), *TOLD]
    spans = [Middleware(tracing.entry_spans)]
    app = Starlette(routes=routes, middleware=spans, lifespan=lifespan)
    owner = Afterwards(**for_afterwards(settings), tracing=tracing)
    owner.install(app)
    app.state.afterwards = owner
    return app


ours = _ours({"/": with_task, "/sleep": with_sleep})
durable = _ours(
    {
        "/": with_stored_task,
        "/sleep": with_stored_sleep,
        "/tell": with_stored_tell,
        "/doze": with_stored_doze,
    }
)
afterwards: Afterwards = (
    durable.state.afterwards
)  # what `python -m afterwards worker` is told to run
