"""The applications that are measured against each other: the same answer, the same task."""

import asyncio
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
from settings import settings

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


async def no_task(request: Request) -> Response:
    return JSONResponse(ANSWER)


async def with_task(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(nothing))


async def with_sleep(request: Request) -> Response:
    return JSONResponse(ANSWER, background=BackgroundTask(sleep))


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
    yield
    await engine.drain(settings.drain_seconds)
    await tracing.stop()


bare = Starlette(routes=_routes(no_task, with_bare_sleep))
in_memory = Starlette(routes=_routes(with_task, with_sleep))
ours = Starlette(
    routes=_routes(after_answer(with_task, tracing.carrier), after_answer(with_sleep, tracing.carrier)),
    middleware=[Middleware(tracing.RequestTracing)],
    lifespan=lifespan,
)
