"""Dramatiq over RabbitMQ or Redis: `send()` in a plain `def` route, as it blocks; a worker."""

import os

import dramatiq  # type: ignore[import-not-found]  # it is in .venv-bench alone
from dramatiq.brokers.rabbitmq import RabbitmqBroker  # type: ignore[import-not-found]  # as above
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]  # as above
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks import counting
from benchmarks.plain import ANSWER

if "AMQP_URL" in os.environ:
    own = os.environ["AMQP_URL"].removesuffix("/") + "%2F"  # as pika writes the virtual host /
    broker = RabbitmqBroker(url=own, confirm_delivery=True)
else:
    broker = RedisBroker(url=os.environ["REDIS_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor  # type: ignore[untyped-decorator]  # as above
def nothing() -> None:
    counting.one()


def accept(request: Request) -> Response:
    nothing.send()
    return JSONResponse(ANSWER)


app = Starlette(routes=[Route("/", accept)])
