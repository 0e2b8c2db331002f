"""The applications that are measured against each other: the same answer, the same task."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import tracing
from durable.engines.local import LocalEngine
from durable.handoff import after_answer
from durable.registry import task
from durable.store import Store
from durable.worker import Worker
from settings import settings
from storage.database import Database

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")

ANSWER = {"status": "processing"}

asleep = 0  # so that a measurement can check that all its tasks sleep
kept: set[asyncio.Task[None]] = set()  # the event loop itself keeps only weak references


async def nothing() -> None:
    """Be the task whose cost is all the machinery's."""


async def sleep() -> None:
    """Sleep for longer than any measurement lasts."""
    global asleep
    asleep += 1
    await asyncio.sleep(3600)


# The same two, stored: registered task functions become rows.


@task("nothing")
async def stored_nothing() -> None:
    await nothing()


@task("sleep")
async def stored_sleep() -> None:
    await sleep()


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


async def with_bare_sleep(request: Request) -> Response:
    kept.add(asyncio.create_task(sleep()))
    return JSONResponse(ANSWER)


async def count_asleep(request: Request) -> Response:
    return JSONResponse({"asleep": asleep})


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as little as ASGI allows: the ceiling of what uvicorn can do here."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/json"), (b"content-length", b"23")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"status":"processing"}'})


Handler = Callable[[Request], Awaitable[Response]]


def _routes(accept: Handler, go_to_sleep: Handler) -> list[Route]:
    return [Route("/", accept), Route("/sleep", go_to_sleep), Route("/asleep", count_asleep)]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    tracing.start()
    engine = app.state.engine = LocalEngine(
        max_running=settings.max_running,
        threads=settings.task_threads,
        timeout=settings.request_timeout,
        surrounding=tracing.attempt_span,
    )
    database = Database(settings.database_url)
    worker = app.state.worker = Worker(
        Store(database), engine, max_queued=settings.max_queued, keep_days=settings.keep_days
    )
    await database.make_tables()
    await worker.begin()
    yield
    await worker.drain(settings.drain_seconds)
    await tracing.stop()


bare = Starlette(routes=_routes(no_task, with_bare_sleep))
in_memory = Starlette(routes=_routes(with_task, with_sleep))


def _ours(accept: Handler, go_to_sleep: Handler) -> Starlette:
    return Starlette(
        routes=_routes(after_answer(accept, tracing.carrier), after_answer(go_to_sleep, tracing.carrier)),
        middleware=[Middleware(tracing.RequestTracing)],
        lifespan=lifespan,
    )


ours = _ours(with_task, with_sleep)
durable = _ours(with_stored_task, with_stored_sleep)
