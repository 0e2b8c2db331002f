"""taskiq over RabbitMQ, or over a stream of Redis: the route kicks, and taskiq's worker runs."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from taskiq_aio_pika import AioPikaBroker  # type: ignore[import-not-found]  # it is in .venv-bench alone
from taskiq_redis import RedisStreamBroker  # type: ignore[import-not-found]  # as above

from benchmarks.plain import ANSWER, nothing

if "AMQP_URL" in os.environ:
    broker = AioPikaBroker(os.environ["AMQP_URL"])
else:
    broker = RedisStreamBroker(os.environ["REDIS_URL"])
kicked_nothing = broker.register_task(nothing, task_name="nothing")


async def accept(request: Request) -> Response:
    await kicked_nothing.kiq()
    return JSONResponse(ANSWER)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


app = Starlette(routes=[Route("/", accept)], lifespan=lifespan)
