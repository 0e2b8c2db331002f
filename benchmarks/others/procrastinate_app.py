"""Procrastinate over Postgres: the route defers, and Procrastinate's own worker runs the task."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]  # it is in .venv-bench alone
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.plain import ANSWER, nothing
from settings import settings

queue = App(connector=PsycopgConnector(conninfo=settings.database_url))
deferred_nothing = queue.task(nothing, name="nothing")


async def accept(request: Request) -> Response:
    await deferred_nothing.defer_async()
    return JSONResponse(ANSWER)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with queue.open_async():
        await queue.schema_manager.apply_schema_async()
        yield


app = Starlette(routes=[Route("/", accept)], lifespan=lifespan)
