"""A traced service, for what the real one lacks: `/fails` attaches the task `fails`."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import tracing
from afterwards import Afterwards, InOrder, task
from afterwards.attempt import current_task_id
from afterwards.model import Task, new_task_id
from settings import settings
from web import logs

SECRETS = (
    "as asked of postgres://user:pa@ss/word@db/name and https://hooks.example/secret-path?secret=1"
)


@task(attempts=1)
async def fails() -> None:
    _deeper(60)


def _deeper(frames: int) -> None:
    if frames:
        _deeper(frames - 1)
    raise ValueError(SECRETS)


@task(attempts=2, first_pause=0.01)
async def fails_twice() -> None:
    raise ValueError("as asked")


@task(attempts=1)
async def fails_with_a_nul() -> None:
    raise ValueError("before\0after\x1b[2J")


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


async def fails_without_words() -> None:
    raise UnspeakableError


async def fails_with_a_lone_surrogate() -> None:
    raise ValueError("\ud800" + "x" * 1_000_000)


async def hangs() -> None:
    await asyncio.Event().wait()


@task(attempts=1)
def sleeps_in_a_thread() -> None:
    time.sleep(0.2)


def hangs_in_a_thread(url: str) -> None:
    httpx.get(url, timeout=30)


async def calls(url: str) -> None:
    async with httpx.AsyncClient() as client:
        await client.get(url)


def calls_in_a_thread(url: str) -> None:
    httpx.get(url)


loop: asyncio.AbstractEventLoop
stragglers: set[asyncio.Task[None]] = set()


async def leaves_a_call_behind(url: str) -> None:
    async def late() -> None:
        await asyncio.sleep(0.1)
        await calls(url)

    stragglers.add(asyncio.create_task(late()))


@task()
async def stored() -> None:
    """Be enqueued by others."""


async def enqueues() -> None:
    await afterwards.enqueue(stored)


def enqueues_in_a_thread() -> None:
    afterwards.enqueue_sync(stored)


def attaching(function: Callable[..., Any]) -> Route:
    async def handler(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(function, **request.query_params))

    return Route(f"/{function.__name__}", handler)


async def first_then_second(request: Request) -> Response:
    background = InOrder([BackgroundTask(fails), BackgroundTask(sleeps_in_a_thread)])
    return PlainTextResponse("ok", background=background)


async def resumes(request: Request) -> Response:
    """Start tasks with these carriers, as if their rows had been read from a database."""
    with_carriers = [
        Task(new_task_id(), f"stored-{number}", sleeps_in_a_thread, is_async=False, carrier=carrier)
        for number, carrier in enumerate(await request.json())
    ]
    afterwards.process.slots.start([with_carriers])
    return PlainTextResponse("ok")


async def enqueues_itself(request: Request) -> Response:
    await afterwards.enqueue(stored)
    return PlainTextResponse("ok")


async def outside(request: Request) -> Response:
    """Tell the carriers of what is neither a request nor a task: the lifespan, and a timer."""
    told: asyncio.Future[str] = loop.create_future()
    loop.call_soon(lambda: told.set_result(tracing.carrier(None)), context=Context())
    return JSONResponse([request.app.state.carrier, await told])


class Lingers:
    """Have Starlette run a task inside the request, as if nothing were installed."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope["afterwards.request"]
        response = PlainTextResponse("ok", background=BackgroundTask(asyncio.sleep, 0.5))
        await response(scope, receive, send)


async def says(request: Request) -> Response:
    logging.getLogger("pieces").info("said: %s", request.path_params["word"])
    return PlainTextResponse("ok")


async def raises(request: Request) -> Response:
    raise RuntimeError("a bug in a route")


async def drips(request: Request) -> Response:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"drop\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(endless())


async def streams(request: Request) -> Response:
    async def three() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"piece"
            await asyncio.sleep(0.1)

    return StreamingResponse(three())


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    global loop
    loop = asyncio.get_running_loop()
    app.state.carrier = tracing.carrier(None)
    if settings.discord_webhook_url:
        await calls(settings.discord_webhook_url)
    yield


logs.configure(
    settings.log_level, settings.log_format, task_id=current_task_id.get, trace_id=tracing.trace_id
)

app = Starlette(
    routes=[
        attaching(fails),
        attaching(fails_twice),
        attaching(fails_with_a_nul),
        attaching(fails_without_words),
        attaching(fails_with_a_lone_surrogate),
        attaching(hangs),
        attaching(sleeps_in_a_thread),
        attaching(hangs_in_a_thread),
        attaching(calls),
        attaching(calls_in_a_thread),
        attaching(leaves_a_call_behind),
        attaching(enqueues),
        attaching(enqueues_in_a_thread),
        Route("/enqueues_itself", enqueues_itself),
        Route("/outside", outside),
        Route("/items/{id}", lambda request: PlainTextResponse("ok")),
        Route("/first_then_second", first_then_second),
        Route("/resumes", resumes, methods=["POST"]),
        Route("/lingers", Lingers()),
        Route("/raises", raises),
        Route("/says/{word}", says),
        Route("/drips", drips),
        Route("/streams", streams),
    ],
    middleware=[Middleware(tracing.entry_spans)],
    lifespan=lifespan,
)
afterwards = Afterwards(
    settings.database_url,
    timeout=settings.request_timeout,
    drain_seconds=settings.drain_seconds,
    tracing=tracing,
)
afterwards.install(app)
