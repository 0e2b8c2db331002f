"""The applications that are measured against each other: the same answer, the same task."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import tracing
from afterwards import Afterwards
from afterwards.attempt import current_task_id
from afterwards.model import Task, new_task_id
from afterwards.registry import task
from afterwards.rows import check, row_of
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from asgi_app import lifespan
from settings import for_afterwards, settings

# Or the lines of each attempt would be what is measured.
logging.getLogger().setLevel(logging.WARNING)

ANSWER = {"status": "processing"}

asleep = 0  # so that a measurement can check that all its tasks sleep
# When each task that tells began (ns), by the clock that all processes share.
started: list[int] = []
kept: set[asyncio.Task[None]] = set()  # the event loop itself keeps only weak references


async def nothing() -> None:
    """Be the task whose cost is all the machinery's."""


async def sleep() -> None:
    """Sleep for longer than any measurement lasts."""
    global asleep
    asleep += 1
    await asyncio.sleep(3600)


async def tell() -> int:
    """Tell when it started: to this process, and to whoever reads the result."""
    started.append(time.monotonic_ns())
    return started[-1]


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


async def no_task(request: Request) -> Response:
    return JSONResponse(ANSWER)


async def with_task(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(nothing))


async def with_sleep(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(sleep))


async def with_stored_task(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(stored_nothing))


async def with_stored_sleep(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(stored_sleep))


async def with_tell(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(tell))


async def with_stored_tell(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(stored_tell))


async def with_stored_doze(request: Request) -> Response:
    diary = request.query_params["diary"]
    return JSONResponse(ANSWER, background=BackgroundTask(stored_doze, diary))


async def with_bare_sleep(request: Request) -> Response:
    kept.add(asyncio.create_task(sleep()))
    return JSONResponse(ANSWER)


async def count_asleep(request: Request) -> Response:
    return JSONResponse({"asleep": asleep})


async def list_started(request: Request) -> Response:
    return JSONResponse({"started": started})


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as little as ASGI allows: the ceiling of what uvicorn can do here."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/json"), (b"content-length", b"23")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"status":"processing"}'})


Handler = Callable[[Request], Awaitable[Response]]
TOLD = [Route("/asleep", count_asleep), Route("/started", list_started)]


async def queue(database_url: str, count: int) -> None:
    """Queue tasks that do nothing, as a service does that has no free slot."""
    database = Database(database_url)
    await database.make_tables()
    new = [Task(new_task_id(), "nothing", stored_nothing, is_async=True) for _ in range(count)]
    await Store(database).enqueue([row_of(task, check(task)[1]) for task in new])
    await database.close()


def _plain(accept: Handler, go_to_sleep: Handler) -> Starlette:
    own = [Route("/", accept), Route("/sleep", go_to_sleep), Route("/tell", with_tell)]
    return Starlette(routes=[*own, *TOLD])


def _ours(handlers: Mapping[str, Handler]) -> Starlette:
    routes = [*(Route(path, handler) for path, handler in handlers.items()), *TOLD]
    spans = [Middleware(tracing.entry_spans)]
    app = Starlette(routes=routes, middleware=spans, lifespan=lifespan)
    Afterwards(**for_afterwards(settings), tracing=tracing).install(app)
    return app


bare = _plain(no_task, with_bare_sleep)
in_memory = _plain(with_task, with_sleep)
ours = _ours({"/": with_task, "/sleep": with_sleep})
durable = _ours(
    {
        "/": with_stored_task,
        "/sleep": with_stored_sleep,
        "/tell": with_stored_tell,
        "/doze": with_stored_doze,
    }
)
