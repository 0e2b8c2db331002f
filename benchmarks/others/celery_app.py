"""Celery over RabbitMQ or Redis: `delay()` in a plain `def` route, as it blocks, and its worker."""

import os

from celery import Celery
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks import counting
from benchmarks.plain import ANSWER

BROKER = os.environ.get("AMQP_URL") or os.environ["REDIS_URL"]

queue = Celery(broker=BROKER)
# As it comes, Celery does not wait until RabbitMQ has taken a message, let alone written it.
confirming = {"confirm_publish": True}
confirmed = Celery(broker=BROKER, broker_transport_options=confirming)
# The settings of a task that may not be lost, and the same with as many messages at hand as ever.
careful = Celery(broker=BROKER, task_acks_late=True, worker_prefetch_multiplier=1)
late = Celery(broker=BROKER, task_acks_late=True)


def nothing() -> None:
    """Do nothing but count, as a plain function: Celery has no `async def`."""
    counting.one()


deliver = queue.task(nothing, name="nothing")
deliver_confirmed = confirmed.task(nothing, name="nothing")
careful.task(nothing, name="nothing")
late.task(nothing, name="nothing")


def accept(request: Request) -> Response:
    deliver.delay()
    return JSONResponse(ANSWER)


def accept_confirmed(request: Request) -> Response:
    deliver_confirmed.delay()
    return JSONResponse(ANSWER)


app = Starlette(routes=[Route("/", accept)])
confirmed_app = Starlette(routes=[Route("/", accept_confirmed)])
