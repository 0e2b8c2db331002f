"""SAQ over Redis: the route enqueues, and SAQ's own worker runs the task."""

import os

from saq.queue import Queue  # type: ignore[import-not-found]  # it is in .venv-bench alone
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.plain import ANSWER, nothing

queue = Queue.from_url(os.environ["REDIS_URL"])


async def run_nothing(context: object) -> None:
    await nothing()


async def accept(request: Request) -> Response:
    await queue.enqueue("run_nothing")
    return JSONResponse(ANSWER)


app = Starlette(routes=[Route("/", accept)])
worker = {"queue": queue, "functions": [run_nothing]}
