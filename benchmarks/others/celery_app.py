"""Celery over RabbitMQ: `delay()` in a plain `def` route, as it blocks, and Celery's worker."""

import os

from celery import Celery
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.plain import ANSWER

queue = Celery(broker=os.environ["AMQP_URL"])
# As it comes, Celery does not wait until RabbitMQ has taken a message, let alone written it.
confirming = {"confirm_publish": True}
confirmed = Celery(broker=os.environ["AMQP_URL"], broker_transport_options=confirming)
# The settings of a task that may not be lost, which our own workers have as well.
careful = Celery(broker=os.environ["AMQP_URL"], task_acks_late=True, worker_prefetch_multiplier=1)


def nothing() -> None:
    """Do nothing, as a plain function: Celery has no `async def`."""


deliver = queue.task(nothing, name="nothing")
deliver_confirmed = confirmed.task(nothing, name="nothing")
careful.task(nothing, name="nothing")


def accept(request: Request) -> Response:
    deliver.delay()
    return JSONResponse(ANSWER)


def accept_confirmed(request: Request) -> Response:
    deliver_confirmed.delay()
    return JSONResponse(ANSWER)


app = Starlette(routes=[Route("/", accept)])
confirmed_app = Starlette(routes=[Route("/", accept_confirmed)])
