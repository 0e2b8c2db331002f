"""arq over Redis: the route enqueues, and arq's own worker runs the task."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq import create_pool  # type: ignore[import-not-found]  # it is in .venv-bench alone
from arq.connections import RedisSettings  # type: ignore[import-not-found]  # as above
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.plain import ANSWER, nothing

REDIS = RedisSettings.from_dsn(os.environ["REDIS_URL"])
QUIET = {"version": 1, "disable_existing_loggers": False}  # it would print two lines for each task


async def run_nothing(context: object) -> None:
    await nothing()


async def accept(request: Request) -> Response:
    await request.app.state.queue.enqueue_job("run_nothing")
    return JSONResponse(ANSWER)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.queue = await create_pool(REDIS)
    yield


class Worker:
    """What arq's command line reads."""

    functions = (run_nothing,)
    redis_settings = REDIS


app = Starlette(routes=[Route("/", accept)], lifespan=lifespan)
