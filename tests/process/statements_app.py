"""A traced service whose requests and tasks execute statements, also on an engine of its own."""

import asyncio

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import tracing
from afterwards import Afterwards, task
from afterwards.attempt import current_task_id
from afterwards.store import engines
from settings import settings
from web import logs

URL = engines.with_driver(make_url(settings.database_url))
engine, untold = create_async_engine(URL), create_async_engine(URL)
tracing.trace_statements(engine)
tracing.trace_statements(engine)  # twice is as good as once


async def asks(connection: AsyncConnection | AsyncSession) -> None:
    await connection.execute(
        text("SELECT 'a secret of ours', :value /* a secret */"), {"value": "secret too"}
    )


@task("asks_in_a_task", attempts=1)
async def asks_in_a_task() -> None:
    async with afterwards.database.reading() as connection:
        await asks(connection)


@task("is_cut_off", attempts=1)
async def is_cut_off() -> None:
    """Ask what takes longer than the task may; SQLite's thread goes on for a moment."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most})"
    slow = {"sqlite": endless.format(most=3_000_000) + " SELECT count(*) FROM n"}
    async with engine.connect() as connection:
        await connection.execute(text(slow.get(connection.dialect.name, "SELECT pg_sleep(4)")))


async def asks_in_a_request(request: Request) -> Response:
    async with AsyncSession(engine) as session:
        await asks(session)
    return PlainTextResponse("ok")


async def asks_untold(request: Request) -> Response:
    async with untold.connect() as connection:
        await asks(connection)
    return PlainTextResponse("ok")


async def fails(request: Request) -> Response:
    async with engine.connect() as connection:
        try:
            await connection.execute(text("SELECT secret FROM nowhere"))
        except DBAPIError:
            return PlainTextResponse("failed")
    return PlainTextResponse("ok")


async def enqueues_within(request: Request) -> Response:
    async with afterwards.database.transaction() as connection:
        await afterwards.enqueue(asks_in_a_task, within=connection)
    return PlainTextResponse("ok")


async def asks_after_its_answer(request: Request) -> Response:
    async def late() -> None:
        async with engine.connect() as connection:
            await asyncio.sleep(0.2)
            await asks(connection)

    request.app.state.late = asyncio.create_task(late())
    return PlainTextResponse("ok")


async def attaches(request: Request) -> Response:
    functions = {each.__name__: each for each in (asks_in_a_task, is_cut_off)}
    return PlainTextResponse("ok", background=BackgroundTask(functions[request.path_params["it"]]))


logs.configure(
    settings.log_level, settings.log_format, task_id=current_task_id.get, trace_id=tracing.trace_id
)

app = Starlette(
    routes=[
        Route("/asks", asks_in_a_request),
        Route("/asks_untold", asks_untold),
        Route("/fails", fails),
        Route("/enqueues_within", enqueues_within),
        Route("/asks_after_its_answer", asks_after_its_answer),
        Route("/attaches/{it}", attaches),
    ],
    middleware=[Middleware(tracing.entry_spans)],
)
afterwards = Afterwards(
    settings.database_url,
    timeout=settings.request_timeout,
    drain_seconds=settings.drain_seconds,
    tracing=tracing,
)
afterwards.install(app)
